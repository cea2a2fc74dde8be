//! The node agent: runs the pods that are bound to its node.

mod pod_fsm;
mod qos;
mod quantity;
