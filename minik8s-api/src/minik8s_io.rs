//! Group `minik8s.io`: what we add to Kubernetes. Its kinds are ordinary custom resources, so that any client for
//! Kubernetes works with them.

pub mod dns;
