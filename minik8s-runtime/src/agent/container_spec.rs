//! From a pod and what is known of its place to the container that the runtime is to make.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::env::expand;
use super::pod_fsm::{Start, annotation, grace, spec};
use super::qos;
use crate::runtime::{ContainerLabels, ContainerSpec, Mount, Namespaces, Resources, Security};

/// What the pod itself does not say.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    /// Which attempt it is.
    pub(crate) start: &'a Start,
    /// Shares the process namespace of [`Start::join_pid`] though the pod does not share one.
    pub(crate) shares_target: bool,
    /// The pod's network namespace; none on the node's network.
    pub(crate) netns: Option<PathBuf>,
    /// Its variables.
    pub(crate) env: Vec<(String, String)>,
    /// Its mounts.
    pub(crate) mounts: Vec<Mount>,
    /// The node's name, for pods on the node's network.
    pub(crate) node_name: &'a str,
    /// The suffix of names in the cluster.
    pub(crate) cluster_domain: &'a str,
    /// Where its output goes.
    pub(crate) log_path: PathBuf,
    /// Where it leaves its last words.
    pub(crate) termination_log: PathBuf,
    /// Bytes of memory that the node has.
    pub(crate) memory_capacity: u64,
    /// Processes that a pod may have at most.
    pub(crate) pids_limit: Option<u64>,
}

/// The container to make.
///
/// # Errors
/// Why there can be none, in the words of a `CreateContainerConfigError`.
pub(crate) fn build(pod: &Pod, container: &Container, facts: Facts<'_>) -> Result<ContainerSpec, String> {
    let spec = spec(pod);
    let start = facts.start;
    let security = security(pod, container, start)?;
    let mut annotations = BTreeMap::from([
        (annotation::IMAGE.to_owned(), container.image.clone().unwrap_or_default()),
        (annotation::GRACE.to_owned(), grace(spec).to_string()),
        (annotation::BACKOFF.to_owned(), start.backoff_s.to_string()),
        (annotation::TERMINATION_LOG.to_owned(), facts.termination_log.display().to_string()),
        (annotation::LOG.to_owned(), facts.log_path.display().to_string()),
    ]);
    let signal = container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_ref());
    if let Some(signal) = signal.or(Some(&start.image.stop_signal)).filter(|s| !s.is_empty()) {
        annotations.insert(annotation::STOP_SIGNAL.to_owned(), signal.clone());
    }
    if let Some(policy) = &container.termination_message_policy {
        annotations.insert(annotation::TERMINATION_POLICY.to_owned(), policy.clone());
    }
    if spec.host_network == Some(true) {
        annotations.insert(annotation::HOST_NETWORK.to_owned(), "true".to_owned());
    }
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, &facts.env)).collect()
    };
    Ok(ContainerSpec {
        id: start.id.clone(),
        labels: ContainerLabels {
            pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
            pod_namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            pod_name: pod.metadata.name.clone().unwrap_or_default(),
            container: container.name.clone(),
            attempt: start.attempt,
            annotations,
        },
        image: start.image.reference.clone(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        hostname: hostname(pod, facts.node_name, facts.cluster_domain),
        resources: Resources {
            oom_score_adj: qos::oom_score_adj(spec, container, facts.memory_capacity),
            pids_limit: facts.pids_limit,
            ..resources(container)
        },
        namespaces: Namespaces {
            network: facts.netns,
            host_pid: spec.host_pid == Some(true),
            host_ipc: spec.host_ipc == Some(true),
            join_pid: start.join_pid,
            share_pid: facts.shares_target || spec.share_process_namespace == Some(true),
        },
        security,
        sysctls: spec
            .security_context
            .iter()
            .flat_map(|s| s.sysctls.iter().flatten())
            .map(|s| (s.name.clone(), s.value.clone()))
            .collect(),
        cgroup_parent: cgroup(pod),
        env: facts.env,
        mounts: facts.mounts,
        log_path: facts.log_path,
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
    })
}

/// The pod's cgroup.
pub(crate) fn cgroup(pod: &Pod) -> String {
    format!("{}/pod{}", qos::class(spec(pod)).cgroup(), pod.metadata.uid.as_deref().unwrap_or_default())
}

/// The pod's directory of logs, below `root`.
pub(crate) fn log_dir(root: &Path, pod: &Pod) -> PathBuf {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let meta = &pod.metadata;
    root.join(format!("{}_{}_{}", text(&meta.namespace), text(&meta.name), text(&meta.uid)))
}

/// What `hostname` answers in the pod.
pub(crate) fn hostname(pod: &Pod, node_name: &str, cluster_domain: &str) -> String {
    let spec = spec(pod);
    if spec.host_network == Some(true) {
        return node_name.to_owned();
    }
    if let Some(name) = spec.hostname_override.as_ref().filter(|n| !n.is_empty()) {
        return name.clone();
    }
    let own = spec.hostname.as_ref().filter(|n| !n.is_empty()).or(pod.metadata.name.as_ref());
    let own: String = own.cloned().unwrap_or_default().chars().take(63).collect();
    let own = own.trim_end_matches(['-', '.']).to_owned();
    match spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
        Some(sub) if spec.set_hostname_as_fqdn == Some(true) => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            format!("{own}.{sub}.{namespace}.svc.{cluster_domain}")
        }
        _ => own,
    }
}

fn resources(container: &Container) -> Resources {
    let positive = |v: Option<i64>| v.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0);
    let shares = positive(qos::request(container, "cpu")).map_or(2, |m| (m * 1024 / 1000).clamp(2, 262_144));
    Resources {
        cpu_shares: Some(shares),
        cpu_limit_milli: positive(qos::limit(container, "cpu")),
        memory_limit: positive(qos::limit(container, "memory")),
        pids_limit: None,
        oom_score_adj: 0,
    }
}

/// The pod's security context, overridden by the container's.
fn security(pod: &Pod, container: &Container, start: &Start) -> Result<Security, String> {
    let default_pod = Default::default();
    let default_own = Default::default();
    let of_pod = spec(pod).security_context.as_ref().unwrap_or(&default_pod);
    let own = container.security_context.as_ref().unwrap_or(&default_own);
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    let run_as_non_root = own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true);
    if run_as_non_root {
        check_non_root(run_as_user, &start.image.user)?;
    }
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let privileged = own.privileged == Some(true);
    let seccomp_default = match profile.map(|p| p.type_.as_str()) {
        Some("RuntimeDefault") => !privileged,
        Some("Localhost") => return Err("seccomp profiles of type Localhost are not supported".to_owned()),
        _ => false,
    };
    let mut supplemental_groups = of_pod.supplemental_groups.clone().unwrap_or_default();
    supplemental_groups.extend(of_pod.fs_group);
    supplemental_groups.sort_unstable();
    supplemental_groups.dedup();
    let capabilities = own.capabilities.as_ref();
    Ok(Security {
        run_as_user,
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        supplemental_groups,
        run_as_non_root,
        privileged,
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        read_only_root: own.read_only_root_filesystem == Some(true),
        add_capabilities: capabilities.and_then(|c| c.add.clone()).unwrap_or_default(),
        drop_capabilities: capabilities.and_then(|c| c.drop.clone()).unwrap_or_default(),
        seccomp_default,
    })
}

fn check_non_root(run_as_user: Option<i64>, image_user: &str) -> Result<(), String> {
    if let Some(user) = run_as_user {
        return if user == 0 {
            Err("container's runAsUser breaks non-root policy".to_owned())
        } else {
            Ok(())
        };
    }
    let user = image_user.split(':').next().unwrap_or_default();
    match (user, user.parse::<u32>()) {
        ("", _) | (_, Ok(0)) => Err("container has runAsNonRoot and image will run as root".to_owned()),
        (_, Ok(_)) => Ok(()),
        (name, Err(_)) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::runtime::Image;

    fn made(spec: Value) -> Result<ContainerSpec, String> {
        made_from(spec, Image { reference: "docker.io/library/i:1".into(), ..Image::default() })
    }

    fn made_from(spec: Value, image: Image) -> Result<ContainerSpec, String> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "web", "namespace": "ns", "uid": "u1"}, "spec": spec}),
        )
        .unwrap();
        let start = Start {
            container: "c".into(),
            attempt: 2,
            id: "id".into(),
            join_pid: Some(7),
            image: Arc::new(image),
            backoff_s: 20,
        };
        let facts = Facts {
            start: &start,
            shares_target: false,
            netns: Some("/run/netns/u1".into()),
            env: vec![("WHO".into(), "me".into())],
            mounts: Vec::new(),
            node_name: "n1",
            cluster_domain: "cluster.local",
            log_path: "/l/2.log".into(),
            termination_log: "/t/2".into(),
            memory_capacity: 4 << 30,
            pids_limit: Some(100),
        };
        build(&pod, &super::super::pod_fsm::spec(&pod).containers[0], facts)
    }

    #[test]
    fn a_container_in_full() {
        let spec = made(json!({
            "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true, "shareProcessNamespace": true,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000,
                                "supplementalGroups": [4000], "sysctls": [{"name": "a.b", "value": "1"}]},
            "containers": [{
                "name": "c", "image": "i", "command": ["echo"], "args": ["hi $(WHO)", "$(NO)"],
                "securityContext": {"runAsUser": 1001, "allowPrivilegeEscalation": false,
                                    "readOnlyRootFilesystem": true,
                                    "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                                    "seccompProfile": {"type": "RuntimeDefault"}},
                "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "500m"}}
            }]
        }))
        .unwrap();
        assert_eq!(spec.args, ["hi me", "$(NO)"]);
        assert_eq!(spec.hostname, "h.s.ns.svc.cluster.local");
        assert_eq!(spec.cgroup_parent, "/kubepods/burstable/podu1");
        assert_eq!(
            spec.resources,
            Resources {
                cpu_shares: Some(256),
                cpu_limit_milli: Some(500),
                memory_limit: None,
                pids_limit: Some(100),
                oom_score_adj: 750,
            }
        );
        assert_eq!((spec.security.run_as_user, spec.security.run_as_group), (Some(1001), Some(3000)));
        assert_eq!(spec.security.supplemental_groups, [2000, 4000]);
        assert!(
            spec.security.no_new_privileges && spec.security.read_only_root && spec.security.seccomp_default
        );
        assert!(spec.namespaces.share_pid && spec.namespaces.join_pid == Some(7));
        assert_eq!(spec.labels.attempt, 2);
        assert_eq!(spec.labels.annotations[annotation::BACKOFF], "20");
        assert_eq!(spec.image, "docker.io/library/i:1");
    }

    #[test]
    fn root_is_refused_where_it_must_be() {
        let spec = json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]});
        let user = |user: &str| made_from(spec.clone(), Image { user: user.into(), ..Image::default() });
        assert!(user("").unwrap_err().contains("image will run as root"));
        assert!(user("0:0").unwrap_err().contains("image will run as root"));
        assert!(user("app").unwrap_err().contains("non-numeric user (app)"));
        assert!(user("1000:0").is_ok());
        let zero = json!({"containers": [{"name": "c",
            "securityContext": {"runAsNonRoot": true, "runAsUser": 0}}]});
        assert!(made(zero).is_err());
    }

    #[test]
    fn names_and_classes() {
        let best = made(json!({"containers": [{"name": "c"}]})).unwrap();
        assert_eq!((best.hostname.as_str(), best.resources.cpu_shares), ("web", Some(2)));
        assert_eq!(best.cgroup_parent, "/kubepods/besteffort/podu1");
        assert_eq!(best.resources.oom_score_adj, 1000);
        let host = made(json!({"hostNetwork": true, "containers": [{"name": "c"}]})).unwrap();
        assert_eq!(host.hostname, "n1");
        assert_eq!(host.labels.annotations[annotation::HOST_NETWORK], "true");
    }
}
