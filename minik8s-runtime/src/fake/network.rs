//! The pod network of a [`Fake`].

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use async_trait::async_trait;

use super::{Fake, Op, State};
use crate::runtime::{Attachment, PodNetwork, PodSandbox, Result, RuntimeError};

#[async_trait]
impl PodNetwork for Fake {
    async fn ready(&self) -> Result<()> {
        self.call(Op::NetworkReady, "").await?.answer(Ok(()))
    }

    async fn attach(&self, pod: &PodSandbox) -> Result<Attachment> {
        let after = self.call(Op::AttachNetwork, &pod.uid).await?;
        let attachment = self.lock().attach(pod);
        after.answer(attachment)
    }

    async fn detach(&self, pod_uid: &str) -> Result<()> {
        let after = self.call(Op::DetachNetwork, pod_uid).await?;
        self.lock().networks.remove(pod_uid);
        after.answer(Ok(()))
    }

    async fn list(&self) -> Result<Vec<String>> {
        let after = self.call(Op::ListNetworks, "").await?;
        let uids = self.lock().networks.keys().cloned().collect();
        after.answer(Ok(uids))
    }
}

impl State {
    fn attach(&mut self, pod: &PodSandbox) -> Result<Attachment> {
        if let Some((_, attachment)) = self.networks.get(&pod.uid) {
            return Ok(attachment.clone());
        }
        let address = self.free_address().ok_or_else(|| RuntimeError::Other("no free pod address".into()))?;
        let netns = PathBuf::from("/run/netns").join(&pod.uid);
        let attachment = Attachment { netns, addresses: vec![IpAddr::V4(address)] };
        self.networks.insert(pod.uid.clone(), (pod.clone(), attachment.clone()));
        Ok(attachment)
    }

    /// Addresses go round: one that was given back is the last to be given out again.
    fn free_address(&mut self) -> Option<Ipv4Addr> {
        let (network, size) = self.subnet;
        // .0 is the network, .1 the gateway, the last one the broadcast address.
        let usable = size - 3;
        for _ in 0..usable {
            let host = 2 + (self.next_address - 2) % usable;
            self.next_address = host + 1;
            let address = Ipv4Addr::from(network + host);
            let taken = self.networks.values().any(|(_, a)| a.addresses.contains(&IpAddr::V4(address)));
            if !taken {
                return Some(address);
            }
        }
        None
    }
}
