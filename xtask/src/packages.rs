//! Programs that have to be on the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

use crate::progress::{say, step};
use crate::workspace::{command, quiet};

/// A program, and the Debian package that brings it.
const NEEDED: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("busybox", "busybox-static"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("dpkg-deb", "dpkg"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
];

/// Installs what is missing, after saying so.
pub fn ensure() -> anyhow::Result<()> {
    let mut missing: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    // Not needed to run anything here, but it is what a user will want to type next.
    if find("kubectl").is_none() {
        missing.push("kubernetes-client");
    }
    // Programs that are not meant to be typed: with them, nodes and tests can use networks of others.
    if !Path::new("/usr/lib/cni/bridge").exists() {
        missing.push("containernetworking-plugins");
    }
    missing.dedup();
    install(&missing)
}

/// Installs Python with its virtual environments, where they are missing.
pub fn ensure_python() -> anyhow::Result<()> {
    let there =
        find("python3").is_some() && quiet(&mut command("python3", &["-c", "import ensurepip"])).is_ok();
    if there { Ok(()) } else { install(&["python3", "python3-venv"]) }
}

fn install(missing: &[&str]) -> anyhow::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        bail!("please install these packages, or what your distribution calls them: {}", missing.join(", "));
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("nodes need root, and these packages: {}; run this command as root", missing.join(", "));
    }
    say(&format!("Installing packages of the distribution: {}", missing.join(", ")));
    step("apt-get update", || quiet(&mut apt(&["update"])))?;
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(missing);
    step("apt-get install", || quiet(&mut apt(&args)))?;
    Ok(())
}

fn apt(args: &[&str]) -> Command {
    let mut apt = command("apt-get", args);
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// The program on the PATH, or where root's programs are.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(program)).find(|p| p.is_file())
}
