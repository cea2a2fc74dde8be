//! The state machine against a world that does as it is told.

mod properties;
mod scenarios;
mod world;
