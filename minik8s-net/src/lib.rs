//! Pod networks.
