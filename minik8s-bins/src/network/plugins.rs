//! A pod network made by CNI plugins, as the agent wants it.

use async_trait::async_trait;
use minik8s_net::cni::{ChainNetwork, CniError, Pod};
use minik8s_runtime::runtime::{Attachment, HostPort, PodNetwork, PodSandbox, Result, RuntimeError};
use serde_json::{Map, Value, json};

/// A [`ChainNetwork`] for an agent.
pub struct Plugins(pub ChainNetwork);

fn failed(error: CniError) -> RuntimeError {
    RuntimeError::Other(error.to_string())
}

/// What plugins can be told of a pod.
fn capabilities(ports: &[HostPort]) -> Map<String, Value> {
    let mapping = |port: &HostPort| {
        let mut mapping = json!({
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol.to_lowercase(),
        });
        if let Some(address) = port.host_ip {
            mapping["hostIP"] = json!(address);
        }
        mapping
    };
    let mappings: Vec<Value> = ports.iter().map(mapping).collect();
    let told = (!mappings.is_empty()).then(|| ("portMappings".to_owned(), Value::Array(mappings)));
    told.into_iter().collect()
}

#[async_trait]
impl PodNetwork for Plugins {
    async fn ready(&self) -> Result<()> {
        self.0.ready().map_err(failed)
    }

    async fn attach(&self, pod: &PodSandbox) -> Result<Attachment> {
        let capabilities = capabilities(&pod.ports);
        let (uid, namespace, name) = (pod.uid.clone(), pod.namespace.clone(), pod.name.clone());
        let attached = self.0.attach(&Pod { uid, namespace, name, capabilities }).await.map_err(failed)?;
        Ok(Attachment { netns: attached.netns, addresses: attached.addresses })
    }

    async fn detach(&self, pod_uid: &str) -> Result<()> {
        self.0.detach(pod_uid).await.map_err(failed)
    }

    async fn list(&self) -> Result<Vec<String>> {
        self.0.list().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_node_are_told_as_portmap_wants_them() {
        assert!(capabilities(&[]).is_empty());
        let port = HostPort { host_port: 8080, container_port: 80, protocol: "TCP".into(), host_ip: None };
        let bound = HostPort { host_ip: "10.0.0.1".parse().ok(), ..port.clone() };
        let told = capabilities(&[port, bound]);
        assert_eq!(
            told["portMappings"],
            json!([
                { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
                { "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "10.0.0.1" },
            ])
        );
    }
}
