//! What each volume of a pod is to be.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, Pod, Volume as Spec};

use super::payload::{self, Defaults, Payload, Tokens};
use crate::agent::downward::Place;
use crate::agent::pod_fsm::spec;
use crate::agent::qos;
use crate::agent::sources::{Objects, Wanted};

/// One volume to put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Empty at first, gone with the pod.
    EmptyDir {
        /// In memory, of at most that many bytes; none for the disk.
        memory: Option<Option<u64>>,
        /// The mode of its root.
        mode: u32,
    },
    /// A part of the node.
    HostPath {
        /// Where.
        path: PathBuf,
        /// What must be there; may be empty.
        kind: String,
    },
    /// A directory that outlives the pod.
    Claim {
        /// Where.
        path: PathBuf,
        /// May not be written.
        read_only: bool,
        /// Its files are given to the pod's group one by one, even where its root has been already.
        recursive: bool,
    },
    /// Files that the agent writes and keeps up to date.
    Files {
        /// The files.
        payload: Payload,
        /// They must not reach a disk.
        secret: bool,
    },
}

/// The ConfigMaps and Secrets that the pod's volumes refer to.
pub(crate) fn wanted(pod: &Pod) -> Wanted {
    let mut wanted = Wanted::default();
    for volume in spec(pod).volumes.iter().flatten() {
        wanted.config_maps.extend(volume.config_map.iter().map(|s| s.name.clone()));
        wanted.secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        for part in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            wanted.config_maps.extend(part.config_map.iter().map(|s| s.name.clone()));
            wanted.secrets.extend(part.secret.iter().map(|s| s.name.clone()));
        }
    }
    wanted
}

/// The service account tokens that the pod's volumes hold: audience and seconds of life.
pub(crate) fn token_requests(pod: &Pod) -> Vec<(String, i64)> {
    let mut out: BTreeMap<String, i64> = BTreeMap::new();
    for volume in spec(pod).volumes.iter().flatten() {
        for part in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            if let Some(token) = &part.service_account_token {
                let seconds = token.expiration_seconds.unwrap_or(3600).max(600);
                let known = out.entry(token.audience.clone().unwrap_or_default()).or_insert(seconds);
                *known = seconds.min(*known);
            }
        }
    }
    out.into_iter().collect()
}

/// The claims that the pod's volumes refer to.
pub(crate) fn claims(pod: &Pod) -> Vec<String> {
    spec(pod)
        .volumes
        .iter()
        .flatten()
        .filter_map(|v| v.persistent_volume_claim.as_ref())
        .map(|c| c.claim_name.clone())
        .collect()
}

/// Whether the pod has files that may have to be written again.
pub(crate) fn refreshable(pod: &Pod) -> bool {
    spec(pod).volumes.iter().flatten().any(|v| {
        v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some()
    })
}

/// The pod's volumes.
///
/// # Errors
/// Which volume cannot be, and why.
pub(crate) fn plan(
    pod: &Pod,
    place: &Place,
    objects: &Objects,
    tokens: &Tokens,
    volumes: &BTreeMap<String, Arc<PersistentVolume>>,
) -> Result<BTreeMap<String, Plan>, String> {
    let mut plans = BTreeMap::new();
    for volume in spec(pod).volumes.iter().flatten() {
        let plan = one(pod, place, volume, objects, tokens, volumes)
            .map_err(|e| format!("MountVolume.SetUp failed for volume \"{}\" : {e}", volume.name))?;
        plans.insert(volume.name.clone(), plan);
    }
    Ok(plans)
}

fn one(
    pod: &Pod,
    place: &Place,
    volume: &Spec,
    objects: &Objects,
    tokens: &Tokens,
    volumes: &BTreeMap<String, Arc<PersistentVolume>>,
) -> Result<Plan, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(s) = &volume.empty_dir {
        let memory = match s.medium.as_deref().unwrap_or_default() {
            "" => None,
            "Memory" => Some(
                s.size_limit
                    .as_ref()
                    .and_then(|l| qos::amount("memory", l))
                    .and_then(|b| u64::try_from(b).ok()),
            ),
            other => return Err(format!("emptyDir medium {other:?} is not supported")),
        };
        let mode = s.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o777);
        return Ok(Plan::EmptyDir { memory, mode });
    }
    if let Some(s) = &volume.host_path {
        return Ok(Plan::HostPath { path: s.path.clone().into(), kind: s.type_.clone().unwrap_or_default() });
    }
    if let Some(s) = &volume.config_map {
        let found = objects.config_maps.get(&s.name).cloned().flatten();
        let defaults = Defaults::new(s.default_mode, s.default_user);
        let (items, optional) = (s.items.as_deref(), s.optional == Some(true));
        let payload = payload::config_map(namespace, &s.name, found.as_deref(), items, optional, defaults)?;
        return Ok(Plan::Files { payload, secret: false });
    }
    if let Some(s) = &volume.secret {
        let name = s.secret_name.clone().unwrap_or_default();
        let found = objects.secrets.get(&name).cloned().flatten();
        let defaults = Defaults::new(s.default_mode, s.default_user);
        let (items, optional) = (s.items.as_deref(), s.optional == Some(true));
        let payload = payload::secret(namespace, &name, found.as_deref(), items, optional, defaults)?;
        return Ok(Plan::Files { payload, secret: true });
    }
    if let Some(s) = &volume.downward_api {
        let defaults = Defaults::new(s.default_mode, None);
        let payload = payload::downward(pod, place, s.items.as_deref().unwrap_or_default(), defaults)?;
        return Ok(Plan::Files { payload, secret: false });
    }
    if let Some(s) = &volume.projected {
        let payload = payload::projected(pod, place, s, objects, tokens)?;
        let secret =
            s.sources.iter().flatten().any(|p| p.secret.is_some() || p.service_account_token.is_some());
        return Ok(Plan::Files { payload, secret });
    }
    if let Some(s) = &volume.persistent_volume_claim {
        let bound = volumes.get(&s.claim_name).ok_or("the claim's volume is not known")?;
        return claim(pod, bound, s.read_only == Some(true));
    }
    Err("this kind of volume is not supported on this node".to_owned())
}

fn claim(pod: &Pod, volume: &PersistentVolume, read_only: bool) -> Result<Plan, String> {
    let spec_of = volume.spec.as_ref().ok_or("the volume has no spec")?;
    let path = match (&spec_of.host_path, &spec_of.local) {
        (Some(s), _) => &s.path,
        (None, Some(s)) => &s.path,
        (None, None) => return Err("volumes of this kind are not supported on this node".to_owned()),
    };
    let policy = spec(pod).security_context.as_ref().and_then(|s| s.fs_group_change_policy.as_deref());
    Ok(Plan::Claim { path: path.into(), read_only, recursive: policy != Some("OnRootMismatch") })
}

/// Whether the node has what a hostPath asks for; makes it where it may.
pub(super) fn check_host_path(path: &Path, kind: &str) -> Result<(), String> {
    let failed = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", path.display()));
    let made = |e: std::io::Error| format!("cannot make {}: {e}", path.display());
    let found = fs::metadata(path);
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if found.is_err() => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(made)
        }
        "FileOrCreate" if found.is_err() => {
            fs::OpenOptions::new().create(true).append(true).mode(0o644).open(path).map_err(made).map(drop)
        }
        "Directory" | "DirectoryOrCreate" if !found.as_ref().is_ok_and(|m| m.is_dir()) => {
            failed("a directory")
        }
        "File" | "FileOrCreate" if !found.as_ref().is_ok_and(|m| m.is_file()) => failed("a file"),
        "Socket" if !found.as_ref().is_ok_and(|m| m.file_type().is_socket()) => failed("a socket file"),
        "CharDevice" if !found.as_ref().is_ok_and(|m| m.file_type().is_char_device()) => {
            failed("a character device")
        }
        "BlockDevice" if !found.as_ref().is_ok_and(|m| m.file_type().is_block_device()) => {
            failed("a block device")
        }
        "Directory" | "DirectoryOrCreate" | "File" | "FileOrCreate" | "Socket" | "CharDevice"
        | "BlockDevice" => Ok(()),
        other => Err(format!("{other:?} is an invalid volume type")),
    }
}
