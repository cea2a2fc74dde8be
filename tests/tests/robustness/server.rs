//! The program under test.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use minik8s_tests::{Etcd, PATIENCE};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A server that can be killed and started again with the same data, at the same address.
pub(crate) struct Server {
    dir: tempfile::TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// One that keeps its objects itself.
    pub(crate) fn embedded() -> anyhow::Result<Self> {
        Self::new(Vec::new())
    }

    /// One that keeps them in etcd.
    pub(crate) fn of(etcd: &Etcd) -> anyhow::Result<Self> {
        let endpoints = etcd.endpoints().join(",");
        Self::new(["--storage", "etcd", "--etcd-endpoints", &endpoints].map(str::to_owned).to_vec())
    }

    /// Two that keep them there, and are one cluster's.
    pub(crate) async fn two(etcd: &Etcd) -> anyhow::Result<[Self; 2]> {
        let mut first = Self::of(etcd)?;
        first.start(None)?;
        // By now it has made the keys.
        first.client().await?;
        let mut second = Self::of(etcd)?;
        let keys = second.data().join("pki");
        fs::create_dir_all(&keys)?;
        for file in fs::read_dir(first.data().join("pki"))? {
            let file = file?;
            fs::copy(file.path(), keys.join(file.file_name()))?;
        }
        second.start(None)?;
        Ok([first, second])
    }

    fn new(options: Vec<String>) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { dir: tempfile::tempdir()?, port, options, process: None })
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn start(&mut self, wrap: Option<Command>) -> anyhow::Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        let program = minik8s_tests::program("minik8s")?;
        let mut command = match wrap {
            Some(mut command) => {
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(["server", "--listen", &format!("127.0.0.1:{}", self.port), "--data-dir"]);
        command.arg(self.data()).args(&self.options).stdin(Stdio::null()).stderr(log);
        self.process = Some(command.spawn()?);
        Ok(())
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    pub(crate) async fn client(&self) -> anyhow::Result<kube::Client> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = self.data().join("admin.kubeconfig");
            let made = async {
                let file = Kubeconfig::read_from(&path)?;
                let config =
                    kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
                let client = kube::Client::try_from(config)?;
                client.apiserver_version().await?;
                anyhow::Ok(client)
            };
            match made.await {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > deadline => {
                    bail!("the server does not start: {error:#}\n{}", self.log());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// ConfigMaps of the namespace `default`, as its administrator sees them.
    pub(crate) async fn maps(&self) -> anyhow::Result<Api<ConfigMap>> {
        Ok(Api::namespaced(self.client().await?, "default"))
    }

    /// Holds its process up until [`Self::resume`].
    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Has a process go on that was held up.
    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid()?.try_into()?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.process.as_ref().context("it runs")?.id())
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
