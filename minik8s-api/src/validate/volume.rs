//! Volumes of a pod.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

use super::{env, inner_path, no_parents, required};
use crate::field::{FieldErrors, FieldPath};
use crate::name;
use crate::quantity::Quantity;

/// The names of the volumes that containers may mount.
pub(super) type VolumeNames<'a> = BTreeSet<&'a str>;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const MORE_THAN_ONE: &str = "may not specify more than 1 volume type";
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Gives the names, good or bad, so that a mount of a bad volume is not reported as well.
pub(super) fn volumes<'a>(
    errors: &mut FieldErrors,
    path: &FieldPath,
    volumes: &'a [Volume],
) -> VolumeNames<'a> {
    let mut names = BTreeSet::new();
    for (i, each) in volumes.iter().enumerate() {
        let path = path.index(i);
        volume(errors, &path, each);
        let path = path.child("name");
        if required(errors, path.clone(), Some(&each.name)).is_some() {
            errors.invalid_each(&path, &each.name, name::dns_label(&each.name));
            if !names.insert(each.name.as_str()) {
                errors.duplicate(path, &each.name);
            }
        }
    }
    names
}

/// The names of the sources that a volume or projection sets.
fn sources(volume: &impl serde::Serialize) -> Vec<String> {
    match serde_json::to_value(volume) {
        Ok(serde_json::Value::Object(fields)) => {
            fields.into_iter().map(|(k, _)| k).filter(|k| k != "name").collect()
        }
        _ => Vec::new(),
    }
}

fn volume(errors: &mut FieldErrors, path: &FieldPath, volume: &Volume) {
    let sources = sources(volume);
    if sources.is_empty() {
        errors.required(path.clone(), "must specify a volume type");
    }
    for extra in sources.iter().skip(1) {
        errors.forbidden(path.child(extra), MORE_THAN_ONE);
    }
    if let Some(source) = &volume.host_path {
        let path = path.child("hostPath");
        if required(errors, path.child("path"), Some(&source.path)).is_some() {
            no_parents(errors, &path.child("path"), &source.path);
        }
        let kind = source.type_.as_deref().unwrap_or_default();
        if !HOST_PATH_TYPES.contains(&kind) {
            errors.not_supported(path.child("type"), kind, &HOST_PATH_TYPES);
        }
    }
    if let Some(source) = &volume.empty_dir {
        let path = path.child("emptyDir");
        let medium = source.medium.as_deref().unwrap_or_default();
        if !matches!(medium, "" | "Memory" | "HugePages") && !medium.starts_with("HugePages-") {
            errors.not_supported(path.child("medium"), medium, &["", "HugePages", "Memory"]);
        }
        if let Some(limit) = &source.size_limit
            && !Quantity::try_from(limit).is_ok_and(|q| !q.is_negative())
        {
            errors.forbidden(path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
        }
    }
    if let Some(source) = &volume.config_map {
        let path = path.child("configMap");
        required(errors, path.child("name"), Some(&source.name));
        mode(errors, path.child("defaultMode"), source.default_mode);
        items(errors, &path.child("items"), source.items.as_deref().unwrap_or_default());
    }
    if let Some(source) = &volume.secret {
        let path = path.child("secret");
        required(errors, path.child("secretName"), source.secret_name.as_deref());
        mode(errors, path.child("defaultMode"), source.default_mode);
        items(errors, &path.child("items"), source.items.as_deref().unwrap_or_default());
    }
    if let Some(source) = &volume.downward_api {
        let path = path.child("downwardAPI");
        mode(errors, path.child("defaultMode"), source.default_mode);
        for (i, file) in source.items.iter().flatten().enumerate() {
            downward_file(errors, &path.child("items").index(i), file);
        }
    }
    if let Some(source) = &volume.projected {
        let path = path.child("projected");
        mode(errors, path.child("defaultMode"), source.default_mode);
        projections(errors, &path.child("sources"), source.sources.as_deref().unwrap_or_default());
    }
    if let Some(source) = &volume.persistent_volume_claim {
        required(errors, path.child("persistentVolumeClaim").child("claimName"), Some(&source.claim_name));
    }
    if let Some(source) = &volume.nfs {
        let path = path.child("nfs");
        required(errors, path.child("server"), Some(&source.server));
        if required(errors, path.child("path"), Some(&source.path)).is_some() && !source.path.starts_with('/')
        {
            errors.invalid(path.child("path"), &source.path, "must be an absolute path");
        }
    }
    if let Some(source) = &volume.csi {
        required(errors, path.child("csi").child("driver"), Some(&source.driver));
    }
    if let Some(source) = &volume.image {
        required(errors, path.child("image").child("reference"), source.reference.as_deref());
    }
}

fn mode(errors: &mut FieldErrors, path: FieldPath, mode: Option<i32>) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errors.invalid(path, mode, MODE);
    }
}

fn items(errors: &mut FieldErrors, path: &FieldPath, items: &[KeyToPath]) {
    for (i, item) in items.iter().enumerate() {
        let path = path.index(i);
        required(errors, path.child("key"), Some(&item.key));
        file_path(errors, &path, &item.path);
        mode(errors, path.child("mode"), item.mode);
    }
}

fn file_path(errors: &mut FieldErrors, path: &FieldPath, file: &str) {
    let path = path.child("path");
    if required(errors, path.clone(), Some(file)).is_some() {
        inner_path(errors, &path, file);
        // The agent swaps whole directories under names of this form.
        if file.starts_with("..") && !file.starts_with("../") && file != ".." {
            errors.invalid(path, file, "must not start with '..'");
        }
    }
}

fn downward_file(errors: &mut FieldErrors, path: &FieldPath, file: &DownwardAPIVolumeFile) {
    file_path(errors, path, &file.path);
    mode(errors, path.child("mode"), file.mode);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), None) => {
            env::field_ref(errors, &path.child("fieldRef"), field, &env::FILE_FIELDS);
        }
        (None, Some(resource)) => {
            env::resource_field_ref(errors, &path.child("resourceFieldRef"), resource, true);
        }
        (Some(_), Some(_)) => {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.invalid(path.clone(), "resource", detail);
        }
        (None, None) => errors.required(path.clone(), "one of fieldRef and resourceFieldRef is required"),
    }
}

fn projections(errors: &mut FieldErrors, path: &FieldPath, list: &[VolumeProjection]) {
    let mut files = BTreeSet::new();
    for (i, projection) in list.iter().enumerate() {
        let path = path.index(i);
        let sources = sources(projection);
        if sources.is_empty() {
            errors.required(path.clone(), "must specify a volume type");
        }
        for extra in sources.iter().skip(1) {
            errors.forbidden(path.child(extra), MORE_THAN_ONE);
        }
        let mut paths: Vec<&str> = Vec::new();
        if let Some(source) = &projection.config_map {
            let path = path.child("configMap");
            required(errors, path.child("name"), Some(&source.name));
            let list = source.items.as_deref().unwrap_or_default();
            items(errors, &path.child("items"), list);
            paths.extend(list.iter().map(|i| i.path.as_str()));
        }
        if let Some(source) = &projection.secret {
            let path = path.child("secret");
            required(errors, path.child("name"), Some(&source.name));
            let list = source.items.as_deref().unwrap_or_default();
            items(errors, &path.child("items"), list);
            paths.extend(list.iter().map(|i| i.path.as_str()));
        }
        if let Some(source) = &projection.downward_api {
            for (i, file) in source.items.iter().flatten().enumerate() {
                downward_file(errors, &path.child("downwardAPI").child("items").index(i), file);
                paths.push(&file.path);
            }
        }
        if let Some(token) = &projection.service_account_token {
            let path = path.child("serviceAccountToken");
            let seconds = token.expiration_seconds.unwrap_or(3600);
            if seconds < 600 {
                let detail = "may not specify a duration less than 10 minutes";
                errors.invalid(path.child("expirationSeconds"), seconds, detail);
            }
            if seconds > 1 << 32 {
                let detail = "may not specify a duration larger than 2^32 seconds";
                errors.invalid(path.child("expirationSeconds"), seconds, detail);
            }
            file_path(errors, &path, &token.path);
            paths.push(&token.path);
        }
        for file in paths {
            if !file.is_empty() && !files.insert(file) {
                errors.invalid(path.clone(), file, "conflicting duplicate paths");
            }
        }
    }
}
