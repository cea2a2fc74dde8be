//! The minik8s command.
fn main() {}
