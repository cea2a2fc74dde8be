//! Volumes of a pod.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, PersistentVolumeClaimSpec, Volume,
};

use super::{pod, set};

/// The mode of files that do not say: `rw-r--r--`.
const FILE_MODE: i32 = 0o644;

pub(super) fn volume(volume: &mut Volume) {
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(ConfigMapVolumeSource { default_mode, .. }) = &mut volume.config_map {
        default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
        source.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(FILE_MODE);
        for projection in source.sources.iter_mut().flatten() {
            if let Some(token) = &mut projection.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
            if let Some(downward) = &mut projection.downward_api {
                downward.items.iter_mut().flatten().for_each(downward_file);
            }
        }
    }
    if let Some(source) = &mut volume.image {
        pod::image_pull_policy(source.reference.as_deref(), &mut source.pull_policy);
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        claim(&mut template.spec);
    }
    if is_unset(volume) {
        volume.empty_dir = Some(Default::default());
    }
}

pub(super) fn claim(claim: &mut PersistentVolumeClaimSpec) {
    set(&mut claim.volume_mode, "Filesystem");
}

fn downward_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        pod::field_ref(field);
    }
}

/// Whether the volume names no source at all.
fn is_unset(volume: &Volume) -> bool {
    *volume == Volume { name: volume.name.clone(), ..Default::default() }
}
