use super::*;

fn put(dir: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(dir).unwrap();
    for (name, text) in files {
        fs::write(dir.join(name), text).unwrap();
    }
}

fn legacy(root: &Path, names: &[&str]) -> Cgroups {
    let roots = names.iter().map(|name| root.join(name)).collect();
    let controllers = names.iter().enumerate().map(|(at, name)| ((*name).to_owned(), at)).collect();
    Cgroups { layout: Layout::Legacy { roots, controllers } }
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_hybrid_node_is_legacy_and_co_mounted_controllers_share_a_hierarchy() {
    let table = "\
24 1 0:22 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
25 1 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
26 1 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
27 1 0:25 / /mnt/with\\040space rw - cgroup cgroup rw,memory
28 1 0:23 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct
29 1 0:26 / /tmp rw - tmpfs tmpfs rw
";
    let Some(Layout::Legacy { roots, controllers }) = mountinfo::layout(table) else { panic!("not legacy") };
    let roots: Vec<_> = roots.iter().map(|root| root.to_str().unwrap()).collect();
    assert_eq!(
        roots,
        ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd", "/mnt/with space", "/sys/fs/cgroup/unified"]
    );
    let places: Vec<_> = controllers.iter().map(|(name, at)| (name.as_str(), *at)).collect();
    assert_eq!(places, [("cpu", 0), ("cpuacct", 0), ("memory", 2), ("name=systemd", 1)]);
}

#[test]
fn a_node_with_only_the_new_kind_is_unified() {
    let table = "30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    assert_eq!(mountinfo::layout(table), Some(Layout::Unified("/sys/fs/cgroup".into())));
    assert_eq!(mountinfo::layout("29 1 0:26 / /tmp rw - tmpfs tmpfs rw\n"), None);
}

#[test]
fn limits_of_a_legacy_pod_are_written_and_lifted() {
    let root = tempfile::tempdir().unwrap();
    let groups = legacy(root.path(), &["cpu", "memory", "pids"]);
    for name in ["cpu", "memory", "pids"] {
        put(&root.path().join(name), &[]);
    }
    let limits = Resources {
        cpu_shares: Some(512),
        cpu_limit_milli: Some(1500),
        memory_limit: Some(64 << 20),
        pids_limit: Some(100),
        ..Resources::default()
    };
    groups.ensure("/kubepods/podx", &limits).unwrap();
    let at = |name: &str| read(root.path().join(name));
    assert_eq!(at("cpu/kubepods/podx/cpu.shares"), "512");
    assert_eq!(at("cpu/kubepods/podx/cpu.cfs_quota_us"), "150000");
    assert_eq!(at("cpu/kubepods/podx/cpu.cfs_period_us"), "100000");
    assert_eq!(at("memory/kubepods/podx/memory.limit_in_bytes"), "67108864");
    assert_eq!(at("pids/kubepods/podx/pids.max"), "100");
    groups.ensure("/kubepods/podx", &Resources::default()).unwrap();
    assert_eq!(at("cpu/kubepods/podx/cpu.cfs_quota_us"), "-1");
    assert_eq!(at("memory/kubepods/podx/memory.limit_in_bytes"), "-1");
    assert_eq!(at("pids/kubepods/podx/pids.max"), "max");
}

#[test]
fn a_new_cpuset_gets_the_cpus_of_the_one_above() {
    let root = tempfile::tempdir().unwrap();
    let groups = legacy(root.path(), &["cpuset"]);
    put(&root.path().join("cpuset"), &[("cpuset.cpus", "0-1\n"), ("cpuset.mems", "0\n")]);
    // The kernel makes these files with the directory.
    put(&root.path().join("cpuset/a"), &[("cpuset.cpus", "\n"), ("cpuset.mems", "\n")]);
    put(&root.path().join("cpuset/a/b"), &[("cpuset.cpus", "1\n"), ("cpuset.mems", "\n")]);
    groups.ensure("a/b", &Resources::default()).unwrap();
    assert_eq!(read(root.path().join("cpuset/a/cpuset.cpus")), "0-1");
    assert_eq!(read(root.path().join("cpuset/a/b/cpuset.cpus")), "1\n", "what is set stays");
    assert_eq!(read(root.path().join("cpuset/a/b/cpuset.mems")), "0");
}

#[test]
fn limits_and_numbers_of_a_unified_pod() {
    let root = tempfile::tempdir().unwrap();
    let groups = Cgroups { layout: Layout::Unified(root.path().to_owned()) };
    put(root.path(), &[("cgroup.controllers", "cpu memory pids\n")]);
    put(&root.path().join("kubepods"), &[("cgroup.controllers", "cpu memory pids\n")]);
    let limits = Resources { cpu_shares: Some(1024), cpu_limit_milli: Some(5), ..Resources::default() };
    groups.ensure("/kubepods/podx", &limits).unwrap();
    let pod = root.path().join("kubepods/podx");
    assert_eq!(read(pod.join("cpu.max")), "1000 100000", "the kernel takes no less");
    assert_eq!(read(pod.join("cpu.weight")), "39");
    assert_eq!(read(pod.join("memory.max")), "max");
    assert_eq!(read(root.path().join("kubepods/cgroup.subtree_control")), "+pids", "the last one of three");
    put(
        &pod,
        &[
            ("memory.current", "1000\n"),
            ("memory.stat", "anon 300\ninactive_file 400\n"),
            ("cpu.stat", "usage_usec 7\nuser_usec 3\n"),
            ("pids.current", "4\n"),
            ("memory.events", "low 0\noom 3\noom_kill 2\n"),
        ],
    );
    let stats = Stats { cpu_ns: 7000, memory_working_set: 600, memory_usage: 1000, pids: 4 };
    assert_eq!(groups.stats("/kubepods/podx").unwrap(), stats);
    assert_eq!(groups.oom_kills("/kubepods/podx").unwrap(), 2);
}

#[test]
fn numbers_of_a_legacy_container() {
    let root = tempfile::tempdir().unwrap();
    let groups = legacy(root.path(), &["cpuacct", "memory", "pids"]);
    put(&root.path().join("cpuacct/p/c"), &[("cpuacct.usage", "12345\n")]);
    let memory = [
        ("memory.usage_in_bytes", "5000\n"),
        ("memory.stat", "inactive_file 1\ntotal_inactive_file 6000\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
    ];
    put(&root.path().join("memory/p/c"), &memory);
    put(&root.path().join("pids/p/c"), &[("pids.current", "2\n")]);
    let stats = Stats { cpu_ns: 12345, memory_working_set: 0, memory_usage: 5000, pids: 2 };
    assert_eq!(groups.stats("p/c").unwrap(), stats);
    assert_eq!(groups.oom_kills("p/c").unwrap(), 1);
    assert_eq!(groups.stats("p/d").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn empty_groups_go_and_used_ones_stay() {
    let root = tempfile::tempdir().unwrap();
    let groups = legacy(root.path(), &["cpu"]);
    fs::create_dir_all(root.path().join("cpu/p/empty")).unwrap();
    groups.remove("/p").unwrap();
    assert!(!root.path().join("cpu/p").exists());
    groups.remove("/p").unwrap();
    // A plain file stands for a process here: it keeps the directory from being removed.
    put(&root.path().join("cpu/p"), &[("file", "")]);
    groups.remove("/p").unwrap();
    assert!(root.path().join("cpu/p").exists());
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let groups = Cgroups { layout: Layout::Unified("/nonexistent".into()) };
    for path in ["", "/", "../x", "/a/../b"] {
        assert_eq!(groups.remove(path).unwrap_err().kind(), ErrorKind::InvalidInput, "{path:?}");
    }
}
