//! What no pod may do that is not trusted wholly: the level *baseline*
//! (<https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline>).

use k8s_openapi::api::core::v1::{LifecycleHandler, PodSpec, SELinuxOptions, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::level::Version;
use super::words::{
    APP_ARMOR, SECCOMP_CONTAINER, SECCOMP_POD, Seen, Values, Violation, containers, in_user_namespace, named,
    plural, quoted, setters,
};

/// Capabilities that may be added.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Kernel parameters that are a pod's own, with the version from which on they count as such.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

/// What of a pod is not allowed. The stricter level says some of it in words of its own, and leaves that out here.
pub(super) fn check(
    version: Version,
    metadata: &ObjectMeta,
    spec: &PodSpec,
    stricter: bool,
) -> Vec<Violation> {
    let all = containers(spec);
    let found = [
        app_armor(metadata, spec, &all),
        (!(stricter && version.has(22))).then(|| capabilities(&all)).flatten(),
        host_namespaces(spec),
        host_path(spec),
        host_ports(&all),
        version.has(34).then(|| hosts(&all)).flatten(),
        privileged(&all),
        proc_mount(version, spec, &all, stricter),
        se_linux(version, spec, &all),
        seccomp(version, metadata, spec, &all, stricter),
        sysctls(version, spec),
        windows(spec, &all),
    ];
    found.into_iter().flatten().collect()
}

fn app_armor(metadata: &ObjectMeta, spec: &PodSpec, all: &[Seen<'_>]) -> Option<Violation> {
    let wrong = |profile: &str| {
        !profile.is_empty() && profile != "runtime/default" && !profile.starts_with("localhost/")
    };
    let annotations = metadata.annotations.iter().flatten();
    let mut forbidden: Vec<String> = annotations
        .filter(|(key, value)| key.starts_with(APP_ARMOR) && wrong(value))
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    let unconfined = |type_: &str| !matches!(type_, "RuntimeDefault" | "Localhost");
    let own = spec.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
    let mut values = Values::new();
    let mut note = |type_: &str| {
        let wrong = unconfined(type_);
        if wrong {
            values.insert(type_.to_owned());
        }
        wrong
    };
    let pod = own.is_some_and(|p| note(&p.type_));
    let bad: Vec<&str> = all
        .iter()
        .filter(|c| c.security(|s| s.app_armor_profile.as_ref()).is_some_and(|p| note(&p.type_)))
        .map(|c| c.name)
        .collect();
    if let Some(who) = setters(pod, &bad) {
        forbidden.push(format!("{who} must not set AppArmor profile type to {}", quoted(&values)));
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", forbidden.len());
    (!forbidden.is_empty()).then(|| Violation::new(reason, forbidden.join(", ")))
}

fn capabilities(all: &[Seen<'_>]) -> Option<Violation> {
    let mut added = Values::new();
    let mut bad = Vec::new();
    for container in all {
        let add = container.capabilities().and_then(|c| c.add.as_deref()).unwrap_or_default();
        let wrong: Vec<_> = add.iter().filter(|c| !CAPABILITIES.contains(&c.as_str())).cloned().collect();
        if !wrong.is_empty() {
            bad.push(container.name);
            added.extend(wrong);
        }
    }
    let detail =
        || format!("{} must not include {} in securityContext.capabilities.add", named(&bad), quoted(&added));
    (!bad.is_empty()).then(|| Violation::new("non-default capabilities", detail()))
}

fn host_namespaces(spec: &PodSpec) -> Option<Violation> {
    let given = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    let shared: Vec<String> = given
        .iter()
        .filter(|(_, value)| *value == Some(true))
        .map(|(name, _)| format!("{name}=true"))
        .collect();
    (!shared.is_empty()).then(|| Violation::new("host namespaces", shared.join(", ")))
}

fn host_path(spec: &PodSpec) -> Option<Violation> {
    let paths = spec.volumes.iter().flatten().filter(|v| v.host_path.is_some());
    let names: Vec<&str> = paths.map(|v: &Volume| v.name.as_str()).collect();
    let detail = || format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names));
    (!names.is_empty()).then(|| Violation::new("hostPath volumes", detail()))
}

fn host_ports(all: &[Seen<'_>]) -> Option<Violation> {
    let mut ports = Values::new();
    let mut bad = Vec::new();
    for container in all {
        let taken: Vec<_> = container.ports.iter().filter_map(|p| p.host_port.filter(|p| *p != 0)).collect();
        if !taken.is_empty() {
            bad.push(container.name);
            ports.extend(taken.iter().map(ToString::to_string));
        }
    }
    let detail = || {
        let listed: Vec<_> = ports.iter().map(String::as_str).collect();
        format!(
            "{} {} {} {}",
            named(&bad),
            plural("uses", "use", bad.len()),
            plural("hostPort", "hostPorts", ports.len()),
            listed.join(", ")
        )
    };
    (!bad.is_empty()).then(|| Violation::new("hostPort", detail()))
}

/// Probes and hooks that make the node's agent call somebody else.
fn hosts(all: &[Seen<'_>]) -> Option<Violation> {
    let mut hosts = Values::new();
    let mut bad = Values::new();
    for container in all {
        let probes = container.probes.iter().flatten();
        let of_probes = probes.flat_map(|p| {
            [
                p.http_get.as_ref().and_then(|g| g.host.clone()),
                p.tcp_socket.as_ref().and_then(|s| s.host.clone()),
            ]
        });
        let of_hook = |hook: &LifecycleHandler| {
            [
                hook.http_get.as_ref().and_then(|g| g.host.clone()),
                hook.tcp_socket.as_ref().and_then(|s| s.host.clone()),
            ]
        };
        let hooks = container.lifecycle.iter().flat_map(|l| l.post_start.iter().chain(&l.pre_stop));
        for host in of_probes.chain(hooks.flat_map(of_hook)).flatten().filter(|h| !h.is_empty()) {
            hosts.insert(host);
            bad.insert(container.name.to_owned());
        }
    }
    let detail = || {
        let names: Vec<_> = bad.iter().map(String::as_str).collect();
        format!(
            "{} {} {} {}",
            named(&names),
            plural("uses", "use", bad.len()),
            plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
            quoted(&hosts)
        )
    };
    let found = || Violation::new("probe or lifecycle host", detail());
    (!bad.is_empty()).then(found)
}

fn privileged(all: &[Seen<'_>]) -> Option<Violation> {
    let bad: Vec<&str> =
        all.iter().filter(|c| c.security(|s| s.privileged) == Some(true)).map(|c| c.name).collect();
    let detail = || format!("{} must not set securityContext.privileged=true", named(&bad));
    (!bad.is_empty()).then(|| Violation::new("privileged", detail()))
}

fn proc_mount(version: Version, spec: &PodSpec, all: &[Seen<'_>], stricter: bool) -> Option<Violation> {
    if !stricter && version.has(35) && in_user_namespace(spec) {
        return None;
    }
    let mut values = Values::new();
    let mut bad = Vec::new();
    for container in all {
        if let Some(value) = container.security(|s| s.proc_mount.as_deref()).filter(|v| *v != "Default") {
            values.insert(value.to_owned());
            bad.push(container.name);
        }
    }
    let detail = || format!("{} must not set securityContext.procMount to {}", named(&bad), quoted(&values));
    (!bad.is_empty()).then(|| Violation::new("procMount", detail()))
}

fn se_linux(version: Version, spec: &PodSpec, all: &[Seen<'_>]) -> Option<Violation> {
    let mut types = Values::new();
    let (mut user, mut role) = (false, false);
    let mut wrong = |options: &SELinuxOptions| {
        let given = |field: &Option<String>| field.as_deref().is_some_and(|f| !f.is_empty());
        let type_ = options.type_.as_deref().unwrap_or_default();
        let allowed = matches!(type_, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (type_ == "container_engine_t" && version.has(31));
        if !allowed {
            types.insert(type_.to_owned());
        }
        user |= given(&options.user);
        role |= given(&options.role);
        !allowed || given(&options.user) || given(&options.role)
    };
    let own = spec.security_context.as_ref().and_then(|s| s.se_linux_options.as_ref());
    let pod = own.is_some_and(&mut wrong);
    let bad: Vec<&str> = all
        .iter()
        .filter(|c| c.security(|s| s.se_linux_options.as_ref()).is_some_and(&mut wrong))
        .map(|c| c.name)
        .collect();
    let who = setters(pod, &bad)?;
    let listed =
        (!types.is_empty()).then(|| format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    let data: Vec<String> = listed
        .into_iter()
        .chain(user.then(|| "user may not be set".to_owned()))
        .chain(role.then(|| "role may not be set".to_owned()))
        .collect();
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    Some(Violation::new("seLinuxOptions", detail))
}

fn seccomp(
    version: Version,
    metadata: &ObjectMeta,
    spec: &PodSpec,
    all: &[Seen<'_>],
    stricter: bool,
) -> Option<Violation> {
    if version.has(19) {
        return if stricter { None } else { seccomp_fields(spec, all) };
    }
    let allowed = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let annotations = metadata.annotations.as_ref()?;
    let keys = std::iter::once(SECCOMP_POD.to_owned())
        .chain(all.iter().map(|c| format!("{SECCOMP_CONTAINER}{}", c.name)));
    let forbidden: Values = keys
        .filter_map(|key| annotations.get(&key).filter(|v| !allowed(v)).map(|v| format!("{key}=\"{v}\"")))
        .collect();
    let detail = || {
        let listed: Vec<_> = forbidden.iter().map(String::as_str).collect();
        let word = plural("annotation", "annotations", forbidden.len());
        format!("forbidden {word} {}", listed.join(", "))
    };
    (!forbidden.is_empty()).then(|| Violation::new("seccompProfile", detail()))
}

pub(super) fn is_confined(profile: &str) -> bool {
    matches!(profile, "RuntimeDefault" | "Localhost")
}

fn seccomp_fields(spec: &PodSpec, all: &[Seen<'_>]) -> Option<Violation> {
    let mut values = Values::new();
    let mut wrong = |type_: &String| {
        let wrong = !is_confined(type_);
        if wrong {
            values.insert(type_.clone());
        }
        wrong
    };
    let own = spec.security_context.as_ref().and_then(|s| s.seccomp_profile.as_ref());
    let pod = own.is_some_and(|p| wrong(&p.type_));
    let bad: Vec<&str> = all
        .iter()
        .filter(|c| c.security(|s| s.seccomp_profile.as_ref()).is_some_and(|p| wrong(&p.type_)))
        .map(|c| c.name)
        .collect();
    let who = setters(pod, &bad)?;
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&values));
    Some(Violation::new("seccompProfile", detail))
}

fn sysctls(version: Version, spec: &PodSpec) -> Option<Violation> {
    let allowed = |name: &str| SYSCTLS.iter().any(|(safe, since)| *safe == name && version.has(*since));
    let given = spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    let bad: Vec<&str> = given.map(|s| s.name.as_str()).filter(|n| !allowed(n)).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

fn windows(spec: &PodSpec, all: &[Seen<'_>]) -> Option<Violation> {
    let own = spec.security_context.as_ref().and_then(|s| s.windows_options.as_ref());
    let pod = own.and_then(|w| w.host_process) == Some(true);
    let bad: Vec<&str> = all
        .iter()
        .filter(|c| c.security(|s| s.windows_options.as_ref()?.host_process) == Some(true))
        .map(|c| c.name)
        .collect();
    let who = setters(pod, &bad)?;
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Violation::new("hostProcess", detail))
}
