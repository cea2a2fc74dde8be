//! What only pods that harden themselves may do: the level *restricted*
//! (<https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>).

use k8s_openapi::api::core::v1::{PodSpec, Volume};

use super::baseline::is_confined;
use super::level::Version;
use super::words::{Seen, Values, Violation, containers, in_user_namespace, named, plural, quoted, setters};

/// What of a pod is not allowed, on top of what the level below does not allow.
pub(super) fn check(version: Version, spec: &PodSpec) -> Vec<Violation> {
    let all = containers(spec);
    // Windows knows no such things.
    let windows = version.has(25) && spec.os.as_ref().is_some_and(|os| os.name == "windows");
    let linux = !windows;
    let lenient = version.has(35) && in_user_namespace(spec);
    let found = [
        (version.has(8) && linux).then(|| escalation(&all)).flatten(),
        (version.has(22) && linux).then(|| capabilities(&all)).flatten(),
        volumes(spec),
        (!lenient).then(|| non_root(spec, &all)).flatten(),
        (version.has(23) && !lenient).then(|| user(spec, &all)).flatten(),
        (version.has(19) && linux).then(|| seccomp(spec, &all)).flatten(),
    ];
    found.into_iter().flatten().collect()
}

fn escalation(all: &[Seen<'_>]) -> Option<Violation> {
    let bad: Vec<&str> = all
        .iter()
        .filter(|c| c.security(|s| s.allow_privilege_escalation) != Some(false))
        .map(|c| c.name)
        .collect();
    let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&bad));
    let found = || Violation::new("allowPrivilegeEscalation != false", detail());
    (!bad.is_empty()).then(found)
}

fn capabilities(all: &[Seen<'_>]) -> Option<Violation> {
    let (mut keeping, mut adding, mut added) = (Vec::new(), Vec::new(), Values::new());
    for container in all {
        let capabilities = container.capabilities();
        let list = |f: Option<&Vec<String>>| f.cloned().unwrap_or_default();
        if !list(capabilities.and_then(|c| c.drop.as_ref())).iter().any(|c| c == "ALL") {
            keeping.push(container.name);
        }
        let mut wrong = list(capabilities.and_then(|c| c.add.as_ref()));
        wrong.retain(|c| c != "NET_BIND_SERVICE");
        if !wrong.is_empty() {
            adding.push(container.name);
            added.extend(wrong);
        }
    }
    let keeps = (!keeping.is_empty())
        .then(|| format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    let adds = (!adding.is_empty()).then(|| {
        format!("{} must not include {} in securityContext.capabilities.add", named(&adding), quoted(&added))
    });
    let details: Vec<String> = keeps.into_iter().chain(adds).collect();
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
}

/// The types of volumes that are not allowed, each with its word.
fn type_of(volume: &Volume) -> Option<&'static str> {
    let allowed = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    if allowed {
        return None;
    }
    let types = [
        (volume.host_path.is_some(), "hostPath"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.rbd.is_some(), "rbd"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.cinder.is_some(), "cinder"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.flocker.is_some(), "flocker"),
        (volume.fc.is_some(), "fc"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
    ];
    Some(types.iter().find(|(is, _)| *is).map_or("unknown", |(_, word)| word))
}

fn volumes(spec: &PodSpec) -> Option<Violation> {
    let (mut names, mut types) = (Vec::new(), Values::new());
    for volume in spec.volumes.iter().flatten() {
        if let Some(type_) = type_of(volume) {
            names.push(volume.name.as_str());
            types.insert(type_.to_owned());
        }
    }
    let detail = || {
        format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", names.len()),
            quoted(&names),
            plural("uses", "use", names.len()),
            plural("restricted volume type", "restricted volume types", types.len()),
            quoted(&types)
        )
    };
    (!names.is_empty()).then(|| Violation::new("restricted volume types", detail()))
}

fn non_root(spec: &PodSpec, all: &[Seen<'_>]) -> Option<Violation> {
    let own = spec.security_context.as_ref().and_then(|s| s.run_as_non_root.as_ref());
    let of = |c: &Seen<'_>| c.security(|s| s.run_as_non_root);
    let pod = own == Some(&false);
    let bad: Vec<&str> = all.iter().filter(|c| of(c) == Some(false)).map(|c| c.name).collect();
    let detail = if let Some(who) = setters(pod, &bad) {
        format!("{who} must not set securityContext.runAsNonRoot=false")
    } else if own == Some(&true) {
        return None;
    } else {
        let silent: Vec<&str> = all.iter().filter(|c| of(c).is_none()).map(|c| c.name).collect();
        if silent.is_empty() {
            return None;
        }
        format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent))
    };
    Some(Violation::new("runAsNonRoot != true", detail))
}

fn user(spec: &PodSpec, all: &[Seen<'_>]) -> Option<Violation> {
    let pod = spec.security_context.as_ref().and_then(|s| s.run_as_user) == Some(0);
    let bad: Vec<&str> =
        all.iter().filter(|c| c.security(|s| s.run_as_user) == Some(0)).map(|c| c.name).collect();
    let who = setters(pod, &bad)?;
    Some(Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0")))
}

fn seccomp(spec: &PodSpec, all: &[Seen<'_>]) -> Option<Violation> {
    let own = spec.security_context.as_ref().and_then(|s| s.seccomp_profile.as_ref());
    let own = own.map(|p| p.type_.as_str());
    fn of<'a>(c: &Seen<'a>) -> Option<&'a str> {
        c.security(|s| s.seccomp_profile.as_ref()).map(|p| p.type_.as_str())
    }
    let mut values = Values::new();
    values.extend(all.iter().filter_map(of).chain(own).filter(|t| !is_confined(t)).map(ToOwned::to_owned));
    let pod = own.is_some_and(|t| !is_confined(t));
    let bad: Vec<&str> =
        all.iter().filter(|c| of(c).is_some_and(|t| !is_confined(t))).map(|c| c.name).collect();
    let detail = if let Some(who) = setters(pod, &bad) {
        format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&values))
    } else if own.is_some() {
        return None;
    } else {
        let silent: Vec<&str> = all.iter().filter(|c| of(c).is_none()).map(|c| c.name).collect();
        if silent.is_empty() {
            return None;
        }
        let who = named(&silent);
        format!(
            "pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
        )
    };
    Some(Violation::new("seccompProfile", detail))
}
