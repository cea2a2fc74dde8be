//! Kubernetes' own signers, and what each of them signs
//! (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>).

use super::{CertificateRequest, Usage};

/// A signer that this project has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// `kubernetes.io/kube-apiserver-client`: users, whoever they may be.
    Client,
    /// `kubernetes.io/kube-apiserver-client-kubelet`: nodes, as clients.
    NodeClient,
    /// `kubernetes.io/kubelet-serving`: nodes, as servers.
    NodeServing,
}

/// The group of all nodes.
pub const NODES: &str = "system:nodes";
/// What nodes' user names begin with.
pub const NODE: &str = "system:node:";

impl Signer {
    /// The signer of that name; `None` for those of others.
    pub fn find(name: &str) -> Option<Self> {
        [Self::Client, Self::NodeClient, Self::NodeServing].into_iter().find(|signer| signer.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client",
            Self::NodeClient => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::NodeServing => "kubernetes.io/kubelet-serving",
        }
    }

    /// What it puts into the certificate.
    ///
    /// # Errors
    /// A sentence that says why it does not sign that.
    pub fn check(self, request: &CertificateRequest, usages: &[String]) -> Result<Vec<Usage>, String> {
        let (needed, allowed): (_, &[Usage]) = match self {
            Self::Client | Self::NodeClient => {
                (Usage::ClientAuth, &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ClientAuth])
            }
            Self::NodeServing => {
                (Usage::ServerAuth, &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth])
            }
        };
        let mut wanted = Vec::new();
        for usage in usages {
            match Usage::parse(usage).filter(|u| allowed.contains(u)) {
                Some(usage) => wanted.push(usage),
                None => return Err(format!("{} does not sign for the usage {usage:?}", self.name())),
            }
        }
        wanted.sort();
        wanted.dedup();
        if !wanted.contains(&needed) {
            let needed = if needed == Usage::ClientAuth { "client auth" } else { "server auth" };
            return Err(format!("{} needs the usage {needed:?}", self.name()));
        }
        if request.is_for_authority() {
            return Err("no certificate authority is signed".to_owned());
        }
        if self != Self::Client {
            node_of(request)
                .ok_or_else(|| format!("the subject must be CN={NODE}NAME, O={NODES}, and nothing else"))?;
        }
        let serves = request.names().next().is_some() || request.addresses().next().is_some();
        match self {
            Self::Client => {}
            Self::NodeClient if serves || request.has_other_names() => {
                return Err("a node's client certificate has no names to serve under".to_owned());
            }
            Self::NodeServing if !serves => {
                return Err("a serving certificate needs a host name or an address".to_owned());
            }
            Self::NodeServing if request.has_other_names() => {
                return Err("a serving certificate has host names and addresses only".to_owned());
            }
            Self::NodeClient | Self::NodeServing => {}
        }
        Ok(wanted)
    }
}

/// The node that the request is about, if it is about one.
pub fn node_of(request: &CertificateRequest) -> Option<&str> {
    let holder = request.holder();
    let node = holder.name.strip_prefix(NODE).filter(|n| !n.is_empty())?;
    (*holder.groups == [NODES.to_owned()]).then_some(node)
}
