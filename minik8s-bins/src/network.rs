//! The pod network as the agent wants it.

use async_trait::async_trait;
use minik8s_net::BridgeNetwork;
use minik8s_runtime::runtime::{Attachment, PodNetwork, PodSandbox, Result, RuntimeError};

/// A [`BridgeNetwork`] for an agent.
pub struct Bridge(pub BridgeNetwork);

fn failed(error: minik8s_net::Error) -> RuntimeError {
    RuntimeError::Other(error.to_string())
}

#[async_trait]
impl PodNetwork for Bridge {
    async fn ready(&self) -> Result<()> {
        self.0.ready().await.map_err(failed)
    }

    async fn attach(&self, pod: &PodSandbox) -> Result<Attachment> {
        let attached = self.0.attach(&pod.uid, &pod.namespace, &pod.name).await.map_err(failed)?;
        Ok(Attachment { netns: attached.netns, addresses: attached.addresses })
    }

    async fn detach(&self, pod_uid: &str) -> Result<()> {
        self.0.detach(pod_uid).await.map_err(failed)
    }

    async fn list(&self) -> Result<Vec<String>> {
        Ok(self.0.list())
    }
}
