//! API servers to measure: ours, and Kubernetes' with its etcd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Method;
use minik8s_reconcile::pki::{Authority, Subject};

use crate::http_client::Connection;
use crate::target::Target;

/// No server takes that long to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Running processes, which end when this goes.
#[derive(Debug)]
pub struct Server {
    /// How to reach it.
    pub target: Target,
    /// From the start of its first process to its first answer that it is ready.
    pub took: Duration,
    children: Vec<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A free port of 127.0.0.1. It is free again when this returns, so somebody else could take it.
fn port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Our program, beside this one.
///
/// # Errors
/// It has not been built.
pub fn program() -> anyhow::Result<PathBuf> {
    // Benchmarks lie in target/release/deps.
    let deps = std::env::current_exe()?;
    let program = deps.parent().and_then(Path::parent).map(|dir| dir.join("minik8s"));
    program.filter(|p| p.exists()).context("build the program first: cargo build --release -p minik8s-bins")
}

/// Starts `minik8s server` on the data in `dir`: API server, controllers and scheduler.
///
/// # Errors
/// It does not start.
pub async fn minik8s(dir: &Path) -> anyhow::Result<Server> {
    minik8s_with(dir, &[]).await
}

/// The same, with more words on its command line.
///
/// # Errors
/// It does not start.
pub async fn minik8s_with(dir: &Path, args: &[&str]) -> anyhow::Result<Server> {
    let kubeconfig = dir.join("admin.kubeconfig");
    let _ = fs::remove_file(&kubeconfig);
    let log = fs::File::create(dir.with_extension("log"))?;
    let began = Instant::now();
    let child = Command::new(program()?)
        .args(["server", "--listen", &format!("127.0.0.1:{}", port()?), "--data-dir"])
        .arg(dir)
        .args(args)
        .stderr(log)
        .spawn()?;
    let processes = vec![child.id()];
    let mut children = vec![child];
    let target = loop {
        if let Ok(target) = Target::from_kubeconfig(&kubeconfig) {
            break target;
        }
        alive(&mut children, began)?;
        tokio::time::sleep(Duration::from_micros(200)).await;
    };
    ready(Target { processes, ..target }, children, began).await
}

/// Starts Kubernetes' API server, the program `apiserver`, with an etcd of its own whose data is in `dir`.
///
/// # Errors
/// One of them does not start; `etcd` must be installed.
pub async fn kubernetes(apiserver: &Path, dir: &Path) -> anyhow::Result<Server> {
    fs::create_dir_all(dir)?;
    let now = jiff::Timestamp::now();
    let authority = Authority::open(&dir.join("pki"), now)?;
    let file = |name: &str| dir.join("pki").join(name).display().to_string();
    let serving = authority.issue(&Subject::server("kube-apiserver", ["127.0.0.1"]), now)?;
    fs::write(file("server.crt"), &serving.certificate)?;
    fs::write(file("server.key"), &serving.key)?;
    let signing = Command::new("openssl").args(["genrsa", "-out", &file("accounts.key"), "2048"]).output()?;
    anyhow::ensure!(signing.status.success(), "openssl: {}", String::from_utf8_lossy(&signing.stderr));
    let (client, peer, secure) = (port()?, port()?, port()?);
    let log = fs::File::create(dir.join("log"))?;
    let began = Instant::now();
    let etcd = Command::new("etcd")
        .args(["--data-dir", &dir.join("etcd").display().to_string()])
        .args(["--listen-client-urls", &format!("http://127.0.0.1:{client}")])
        .args(["--advertise-client-urls", &format!("http://127.0.0.1:{client}")])
        .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")])
        .args(["--initial-advertise-peer-urls", &format!("http://127.0.0.1:{peer}")])
        .args(["--initial-cluster", &format!("default=http://127.0.0.1:{peer}")])
        .args(["--quota-backend-bytes", "8589934592"])
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .spawn()
        .context("cannot run etcd; install it: apt-get install etcd-server")?;
    let mut children = vec![etcd];
    children.push(
        Command::new(apiserver)
            .args(["--etcd-servers", &format!("http://127.0.0.1:{client}")])
            .args(["--bind-address", "127.0.0.1", "--secure-port", &secure.to_string()])
            .args(["--insecure-port", "0", "--cert-dir", &file("")])
            .args(["--tls-cert-file", &file("server.crt"), "--tls-private-key-file", &file("server.key")])
            .args(["--client-ca-file", &file("ca.crt"), "--authorization-mode", "Node,RBAC"])
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .args(["--service-account-key-file", &file("accounts.key")])
            .args(["--service-account-signing-key-file", &file("accounts.key")])
            .args(["--service-cluster-ip-range", "10.96.0.0/16"])
            .args(["--disable-admission-plugins", "ServiceAccount"])
            .args(["--max-requests-inflight", "4000", "--max-mutating-requests-inflight", "2000"])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", apiserver.display()))?,
    );
    let admin = authority.issue(&Subject::client("admin").group("system:masters"), now)?;
    let mut tls = Target::tls(authority.certificate(), &admin)?;
    std::sync::Arc::make_mut(&mut tls).alpn_protocols = vec![b"http/1.1".to_vec()];
    let target = Target {
        host: format!("127.0.0.1:{secure}"),
        tls: Some(tls),
        authorization: None,
        processes: children.iter().map(Child::id).collect(),
    };
    ready(target, children, began).await
}

async fn ready(target: Target, mut children: Vec<Child>, began: Instant) -> anyhow::Result<Server> {
    loop {
        if let Ok(mut connection) = Connection::open(&target).await
            && let Ok((status, _)) = connection.send(Method::GET, "/readyz", Bytes::new()).await
            && status.is_success()
        {
            return Ok(Server { target, took: began.elapsed(), children });
        }
        alive(&mut children, began)?;
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

fn alive(children: &mut [Child], began: Instant) -> anyhow::Result<()> {
    for child in children.iter_mut() {
        if let Some(status) = child.try_wait()? {
            bail!("the server has ended: {status}");
        }
    }
    anyhow::ensure!(began.elapsed() < PATIENCE, "the server does not get ready");
    Ok(())
}
