use std::io;
use std::path::Path;

/// Why the network is not as it was told to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// All addresses of the subnet are taken.
    #[error("no free address in {0}")]
    Exhausted(crate::Subnet),
    /// A subnet without room for a gateway and a pod, or no subnet at all.
    #[error("{0} is no subnet for pods")]
    InvalidSubnet(String),
    /// A pod's uid that cannot be the name of a file.
    #[error("invalid pod uid {0:?}")]
    InvalidUid(String),
    /// A text that is no hardware address.
    #[error("{0:?} is no hardware address, such as 0a:58:0a:f4:01:00")]
    InvalidMac(String),
    /// A way between nodes that there is not.
    #[error("unknown network backend {0:?}: expected vxlan or host-gw")]
    InvalidBackend(String),
    /// No interface of this machine has the node's address.
    #[error("no interface of this machine has the node's address {0}")]
    NoSuchAddress(std::net::IpAddr),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// The kernel refused a request over netlink.
    #[error("{what}: {source}")]
    Netlink {
        /// What was being done.
        what: String,
        /// What it said.
        source: rtnetlink::Error,
    },
    /// `nft` refused our rules.
    #[error("nft: {0}")]
    Nft(String),
}

/// The answer of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }

    pub(crate) fn at(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::io(path.display().to_string(), source)
    }
}
