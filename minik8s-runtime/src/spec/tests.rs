use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::runtime::{Mount, Namespaces, Propagation, Resources, Security};

fn facts() -> Facts {
    Facts {
        user: User { uid: 0, gid: 0, groups: vec![0] },
        cgroup_v2: false,
        capabilities: CapabilitySet::ALL,
        seccomp: true,
        devices: vec![Device {
            path: "/dev/fuse".into(),
            block: false,
            major: 10,
            minor: 229,
            mode: 0o666,
            uid: 0,
            gid: 0,
        }],
        min_oom_score_adj: -1000,
    }
}

fn image() -> Image {
    Image {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["one".into(), "two".into()],
        env: vec!["PATH=/bin".into(), "A=image".into(), "BARE".into()],
        working_dir: "/srv".into(),
        ..Image::default()
    }
}

fn spec() -> ContainerSpec {
    ContainerSpec {
        id: "c1".into(),
        cgroup_parent: "/kubepods/podx".into(),
        hostname: "web".into(),
        namespaces: Namespaces { network: Some("/run/netns/x".into()), ..Namespaces::default() },
        ..ContainerSpec::default()
    }
}

fn json_of(spec: &ContainerSpec, facts: &Facts) -> Value {
    serde_json::to_value(render(spec, &image(), facts).unwrap()).unwrap()
}

#[test]
fn command_and_args_replace_entrypoint_and_cmd_as_in_kubernetes() {
    let cases: [(&[&str], &[&str], &[&str]); 4] = [
        (&[], &[], &["/entry", "one", "two"]),
        (&[], &["x"], &["/entry", "x"]),
        (&["sh"], &[], &["sh"]),
        (&["sh"], &["x"], &["sh", "x"]),
    ];
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    for (command, args, want) in cases {
        let spec = ContainerSpec { command: owned(command), args: owned(args), ..spec() };
        assert_eq!(command::args(&spec, &image()).unwrap(), owned(want));
    }
    let nothing = render(&spec(), &Image::default(), &facts()).unwrap_err();
    assert_eq!(nothing, SpecError::NoCommand);
}

#[test]
fn later_variables_win_in_the_place_of_earlier_ones() {
    let spec = ContainerSpec {
        env: vec![("A".into(), "pod".into()), ("B".into(), "1".into()), ("B".into(), "2".into())],
        tty: true,
        ..spec()
    };
    let process = &json_of(&spec, &facts())["process"];
    assert_eq!(process["env"], json!(["PATH=/bin", "HOSTNAME=web", "TERM=xterm", "A=pod", "BARE=", "B=2"]));
    assert_eq!(process["cwd"], "/srv");
    assert_eq!(process["terminal"], true);
    assert_eq!(process.get("rlimits"), None);
}

#[test]
fn the_first_container_of_a_pod_makes_its_namespaces_and_later_ones_join() {
    let first = json_of(&spec(), &facts());
    assert_eq!(
        first["linux"]["namespaces"],
        json!([
            {"type": "mount"},
            {"type": "pid"},
            {"type": "ipc"},
            {"type": "network", "path": "/run/netns/x"},
            {"type": "uts"},
        ])
    );
    assert_eq!(first["hostname"], "web");

    let mut later = spec();
    later.namespaces.join_pid = Some(42);
    let rendered = json_of(&later, &facts());
    assert_eq!(
        rendered["linux"]["namespaces"],
        json!([
            {"type": "mount"},
            {"type": "pid"},
            {"type": "ipc", "path": "/proc/42/ns/ipc"},
            {"type": "network", "path": "/run/netns/x"},
            {"type": "uts", "path": "/proc/42/ns/uts"},
        ])
    );
    assert_eq!(rendered.get("hostname"), None, "only who makes the namespace may name it");
    assert!(rendered["process"]["env"].as_array().unwrap().contains(&json!("HOSTNAME=web")));

    later.namespaces.share_pid = true;
    let shared = json_of(&later, &facts());
    assert_eq!(shared["linux"]["namespaces"][1], json!({"type": "pid", "path": "/proc/42/ns/pid"}));
}

#[test]
fn the_nodes_namespaces_are_absent() {
    let namespaces = Namespaces { host_pid: true, host_ipc: true, ..Namespaces::default() };
    let rendered = json_of(&ContainerSpec { namespaces, ..spec() }, &facts());
    assert_eq!(rendered["linux"]["namespaces"], json!([{"type": "mount"}]));
    assert_eq!(rendered.get("hostname"), None);
    let shm = find_mount(&rendered, "/dev/shm");
    assert_eq!(shm["source"], "/dev/shm");
    assert_eq!(shm["type"], "bind");
}

fn find_mount<'a>(spec: &'a Value, destination: &str) -> &'a Value {
    let mounts = spec["mounts"].as_array().unwrap();
    let mut found = mounts.iter().filter(|mount| mount["destination"] == destination);
    let mount = found.next().unwrap_or_else(|| panic!("no mount at {destination}"));
    assert!(found.next().is_none(), "two mounts at {destination}");
    mount
}

#[test]
fn the_pods_mounts_come_after_the_usual_ones_and_parents_first() {
    let mount = |to: &str, read_only, propagation| Mount {
        host_path: format!("/host{to}").into(),
        container_path: to.into(),
        read_only,
        propagation,
    };
    let mounts = vec![
        mount("/data/deep/er", true, Propagation::HostToContainer),
        mount("/data", false, Propagation::Private),
        mount("/dev/shm", false, Propagation::Private),
    ];
    let rendered = json_of(&ContainerSpec { mounts, ..spec() }, &facts());
    let places: Vec<_> =
        rendered["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect();
    assert_eq!(
        places,
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/mqueue",
            "/sys",
            "/sys/fs/cgroup",
            "/data",
            "/dev/shm",
            "/data/deep/er"
        ]
    );
    assert_eq!(find_mount(&rendered, "/data/deep/er")["options"], json!(["rbind", "rslave", "ro"]));
    assert_eq!(find_mount(&rendered, "/data")["options"], json!(["rbind", "rprivate", "rw"]));
    assert_eq!(find_mount(&rendered, "/dev/shm")["source"], "/host/dev/shm");
    assert_eq!(rendered["linux"]["rootfsPropagation"], "rslave");

    let relative = ContainerSpec { mounts: vec![mount("data", false, Propagation::Private)], ..spec() };
    assert_eq!(render(&relative, &image(), &facts()).unwrap_err(), SpecError::RelativePath("data".into()));
}

#[test]
fn a_privileged_container_is_not_confined() {
    let plain = json_of(&spec(), &facts());
    assert!(plain["linux"]["maskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
    assert!(plain["linux"]["readonlyPaths"].as_array().unwrap().contains(&json!("/proc/sys")));
    assert_eq!(plain["linux"]["resources"]["devices"], json!([{"allow": false, "access": "rwm"}]));
    assert_eq!(plain["linux"].get("devices"), None);

    let security = Security { privileged: true, seccomp_default: true, ..Security::default() };
    let rendered = json_of(&ContainerSpec { security, ..spec() }, &facts());
    assert_eq!(rendered["linux"]["maskedPaths"], json!([]));
    assert_eq!(rendered["linux"]["readonlyPaths"], json!([]));
    assert_eq!(rendered["linux"]["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    assert_eq!(rendered["linux"].get("seccomp"), None);
    assert_eq!(
        rendered["linux"]["devices"],
        json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0}])
    );
    assert_eq!(capabilities_of(&rendered, "bounding").len(), 41);
    assert!(find_mount(&rendered, "/sys")["options"].as_array().unwrap().contains(&json!("rw")));
}

fn capabilities_of(spec: &Value, set: &str) -> Vec<String> {
    let mut names: Vec<String> =
        serde_json::from_value(spec["process"]["capabilities"][set].clone()).unwrap();
    names.sort();
    names
}

#[test]
fn capabilities_are_the_usual_ones_plus_and_minus() {
    let with = |add: &[&str], drop: &[&str], node: CapabilitySet| {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let security =
            Security { add_capabilities: owned(add), drop_capabilities: owned(drop), ..Security::default() };
        capabilities::of(&security, node)
    };
    let count = |set: CapabilitySet| set.0.count_ones();
    assert_eq!(count(with(&[], &[], CapabilitySet::ALL).unwrap()), 14);
    let set = with(&["net_admin", "CAP_SYS_TIME"], &["KILL"], CapabilitySet::ALL).unwrap();
    assert!(set.has("NET_ADMIN") && set.has("SYS_TIME") && !set.has("KILL"));
    assert_eq!(count(set), 15);
    assert_eq!(
        with(&["NET_RAW"], &["ALL"], CapabilitySet::ALL).unwrap(),
        CapabilitySet::named("NET_RAW").unwrap()
    );
    assert_eq!(with(&["ALL"], &[], CapabilitySet(0b101)).unwrap(), CapabilitySet(0b101));
    let unknown = with(&["NOT_ONE"], &[], CapabilitySet::ALL).unwrap_err();
    assert_eq!(unknown.to_string(), "unknown capability \"NOT_ONE\" to add");
    // Numbers that the kernel fixes for ever.
    assert_eq!(CapabilitySet::named("SYS_ADMIN"), Some(CapabilitySet(1 << 21)));
    assert_eq!(CapabilitySet::named("CHECKPOINT_RESTORE"), Some(CapabilitySet(1 << 40)));

    let rendered = json_of(&spec(), &facts());
    assert_eq!(capabilities_of(&rendered, "bounding").len(), 14);
    assert_eq!(capabilities_of(&rendered, "bounding"), capabilities_of(&rendered, "effective"));
    assert_eq!(rendered["process"]["capabilities"].get("inheritable"), None);
    assert_eq!(rendered["process"]["capabilities"].get("ambient"), None);
}

#[test]
fn limits_become_what_the_kernel_counts_in() {
    let resources = Resources {
        cpu_shares: Some(256),
        cpu_limit_milli: Some(250),
        memory_limit: Some(32 << 20),
        pids_limit: Some(50),
        oom_score_adj: -998,
    };
    let facts = Facts { min_oom_score_adj: 0, ..facts() };
    let rendered = json_of(&ContainerSpec { resources, ..spec() }, &facts);
    let limits = &rendered["linux"]["resources"];
    assert_eq!(limits["cpu"], json!({"shares": 256, "quota": 25000, "period": 100_000}));
    assert_eq!(limits["memory"], json!({"limit": 33_554_432}));
    assert_eq!(limits["pids"], json!({"limit": 50}));
    assert_eq!(rendered["process"]["oomScoreAdj"], 0, "what the node does not allow is not asked for");
    assert_eq!(rendered["linux"]["cgroupsPath"], "/kubepods/podx/c1");

    let unified = json_of(&spec(), &Facts { cgroup_v2: true, ..facts });
    assert_eq!(unified["linux"]["resources"]["unified"], json!({"memory.oom.group": "1"}));
    assert!(unified["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "cgroup"})));
    assert_eq!(unified["linux"]["resources"].get("cpu"), None);
}

#[test]
fn rights_of_the_process() {
    let security = Security { no_new_privileges: true, read_only_root: true, ..Security::default() };
    let sysctls = BTreeMap::from([("net.ipv4.ip_forward".to_owned(), "1".to_owned())]);
    let user = User { uid: 1000, gid: 3000, groups: vec![3000, 2000] };
    let rendered = json_of(&ContainerSpec { security, sysctls, ..spec() }, &Facts { user, ..facts() });
    assert_eq!(rendered["process"]["noNewPrivileges"], true);
    assert_eq!(rendered["root"], json!({"path": "rootfs", "readonly": true}));
    assert_eq!(
        rendered["process"]["user"],
        json!({"uid": 1000, "gid": 3000, "additionalGids": [3000, 2000]})
    );
    assert_eq!(rendered["linux"]["sysctl"], json!({"net.ipv4.ip_forward": "1"}));
    let no_root =
        ContainerSpec { security: Security { run_as_non_root: true, ..Security::default() }, ..spec() };
    assert_eq!(render(&no_root, &image(), &facts()).unwrap_err(), SpecError::RunsAsRoot);
}

#[test]
fn the_filter_follows_the_capabilities() {
    let security = Security { seccomp_default: true, ..Security::default() };
    let rendered = json_of(&ContainerSpec { security, ..spec() }, &facts());
    let filter = &rendered["linux"]["seccomp"];
    assert_eq!(filter["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = filter["syscalls"].as_array().unwrap();
    let rule =
        |call: &str| rules.iter().find(|rule| rule["names"].as_array().unwrap().contains(&json!(call)));
    assert_eq!(rule("clone3").unwrap()["errnoRet"], 38);
    assert_eq!(rule("clone").unwrap()["args"][0]["op"], "SCMP_CMP_MASKED_EQ");
    assert_eq!(rule("clone").unwrap()["args"][0]["value"], 2_114_060_288_u64);
    assert!(rule("openat2").is_some());
    assert!(rule("mount").is_none() && rule("bpf").is_none() && rule("io_uring_setup").is_none());
    assert!(rule("chroot").is_some(), "SYS_CHROOT is among the usual capabilities");
    let admin = seccomp::default_profile(CapabilitySet::named("SYS_ADMIN").unwrap(), "x86_64");
    let admin = serde_json::to_value(admin).unwrap();
    let names: Vec<&str> = admin["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|r| r["names"].as_array().unwrap())
        .filter_map(Value::as_str)
        .collect();
    assert!(names.contains(&"mount") && names.contains(&"clone3") && names.contains(&"arch_prctl"));
    assert_eq!(admin["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]));
    let without = json_of(
        &ContainerSpec { security: Security { seccomp_default: true, ..Security::default() }, ..spec() },
        &Facts { seccomp: false, ..facts() },
    );
    assert_eq!(without["linux"].get("seccomp"), None);
}

#[test]
fn users_by_name_and_number() {
    let accounts = user::Accounts::parse(
        "root:x:0:0:root:/root:/bin/sh\n# comment\nweb:x:33:34:web:/srv:/bin/false\n1000:x:7:8::/:\n",
        "root:x:0:\nwww:x:34:\nlogs:x:40:web,root\nempty:x:41:\n",
    );
    let who = |image_user: &str, security: &Security| {
        user::resolve(security, &Image { user: image_user.into(), ..Image::default() }, &accounts)
    };
    let plain = Security::default();
    let is = |uid, gid, groups: &[u32]| Ok(User { uid, gid, groups: groups.to_vec() });
    assert_eq!(who("", &plain), is(0, 0, &[0, 40]));
    assert_eq!(who("web", &plain), is(33, 34, &[34, 40]));
    assert_eq!(who("33", &plain), is(33, 34, &[34, 40]));
    assert_eq!(who("web:www", &plain), is(33, 34, &[34, 40]));
    assert_eq!(who("web:logs", &plain), is(33, 40, &[40]));
    assert_eq!(who("web:99", &plain), is(33, 99, &[99, 40]));
    assert_eq!(who("5555", &plain), is(5555, 0, &[0]));
    assert_eq!(who("1000", &plain), is(7, 8, &[8]), "a name, although it looks like a number");
    assert_eq!(who("nobody", &plain), Err(SpecError::UnknownUser("nobody".into())));
    assert_eq!(who("web:none", &plain), Err(SpecError::UnknownGroup("none".into())));
    let pod = Security {
        run_as_user: Some(1000),
        run_as_group: Some(3000),
        supplemental_groups: vec![2000, 3000, 4000],
        ..Security::default()
    };
    assert_eq!(who("web:www", &pod), is(1000, 3000, &[3000, 2000, 4000]));
    let user_only = Security { run_as_user: Some(33), ..Security::default() };
    assert_eq!(who("root:root", &user_only), is(33, 34, &[34, 40]), "the image's group goes with its user");
    let wrong = Security { run_as_user: Some(-1), ..Security::default() };
    assert_eq!(who("", &wrong), Err(SpecError::IdOutOfRange(-1)));
}

#[test]
fn an_exec_is_the_containers_process_with_another_command() {
    let container = render(&spec(), &image(), &facts()).unwrap();
    let exec = ExecSpec {
        command: vec!["ls".into()],
        tty: true,
        env: vec![("A".into(), "exec".into())],
        ..ExecSpec::default()
    };
    let process = render_exec(container.process().as_ref().unwrap(), &exec).unwrap();
    let json = serde_json::to_value(&process).unwrap();
    assert_eq!(json["args"], json!(["ls"]));
    assert_eq!(json["terminal"], true);
    assert_eq!(json["cwd"], "/srv");
    assert_eq!(json["env"], json!(["PATH=/bin", "HOSTNAME=web", "A=exec", "BARE=", "TERM=xterm"]));
    assert_eq!(json.get("oomScoreAdj"), None);
    let nothing = render_exec(&process, &ExecSpec::default()).unwrap_err();
    assert_eq!(nothing, SpecError::NoCommand);
}
