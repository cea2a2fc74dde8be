//! Security contexts.

use k8s_openapi::api::core::v1::{PodSpec, SeccompProfile, SecurityContext};

use crate::field::{FieldErrors, FieldPath};

const IDS: std::ops::RangeInclusive<i64> = 0..=i32::MAX as i64;

pub(super) fn pod(errors: &mut FieldErrors, path: &FieldPath, spec: &PodSpec) {
    if spec.host_pid == Some(true) && spec.share_process_namespace == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(path.child("shareProcessNamespace"), true, detail);
    }
    let path = path.child("securityContext");
    let Some(context) = &spec.security_context else {
        return;
    };
    id(errors, path.child("runAsUser"), context.run_as_user);
    id(errors, path.child("runAsGroup"), context.run_as_group);
    id(errors, path.child("fsGroup"), context.fs_group);
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(errors, path.child("supplementalGroups").index(i), Some(*group));
    }
    if let Some(policy) = context.fs_group_change_policy.as_deref() {
        let supported = ["Always", "OnRootMismatch"];
        super::one_of(errors, path.child("fsGroupChangePolicy"), Some(policy), &supported);
    }
    if let Some(policy) = context.supplemental_groups_policy.as_deref() {
        super::one_of(errors, path.child("supplementalGroupsPolicy"), Some(policy), &["Merge", "Strict"]);
    }
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
    sysctls(errors, &path.child("sysctls"), spec);
}

fn sysctls(errors: &mut FieldErrors, path: &FieldPath, spec: &PodSpec) {
    let list = spec.security_context.as_ref().and_then(|c| c.sysctls.as_deref()).unwrap_or_default();
    let mut seen = std::collections::BTreeSet::new();
    for (i, sysctl) in list.iter().enumerate() {
        let path = path.index(i).child("name");
        let part = |p: &str| {
            let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
            ends(p.chars().next()) && ends(p.chars().last()) && p.chars().all(inner)
        };
        if sysctl.name.is_empty() {
            errors.required(path, "");
        } else if sysctl.name.len() > 253 || !sysctl.name.split(['.', '/']).all(part) {
            let form = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.invalid(
                path,
                &sysctl.name,
                format!("must have at most 253 characters and match regex {form}"),
            );
        } else if !seen.insert(&sysctl.name) {
            errors.duplicate(path, &sysctl.name);
        }
    }
}

/// Gives whether the container is privileged.
pub(super) fn container(
    errors: &mut FieldErrors,
    path: &FieldPath,
    context: Option<&SecurityContext>,
) -> bool {
    let Some(context) = context else { return false };
    id(errors, path.child("runAsUser"), context.run_as_user);
    id(errors, path.child("runAsGroup"), context.run_as_group);
    if let Some(mount) = context.proc_mount.as_deref() {
        super::one_of(errors, path.child("procMount"), Some(mount), &["Default", "Unmasked"]);
    }
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
    let privileged = context.privileged == Some(true);
    if context.allow_privilege_escalation == Some(false) {
        let path = path.clone();
        if privileged {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path.clone(), context, detail);
        }
        let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
        if added.into_iter().any(|c| c == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context, detail);
        }
    }
    privileged
}

fn id(errors: &mut FieldErrors, path: FieldPath, id: Option<i64>) {
    if let Some(id) = id.filter(|id| !IDS.contains(id)) {
        errors.invalid(path, id, "must be between 0 and 2147483647, inclusive");
    }
}

fn seccomp(errors: &mut FieldErrors, path: &FieldPath, profile: Option<&SeccompProfile>) {
    let Some(profile) = profile else { return };
    let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
    super::one_of(errors, path.child("type"), Some(&profile.type_), &supported);
    let path = path.child("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None | Some("")) => {
            errors.required(path, "must be set when seccomp type is Localhost");
        }
        ("Localhost", Some(file)) => super::inner_path(errors, &path, file),
        (_, Some(file)) => {
            errors.invalid(path, file, "can only be set when seccomp type is Localhost");
        }
        _ => {}
    }
}
