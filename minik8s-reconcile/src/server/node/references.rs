//! What a pod refers to.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod, Volume};

use super::graph::{PodEntry, Thing};

/// What the graph has to know of the pod.
pub(super) fn entry(pod: &Pod) -> PodEntry {
    let spec = pod.spec.as_ref();
    let node = spec.and_then(|s| s.node_name.clone()).unwrap_or_default();
    let mut refers_to = BTreeSet::new();
    // What nobody runs nobody needs anything for.
    if !node.is_empty() && !is_mirror(pod) {
        let account = spec.and_then(|s| s.service_account_name.clone()).filter(|n| !n.is_empty());
        refers_to.insert((Thing::Account, account.unwrap_or_else(|| "default".to_owned())));
        refers_to.extend(referred_to(pod));
    }
    PodEntry { node, refers_to }
}

/// Whether the pod only shows what its node runs by itself.
pub(super) fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(super::MIRROR))
}

/// The secrets, ConfigMaps and claims that the pod refers to.
pub(super) fn referred_to(pod: &Pod) -> Vec<(Thing, String)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut found = Vec::new();
    for secret in spec.image_pull_secrets.iter().flatten() {
        found.push((Thing::Secret, secret.name.clone()));
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        environment(container.env.as_deref(), container.env_from.as_deref(), &mut found);
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        environment(container.env.as_deref(), container.env_from.as_deref(), &mut found);
    }
    for of in spec.volumes.iter().flatten() {
        volume(pod, of, &mut found);
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

fn environment(env: Option<&[EnvVar]>, env_from: Option<&[EnvFromSource]>, found: &mut Vec<(Thing, String)>) {
    for from in env.into_iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        found.extend(from.secret_key_ref.iter().map(|s| (Thing::Secret, s.name.clone())));
        found.extend(from.config_map_key_ref.iter().map(|c| (Thing::ConfigMap, c.name.clone())));
    }
    for from in env_from.into_iter().flatten() {
        found.extend(from.secret_ref.iter().map(|s| (Thing::Secret, s.name.clone())));
        found.extend(from.config_map_ref.iter().map(|c| (Thing::ConfigMap, c.name.clone())));
    }
}

fn volume(pod: &Pod, volume: &Volume, found: &mut Vec<(Thing, String)>) {
    let mut secret = |name: Option<&String>| found.extend(name.map(|n| (Thing::Secret, n.clone())));
    secret(volume.secret.as_ref().and_then(|s| s.secret_name.as_ref()));
    secret(volume.csi.as_ref().and_then(|c| c.node_publish_secret_ref.as_ref()).map(|s| &s.name));
    secret(volume.flex_volume.as_ref().and_then(|v| v.secret_ref.as_ref()).map(|s| &s.name));
    secret(volume.cephfs.as_ref().and_then(|v| v.secret_ref.as_ref()).map(|s| &s.name));
    secret(volume.rbd.as_ref().and_then(|v| v.secret_ref.as_ref()).map(|s| &s.name));
    secret(volume.iscsi.as_ref().and_then(|v| v.secret_ref.as_ref()).map(|s| &s.name));
    secret(volume.scale_io.as_ref().map(|v| &v.secret_ref.name));
    secret(volume.storageos.as_ref().and_then(|v| v.secret_ref.as_ref()).map(|s| &s.name));
    secret(volume.azure_file.as_ref().map(|v| &v.secret_name));
    found.extend(volume.config_map.iter().map(|c| (Thing::ConfigMap, c.name.clone())));
    for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
        found.extend(source.secret.iter().map(|s| (Thing::Secret, s.name.clone())));
        found.extend(source.config_map.iter().map(|c| (Thing::ConfigMap, c.name.clone())));
    }
    found.extend(volume.persistent_volume_claim.iter().map(|c| (Thing::Claim, c.claim_name.clone())));
    if volume.ephemeral.is_some() {
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        found.push((Thing::Claim, format!("{pod}-{}", volume.name)));
    }
}
