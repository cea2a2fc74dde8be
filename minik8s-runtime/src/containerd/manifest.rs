//! The JSON of images: indexes, manifests and configurations, as much of it as running them takes.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::runtime::Image;

/// A reference to a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    #[serde(default)]
    pub(super) size: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(super) annotations: std::collections::BTreeMap<String, String>,
}

impl Descriptor {
    /// As containerd's own messages have it.
    pub(super) fn to_proto(&self) -> containerd_client::types::Descriptor {
        containerd_client::types::Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.size,
            annotations: Default::default(),
        }
    }
}

/// What a variant of an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
}

/// One variant of an image: its configuration and its layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// Several variants of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<Descriptor>,
}

/// Either of the two; which one is seen by its members.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Target {
    Index(Index),
    Manifest(Manifest),
}

impl Index {
    /// The variant for this machine; one that does not say what it is for is taken if there is no better one.
    pub(super) fn ours(&self) -> Option<&Descriptor> {
        let arch = architecture();
        let fits = |descriptor: &&Descriptor| {
            descriptor.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == arch)
        };
        let silent = |descriptor: &&Descriptor| descriptor.platform.is_none();
        self.manifests.iter().find(fits).or_else(|| self.manifests.iter().find(silent))
    }
}

/// This machine's architecture as Go, and so every image, names it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The configuration of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    config: Option<Process>,
    pub(super) rootfs: RootFs,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Process {
    // Docker writes null for each that is empty.
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

/// The digests of the layers, unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct RootFs {
    #[serde(default)]
    pub(super) diff_ids: Vec<String>,
}

impl RootFs {
    /// The name of the snapshot of each layer on top of those below it.
    pub(super) fn chain_ids(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::with_capacity(self.diff_ids.len());
        for diff in &self.diff_ids {
            let id = match chain.last() {
                None => diff.clone(),
                Some(below) => format!("sha256:{:x}", Sha256::digest(format!("{below} {diff}"))),
            };
            chain.push(id);
        }
        chain
    }
}

impl Config {
    /// What the agent wants to know; names, digests and size are the caller's to fill in.
    pub(super) fn image(&self) -> Image {
        let process = self.config.clone().unwrap_or_default();
        Image {
            entrypoint: process.entrypoint.unwrap_or_default(),
            cmd: process.cmd.unwrap_or_default(),
            env: process.env.unwrap_or_default(),
            user: process.user.unwrap_or_default(),
            working_dir: process.working_dir.unwrap_or_default(),
            stop_signal: process.stop_signal.unwrap_or_default(),
            ..Image::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_gives_the_variant_for_this_machine() {
        let json = format!(
            r#"{{"schemaVersion":2,"manifests":[
                {{"mediaType":"m","digest":"sha256:a","size":1,"platform":{{"os":"linux","architecture":"mips"}}}},
                {{"mediaType":"m","digest":"sha256:b","size":2,"platform":{{"os":"linux","architecture":"{}","variant":"v8"}}}}
            ]}}"#,
            architecture()
        );
        let Target::Index(index) = serde_json::from_str(&json).unwrap() else { panic!("not an index") };
        assert_eq!(index.ours().unwrap().digest, "sha256:b");
        let none = Index { manifests: vec![index.manifests[0].clone()] };
        assert_eq!(none.ours(), None);
    }

    #[test]
    fn dockers_nulls_are_empty() {
        let json = r#"{"architecture":"amd64","config":{"Env":null,"Cmd":["sh"],"Entrypoint":null,"User":"web",
            "WorkingDir":"","Labels":null},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;
        let image = serde_json::from_str::<Config>(json).unwrap().image();
        assert_eq!((image.cmd, image.user, image.env.len()), (vec!["sh".to_owned()], "web".to_owned(), 0));
        let bare: Config = serde_json::from_str(r#"{"rootfs":{"diff_ids":["sha256:a"]}}"#).unwrap();
        assert_eq!(bare.image(), Image::default());
    }

    #[test]
    fn chain_ids_hash_each_layer_with_those_below() {
        let rootfs = RootFs { diff_ids: vec!["sha256:a".into(), "sha256:b".into()] };
        let want = format!("sha256:{:x}", Sha256::digest("sha256:a sha256:b"));
        assert_eq!(rootfs.chain_ids(), ["sha256:a", want.as_str()]);
        assert!(RootFs::default().chain_ids().is_empty());
    }
}
