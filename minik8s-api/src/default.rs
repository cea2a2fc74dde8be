//! Defaulting: what the API fills in where an object does not say, and what it sets on new objects.

pub mod pod;
