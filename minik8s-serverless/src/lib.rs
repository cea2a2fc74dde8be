//! A serverless platform on minik8s.
//!
//! This crate will hold functions (code in, a revision out), an activator that scales them from zero, triggers
//! (HTTP, cron, object events) and workflows that chain them, each a controller on `minik8s-reconcile`.
