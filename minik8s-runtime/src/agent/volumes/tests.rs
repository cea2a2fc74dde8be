use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use serde_json::{Value, json};

use super::etc::{Dns, hosts, resolv_conf};
use super::*;
use crate::agent::downward::Place;
use crate::agent::pod_fsm::spec;
use crate::agent::sources::Objects;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web"}}, "spec": spec
    }))
    .unwrap()
}

fn objects(map: Value, secret: Value) -> Objects {
    let mut objects = Objects::default();
    let map: ConfigMap = serde_json::from_value(json!({ "data": map })).unwrap();
    let secret: Secret = serde_json::from_value(json!({ "data": secret })).unwrap();
    objects.config_maps.insert("m".into(), Some(Arc::new(map)));
    objects.config_maps.insert("none".into(), None);
    objects.secrets.insert("s".into(), Some(Arc::new(secret)));
    objects
}

fn plans(pod: &Pod, objects: &Objects) -> Result<BTreeMap<String, Plan>, String> {
    plan(pod, &Place::default(), objects, &Tokens::new(), &BTreeMap::new())
}

/// A pod directory that is unmounted and gone when the test ends, however it ends.
struct Scratch(tempfile::TempDir, PodDir);

impl Scratch {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = PodDir::new(root.path(), "u");
        Self(root, dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = tear_down(&self.1, false);
    }
}

#[test]
fn files_change_all_at_once() {
    let s = Scratch::new();
    let dir = &s.1;
    let pod = pod(json!({"volumes": [{"name": "v", "configMap": {
        "name": "m", "defaultMode": 0o600, "items": [{"key": "a", "path": "sub/a.txt", "mode": 0o640},
                                                       {"key": "b", "path": "b"}]}}], "containers": []}));
    let before = plans(&pod, &objects(json!({"a": "1", "b": "2"}), json!({}))).unwrap();
    let volumes = set_up(dir, &before, None).unwrap();
    let root = &volumes["v"].path;
    assert!(volumes["v"].read_only);
    assert_eq!(fs::read_to_string(root.join("sub/a.txt")).unwrap(), "1");
    assert_eq!(fs::metadata(root.join("sub/a.txt")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::metadata(root.join("b")).unwrap().mode() & 0o777, 0o600);
    let first = fs::read_link(root.join("..data")).unwrap();
    assert!(!refresh(dir, "v", &before["v"], None).unwrap(), "nothing to do");
    assert_eq!(fs::read_link(root.join("..data")).unwrap(), first);

    let after = plans(&pod, &objects(json!({"a": "x", "b": "y"}), json!({}))).unwrap();
    assert!(refresh(dir, "v", &after["v"], None).unwrap());
    assert_eq!(fs::read_to_string(root.join("b")).unwrap(), "y");
    assert!(!root.join(first).exists(), "the old version is gone");
    let visible: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| !n.starts_with(".."))
        .collect();
    assert_eq!(visible.len(), 2);
}

#[test]
fn a_key_that_goes_away_takes_its_file_along() {
    let s = Scratch::new();
    let pod = pod(json!({"volumes": [{"name": "v", "configMap": {"name": "m"}}], "containers": []}));
    let before = plans(&pod, &objects(json!({"a": "1", "b": "2"}), json!({}))).unwrap();
    let volumes = set_up(&s.1, &before, None).unwrap();
    let after = plans(&pod, &objects(json!({"b": "2"}), json!({}))).unwrap();
    assert!(refresh(&s.1, "v", &after["v"], None).unwrap());
    assert!(fs::symlink_metadata(volumes["v"].path.join("a")).is_err());
}

#[test]
fn what_is_missing_is_named() {
    let objects = objects(json!({}), json!({}));
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        plans(&pod(json!({"volumes": [volume], "containers": []})), &objects)
    };
    let error = volume(json!({"configMap": {"name": "none"}})).unwrap_err();
    assert_eq!(error, "MountVolume.SetUp failed for volume \"v\" : configmap \"none\" not found");
    assert!(volume(json!({"configMap": {"name": "none", "optional": true}})).is_ok());
    let error =
        volume(json!({"secret": {"secretName": "s", "items": [{"key": "k", "path": "k"}]}})).unwrap_err();
    assert!(error.ends_with("secret ns/s references non-existent key: k"), "{error}");
    let error = volume(json!({"downwardAPI": {"items": [
        {"path": "../x", "fieldRef": {"fieldPath": "metadata.name"}}]}}))
    .unwrap_err();
    assert!(error.contains("invalid path"), "{error}");
}

#[test]
fn projections_share_one_directory() {
    let s = Scratch::new();
    let pod = pod(json!({"volumes": [{"name": "v", "projected": {"sources": [
        {"configMap": {"name": "m"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
    ]}}], "containers": []}));
    let plans = plans(&pod, &objects(json!({"a": "1"}), json!({}))).unwrap();
    let volumes = set_up(&s.1, &plans, None).unwrap();
    let root = &volumes["v"].path;
    assert_eq!(fs::read_to_string(root.join("labels")).unwrap(), "app=\"web\"");
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "1");
}

#[test]
fn host_paths_are_checked() {
    let s = Scratch::new();
    let here = s.0.path();
    let check = |path: &str, kind: &str| plan::check_host_path(&here.join(path), kind);
    assert!(check("x", "").is_ok());
    assert!(check("x", "Directory").unwrap_err().ends_with("is not a directory"));
    assert!(check("a/b", "DirectoryOrCreate").is_ok() && here.join("a/b").is_dir());
    assert!(check("a", "File").unwrap_err().ends_with("is not a file"));
    assert!(check("f", "FileOrCreate").is_ok() && here.join("f").is_file());
    assert!(check("f", "Socket").is_err());
    assert!(check("f", "Nonsense").is_err());
}

#[test]
fn names_are_resolved_as_the_policy_says() {
    let dns = Dns {
        servers: vec!["10.96.0.10".parse().unwrap()],
        domain: "cluster.local".into(),
        node: "# x\nnameserver 1.1.1.1\nsearch home\noptions edns0\n".into(),
    };
    let conf = |spec: Value| {
        let mut full = json!({"containers": []});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        resolv_conf(&pod(full), &dns)
    };
    let cluster = "nameserver 10.96.0.10\n\
                   search ns.svc.cluster.local svc.cluster.local cluster.local home\noptions ndots:5\n";
    let node = "nameserver 1.1.1.1\nsearch home\noptions edns0\n";
    assert_eq!(conf(json!({})), cluster);
    assert_eq!(conf(json!({"dnsPolicy": "Default"})), node);
    assert_eq!(conf(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirst"})), node);
    assert_eq!(conf(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})), cluster);
    let own = json!({"dnsPolicy": "None", "dnsConfig": {
        "nameservers": ["9.9.9.9"], "searches": ["a"], "options": [{"name": "ndots", "value": "2"}]}});
    assert_eq!(conf(own), "nameserver 9.9.9.9\nsearch a\noptions ndots:2\n");
    let more = conf(json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}));
    assert!(more.ends_with("options ndots:1\n"), "{more}");
}

#[test]
fn hosts_have_the_pod_and_its_aliases() {
    let pod = pod(json!({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}], "containers": []}));
    let text = hosts(&pod, "p", &["10.244.0.5".parse().unwrap()]);
    assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
    assert!(text.ends_with("10.244.0.5\tp\n1.2.3.4\ta b\n"));
}

#[test]
fn mountinfo_escapes() {
    assert_eq!(unescaped("/a\\040b\\134c"), "/a b\\c");
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Runs `f` in a mount namespace of its own, where the rights for that are there; the machine's mounts stay as they
/// are even if the test dies.
fn in_private_mounts(f: impl FnOnce() + Send + 'static) {
    if !is_root() {
        return;
    }
    let ran = std::thread::spawn(move || {
        use nix::sched::{CloneFlags, unshare};
        if unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).is_err() {
            return;
        }
        nix::mount::mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        f();
    })
    .join();
    if let Err(panic) = ran {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn secrets_and_memory_stay_off_the_disk_and_go_with_the_pod() {
    in_private_mounts(|| {
        let s = Scratch::new();
        let dir = s.1.clone();
        let pod = pod(json!({"securityContext": {"fsGroup": 2000}, "volumes": [
            {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}}
        ], "containers": []}));
        let plans = plans(&pod, &objects(json!({}), json!({"k": "dg=="}))).unwrap();
        let volumes = set_up_in(&dir, &plans, Some(2000));
        let stat = |name: &str| nix::sys::statfs::statfs(&volumes[name].path).unwrap();
        assert_eq!(stat("m").filesystem_type(), nix::sys::statfs::TMPFS_MAGIC);
        assert_eq!(stat("m").blocks() * u64::try_from(stat("m").block_size()).unwrap(), 1 << 20);
        let meta = fs::metadata(&volumes["m"].path).unwrap();
        assert_eq!((meta.gid(), meta.mode() & 0o7777), (2000, 0o2777));
        let key = fs::metadata(volumes["s"].path.join("k")).unwrap();
        assert_eq!((key.gid(), key.mode() & 0o777), (2000, 0o440));
        fs::write(volumes["m"].path.join("keep"), "x").unwrap();
        set_up_in(&dir, &plans, Some(2000));
        assert!(volumes["m"].path.join("keep").exists(), "a second set-up leaves it alone");
        tear_down(&dir, false).unwrap();
        assert!(!dir.path().exists());
        tear_down(&dir, false).unwrap();
    });
}

fn set_up_in(dir: &PodDir, plans: &BTreeMap<String, Plan>, gid: Option<u32>) -> Volumes {
    set_up(dir, plans, gid).unwrap()
}

#[test]
fn a_sub_path_cannot_leave_its_volume() {
    in_private_mounts(|| {
        let s = Scratch::new();
        let dir = s.1.clone();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let volume = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), volume.path().join("out")).unwrap();
        fs::create_dir(volume.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", volume.path().join("in")).unwrap();
        let volumes =
            Volumes::from([("v".to_owned(), Volume { path: volume.path().to_owned(), read_only: false })]);
        let mounts = |sub: &str| {
            let pod = pod(json!({"containers": [{"name": "c", "volumeMounts": [
                {"name": "v", "mountPath": "/d", "subPathExpr": sub}]}]}));
            let words = dir.make_termination_log("c", 0).unwrap();
            container_mounts(MountRequest {
                dir: &dir,
                container: &spec(&pod).containers[0],
                volumes: &volumes,
                env: &[("DAY".into(), "mon".into())],
                termination_log: &words,
            })
        };
        assert!(mounts("out/secret").unwrap_err().contains("leads out"));
        assert!(mounts("../x").unwrap_err().contains("inside"));
        let got = mounts("in/$(DAY)").unwrap();
        assert!(volume.path().join("real/mon").is_dir(), "made where the link inside the volume leads");
        fs::write(got[0].host_path.join("f"), "1").unwrap();
        assert!(volume.path().join("real/mon/f").exists());
        let paths: Vec<_> = got.iter().map(|m| m.container_path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/d", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/dev/termination-log"]);
        tear_down(&dir, false).unwrap();
        assert!(volume.path().join("real/mon/f").exists(), "what was mounted is not removed");
    });
}
