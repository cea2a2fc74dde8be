//! The built-in kinds: one file per API group (or family of groups), a few lines per kind.

mod aggregation;
mod apps;
mod autoscaling;
mod batch;
mod cluster;
mod core;
mod minik8s;
mod networking;
mod policy;
mod rbac;
mod resource;
mod reviews;
mod storage;

use crate::registry::Registry;

impl Registry {
    /// The kinds of Kubernetes' own groups and those of `minik8s.io`.
    pub fn builtin() -> Self {
        let mut registry = Self::empty();
        for kinds in [
            core::kinds(),
            apps::kinds(),
            batch::kinds(),
            autoscaling::kinds(),
            policy::kinds(),
            networking::kinds(),
            storage::kinds(),
            rbac::kinds(),
            cluster::kinds(),
            reviews::kinds(),
            aggregation::kinds(),
            resource::kinds(),
            minik8s::kinds(),
        ] {
            for kind in kinds {
                registry.register(kind);
            }
        }
        registry
    }
}

#[cfg(test)]
mod tests;
