//! What a container sees of the pod's volumes and of its own small files.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Container;

use super::{PodDir, Volumes, sub_path};
use crate::agent::env::expand;
use crate::runtime::{Mount, Propagation};

/// For whom to mount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MountRequest<'a> {
    /// The pod's directory.
    pub(crate) dir: &'a PodDir,
    /// The container.
    pub(crate) container: &'a Container,
    /// The pod's volumes.
    pub(crate) volumes: &'a Volumes,
    /// The container's variables, for `subPathExpr`.
    pub(crate) env: &'a [(String, String)],
    /// Where its last words go on the node.
    pub(crate) termination_log: &'a Path,
}

/// The container's mounts. Binds of parts of volumes are made anew.
///
/// # Errors
/// Which mount cannot be, in the words of a `CreateContainerConfigError`.
pub(crate) fn container_mounts(request: MountRequest<'_>) -> Result<Vec<Mount>, String> {
    let MountRequest { dir, container, volumes, env, termination_log } = request;
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes
            .get(&mount.name)
            .ok_or_else(|| format!("cannot find volume \"{}\" to mount into container", mount.name))?;
        let sub = match (mount.sub_path.as_deref(), mount.sub_path_expr.as_deref()) {
            (_, Some(expr)) if !expr.is_empty() => expand(expr, env),
            (Some(path), _) => path.to_owned(),
            _ => String::new(),
        };
        let host_path = if sub.is_empty() {
            volume.path.clone()
        } else {
            let target = dir.sub_path(&mount.name, &container.name, index);
            let made = sub_path::unbind(&target)
                .and_then(|()| sub_path::bind(&volume.path, Path::new(&sub), &target));
            made.map_err(|e| format!("failed to prepare subPath for volumeMount \"{}\": {e}", mount.name))?;
            target
        };
        mounts.push(Mount {
            host_path,
            container_path: absolute(&mount.mount_path),
            read_only: volume.read_only || mount.read_only == Some(true),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        });
    }
    let own = |file: &str, at: &str| Mount {
        host_path: dir.etc(file),
        container_path: at.into(),
        read_only: false,
        propagation: Propagation::Private,
    };
    for (file, at) in
        [("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname")]
    {
        // A pod may bring its own.
        if !mounts.iter().any(|m| m.container_path == Path::new(at)) {
            mounts.push(own(file, at));
        }
    }
    let last_words = container.termination_message_path.as_deref().filter(|p| !p.is_empty());
    mounts.push(Mount {
        host_path: termination_log.to_owned(),
        container_path: absolute(last_words.unwrap_or("/dev/termination-log")),
        read_only: false,
        propagation: Propagation::Private,
    });
    Ok(mounts)
}

fn absolute(path: &str) -> PathBuf {
    Path::new("/").join(path)
}
