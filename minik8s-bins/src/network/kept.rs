//! What the control plane last said, in the node's directory: a machine that starts while nobody answers has its network
//! all the same.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use minik8s_net::Subnet;
use minik8s_net::overlay::NodeRoute;
use serde::{Deserialize, Serialize};

/// The name of the file.
const FILE: &str = "pod-network.json";

/// What a node was given, and where the others are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The addresses of its pods.
    #[serde(with = "text")]
    pub subnet: Subnet,
    /// The addresses of all pods.
    #[serde(with = "texts", default)]
    pub cluster: Vec<Subnet>,
    /// The other nodes.
    #[serde(default)]
    others: Vec<Other>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Other {
    #[serde(with = "text")]
    subnet: Subnet,
    address: std::net::IpAddr,
    mac: Option<String>,
}

impl Kept {
    /// What is to be kept.
    pub fn new(subnet: Subnet, cluster: Vec<Subnet>, others: &[NodeRoute]) -> Self {
        let mac = |other: &NodeRoute| other.mac.map(|mac| mac.to_string());
        let others =
            others.iter().map(|o| Other { subnet: o.subnet, address: o.address, mac: mac(o) }).collect();
        Self { subnet, cluster, others }
    }

    /// The other nodes.
    pub fn others(&self) -> Vec<NodeRoute> {
        let mac = |other: &Other| other.mac.as_deref().and_then(|text| text.parse().ok());
        let others = self.others.iter();
        others.map(|o| NodeRoute { subnet: o.subnet, address: o.address, mac: mac(o) }).collect()
    }

    /// Reads what was kept, if anything was.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged: remove it to wait for the server", path.display()))
                .map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Keeps nothing any more.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Keeps it; it is on the disk when this returns.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let (path, new) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
        let put = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            std::fs::File::open(dir)?.sync_all()
        };
        put().with_context(|| format!("cannot write {}", PathBuf::from(&path).display()))
    }
}

/// A subnet as it is written.
mod text {
    use super::Subnet;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(subnet: &Subnet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(subnet)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Subnet, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Several of them.
mod texts {
    use super::Subnet;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(subnets: &[Subnet], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(subnets.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Subnet>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_damage_is_told() {
        let dir = std::env::temp_dir().join(format!("minik8s-kept-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        assert!(Kept::read(&dir).expect("nothing").is_none());
        let others = [NodeRoute {
            subnet: "10.244.2.0/24".parse().expect("a subnet"),
            address: std::net::IpAddr::from([10, 0, 0, 2]),
            mac: "0a:58:0a:f4:02:00".parse().ok(),
        }];
        let own = "10.244.1.0/24".parse().expect("a subnet");
        let kept = Kept::new(own, vec!["10.244.0.0/16".parse().expect("a subnet")], &others);
        kept.write(&dir).expect("written");
        let read = Kept::read(&dir).expect("read").expect("something");
        assert_eq!((&read, read.others()), (&kept, others.to_vec()));
        std::fs::write(dir.join(FILE), "{").expect("written");
        assert!(Kept::read(&dir).expect_err("damage").to_string().contains("damaged"));
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
