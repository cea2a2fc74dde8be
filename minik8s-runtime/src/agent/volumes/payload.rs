//! The files of ConfigMap, Secret, downward API and projected volumes.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret,
};

use crate::agent::downward::{self, Place};
use crate::agent::sources::Objects;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) data: Vec<u8>,
    pub(crate) mode: u32,
    /// Its owner; root if none.
    pub(crate) user: Option<u32>,
}

/// Files by their path in the volume.
pub(crate) type Payload = BTreeMap<String, File>;

/// Tokens of the pod's service account by audience (empty for the server itself).
pub(crate) type Tokens = BTreeMap<String, String>;

/// What a volume's source says of all its files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub(super) mode: u32,
    pub(super) user: Option<u32>,
}

impl Defaults {
    pub(super) fn new(mode: Option<i32>, user: Option<i64>) -> Self {
        Self { mode: file_mode(mode).unwrap_or(0o644), user: user.and_then(|u| u32::try_from(u).ok()) }
    }
}

fn file_mode(mode: Option<i32>) -> Option<u32> {
    mode.and_then(|m| u32::try_from(m).ok()).map(|m| m & 0o777)
}

/// The files of a ConfigMap.
pub(super) fn config_map(
    namespace: &str,
    name: &str,
    found: Option<&ConfigMap>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    defaults: Defaults,
) -> Result<Payload, String> {
    let Some(map) = found else {
        return if optional { Ok(Payload::new()) } else { Err(format!("configmap \"{name}\" not found")) };
    };
    let mut data: BTreeMap<&str, &[u8]> = BTreeMap::new();
    data.extend(map.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes())));
    data.extend(map.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice())));
    select(&data, items, optional, defaults, &format!("configmap {namespace}/{name}"))
}

/// The files of a Secret.
pub(super) fn secret(
    namespace: &str,
    name: &str,
    found: Option<&Secret>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    defaults: Defaults,
) -> Result<Payload, String> {
    let Some(secret) = found else {
        return if optional { Ok(Payload::new()) } else { Err(format!("secret \"{name}\" not found")) };
    };
    let data = secret.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice())).collect();
    select(&data, items, optional, defaults, &format!("secret {namespace}/{name}"))
}

fn select(
    data: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    defaults: Defaults,
    what: &str,
) -> Result<Payload, String> {
    let file = |bytes: &[u8], mode: Option<i32>, user: Option<i64>| File {
        data: bytes.to_vec(),
        mode: file_mode(mode).unwrap_or(defaults.mode),
        user: user.and_then(|u| u32::try_from(u).ok()).or(defaults.user),
    };
    let mut payload = Payload::new();
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in data {
            payload.insert(checked(key)?, file(bytes, None, None));
        }
        return Ok(payload);
    };
    for item in items {
        match data.get(item.key.as_str()) {
            Some(bytes) => {
                payload.insert(checked(&item.path)?, file(bytes, item.mode, item.user));
            }
            None if optional => {}
            None => return Err(format!("{what} references non-existent key: {}", item.key)),
        }
    }
    Ok(payload)
}

/// The files of the downward API.
pub(super) fn downward(
    pod: &Pod,
    place: &Place,
    files: &[DownwardAPIVolumeFile],
    defaults: Defaults,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for file in files {
        let text = match (&file.field_ref, &file.resource_field_ref) {
            (Some(field), _) => downward::field(pod, place, &field.field_path)?,
            (None, Some(resource)) => downward::resource(pod, None, place, resource)?,
            (None, None) => return Err(format!("{}: neither fieldRef nor resourceFieldRef", file.path)),
        };
        let mode = file_mode(file.mode).unwrap_or(defaults.mode);
        let user = file.user.and_then(|u| u32::try_from(u).ok()).or(defaults.user);
        payload.insert(checked(&file.path)?, File { data: text.into_bytes(), mode, user });
    }
    Ok(payload)
}

/// The files of several sources in one volume; later ones win.
pub(super) fn projected(
    pod: &Pod,
    place: &Place,
    source: &ProjectedVolumeSource,
    objects: &Objects,
    tokens: &Tokens,
) -> Result<Payload, String> {
    let defaults = Defaults::new(source.default_mode, source.default_user);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut payload = Payload::new();
    for part in source.sources.iter().flatten() {
        if let Some(s) = &part.config_map {
            let found = objects.config_maps.get(&s.name).cloned().flatten();
            let optional = s.optional == Some(true);
            let items = s.items.as_deref();
            payload.extend(config_map(namespace, &s.name, found.as_deref(), items, optional, defaults)?);
        } else if let Some(s) = &part.secret {
            let found = objects.secrets.get(&s.name).cloned().flatten();
            let optional = s.optional == Some(true);
            let items = s.items.as_deref();
            payload.extend(secret(namespace, &s.name, found.as_deref(), items, optional, defaults)?);
        } else if let Some(s) = &part.downward_api {
            payload.extend(downward(pod, place, s.items.as_deref().unwrap_or_default(), defaults)?);
        } else if let Some(s) = &part.service_account_token {
            let audience = s.audience.clone().unwrap_or_default();
            let token = tokens.get(&audience).ok_or("no service account token")?;
            let user = s.user.and_then(|u| u32::try_from(u).ok()).or(defaults.user);
            let file = File { data: token.clone().into_bytes(), mode: defaults.mode, user };
            payload.insert(checked(&s.path)?, file);
        } else {
            return Err("a projected volume has a source that this node does not support".to_owned());
        }
    }
    Ok(payload)
}

/// The path, if it stays inside the volume and out of the way of the volume's own links.
fn checked(path: &str) -> Result<String, String> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") {
        return Err(format!("invalid path {path:?}"));
    }
    Ok(path.to_owned())
}
