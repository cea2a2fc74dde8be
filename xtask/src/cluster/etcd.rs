//! etcd's members, one on each node of the control plane. They and the API servers know one another by certificates of
//! an authority of their own: who is known to the cluster is not thereby known to etcd.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::network;
use super::node::Node;
use super::state::Cluster;
use crate::workspace::quiet;

/// Where a node has its certificate and key for etcd, and the authority's certificate.
const TLS: &str = "/var/lib/minik8s/etcd-tls";

/// The members, as nodes are told of them: `NAME=ADDRESS`, with commas.
pub(super) fn members(nodes: &[Node]) -> String {
    let members = nodes.iter().map(|node| format!("{}={}", node.name(), network::address(node)));
    members.collect::<Vec<_>>().join(",")
}

/// Makes what the nodes of a control plane share: the cluster's keys, and certificates for etcd.
pub(super) fn share_keys(program: &Path, cluster: &Cluster, nodes: &[Node]) -> anyhow::Result<()> {
    let authority = cluster.dir().join("etcd-authority");
    let first = nodes[0].data().join("server");
    for dir in [&authority, &first] {
        fs::create_dir_all(dir)?;
    }
    // The cluster's keys come to be with the first certificate.
    quiet(Command::new(program).args(["kubeconfig", "--user", "nobody", "--data-dir"]).arg(&first))?;
    for node in nodes {
        let own = node.data().join("server/pki");
        if !own.exists() {
            fs::create_dir_all(&own)?;
            quiet(Command::new("cp").args(["-a", "--"]).arg(first.join("pki/.")).arg(&own))?;
        }
        let tls = node.data().join("etcd-tls");
        if tls.join("tls.key").exists() {
            continue;
        }
        fs::create_dir_all(&tls)?;
        let mut command = Command::new(program);
        command.args(["kubeconfig", "--user", &node.name(), "--host", &network::address(node), "--data-dir"]);
        let made = String::from_utf8(quiet(command.arg(&authority))?.stdout)?;
        for (field, file) in [
            ("certificate-authority-data", "ca.crt"),
            ("client-certificate-data", "tls.crt"),
            ("client-key-data", "tls.key"),
        ] {
            let line = made.lines().find_map(|l| l.trim().strip_prefix(field)?.strip_prefix(": "));
            let text = decoded(line.with_context(|| format!("a kubeconfig without {field}"))?)?;
            let mut options = fs::File::options();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(tls.join(file))?.write_all(&text)?;
        }
    }
    Ok(())
}

fn decoded(base64: &str) -> anyhow::Result<Vec<u8>> {
    let mut child = Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("a pipe")?.write_all(base64.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("base64 -d failed");
    }
    Ok(output.stdout)
}

/// The member of the node `name`, whose address is `address`.
pub(super) fn member(name: &str, address: &str, members: &str) -> Command {
    let (client, peer) = (format!("https://{address}:2379"), format!("https://{address}:2380"));
    let cluster = each(members, |name, address| format!("{name}=https://{address}:2380"));
    let file = |name: &str| format!("{TLS}/{name}");
    let (ca, certificate, key) = (file("ca.crt"), file("tls.crt"), file("tls.key"));
    let mut etcd = Command::new("etcd");
    etcd.args(["--name", name, "--data-dir", "/var/lib/minik8s/etcd", "--logger", "zap"])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &cluster])
        .args([
            "--client-cert-auth",
            "--trusted-ca-file",
            &ca,
            "--cert-file",
            &certificate,
            "--key-file",
            &key,
        ])
        .args(["--peer-client-cert-auth", "--peer-trusted-ca-file", &ca])
        .args(["--peer-cert-file", &certificate, "--peer-key-file", &key]);
    etcd
}

/// What tells an API server to keep its objects there.
pub(super) fn server_options(members: &str) -> Vec<String> {
    let endpoints = each(members, |_, address| format!("https://{address}:2379"));
    let file = |name: &str| format!("{TLS}/{name}");
    ["--storage", "etcd", "--etcd-endpoints", &endpoints, "--etcd-ca", &file("ca.crt")]
        .into_iter()
        .chain(["--etcd-cert", &file("tls.crt"), "--etcd-key", &file("tls.key")])
        .map(ToOwned::to_owned)
        .collect()
}

fn each(members: &str, write: impl Fn(&str, &str) -> String) -> String {
    let members = members.split(',').filter_map(|member| member.split_once('='));
    members.map(|(name, address)| write(name, address)).collect::<Vec<_>>().join(",")
}
