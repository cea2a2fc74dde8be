//! The node agent: runs the pods that are bound to its node.

mod clock;
mod config;
mod container_spec;
mod context;
mod directory;
mod downward;
mod env;
mod events;
mod image_pull;
mod machine;
mod pod_fsm;
mod probe;
mod qos;
mod quantity;
mod sources;
mod status;
mod termination;
mod volumes;
mod worker;

pub use clock::Clock;
pub use config::AgentConfig;
pub use directory::{AgentHandle, AttemptInfo, ContainerInfo, PodInfo};
