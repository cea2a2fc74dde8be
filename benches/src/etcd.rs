//! An etcd of one member, as Debian ships it, on loopback and with its defaults: every write is flushed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::Context;

/// No etcd takes that long to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running etcd, which ends when this goes.
#[derive(Debug)]
pub struct Etcd {
    /// The URL that clients use.
    pub url: String,
    child: Child,
}

impl Etcd {
    /// Starts one with its data in `dir`.
    ///
    /// # Errors
    /// There is no `etcd`, or it does not start.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let free = || anyhow::Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let (url, peer) = (format!("http://127.0.0.1:{}", free()?), format!("http://127.0.0.1:{}", free()?));
        let log = fs::File::create(dir.with_extension("log"))?;
        let child = Command::new("etcd")
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--quota-backend-bytes", "8589934592"])
            .arg("--data-dir")
            .arg(dir.join("data"))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run etcd; it is in the package etcd-server")?;
        let etcd = Self { url, child };
        let began = Instant::now();
        loop {
            let asked = async { etcd.client().await?.status().await };
            match asked.await {
                Ok(_) => return Ok(etcd),
                Err(error) => anyhow::ensure!(began.elapsed() < PATIENCE, "etcd does not answer: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn client(&self) -> Result<etcd_client::Client, etcd_client::Error> {
        etcd_client::Client::connect([&self.url], None).await
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
