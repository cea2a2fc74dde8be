//! An etcd of its own for a test, on loopback: Debian's, with as many members as wanted.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::{PATIENCE, Program};

/// Running members, which end when this goes.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    dir: tempfile::TempDir,
    cluster: String,
}

#[derive(Debug)]
struct Member {
    name: String,
    client: String,
    peer: String,
    process: Option<Child>,
}

impl Etcd {
    /// Starts that many members, and waits until all of them answer.
    ///
    /// # Errors
    /// There is no `etcd`, or it does not start.
    pub async fn start(members: usize) -> anyhow::Result<Self> {
        let url = || anyhow::Ok(format!("http://127.0.0.1:{}", free_port()?));
        let members = (0..members)
            .map(|n| Ok(Member { name: format!("m{n}"), client: url()?, peer: url()?, process: None }))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let cluster = members.iter().map(|m| format!("{}={}", m.name, m.peer)).collect::<Vec<_>>().join(",");
        let mut etcd = Self { members, dir: tempfile::tempdir()?, cluster };
        for member in 0..etcd.members.len() {
            etcd.start_member(member)?;
        }
        etcd.ready().await?;
        Ok(etcd)
    }

    /// The URLs that clients use.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|m| m.client.clone()).collect()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Starts a member that does not run, with what it had before.
    ///
    /// # Errors
    /// There is no `etcd`.
    pub fn start_member(&mut self, member: usize) -> anyhow::Result<()> {
        let Member { name, client, peer, process } = &mut self.members[member];
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{name}.log")))?;
        let child = Command::new("etcd")
            .args(["--name", name, "--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &self.cluster, "--data-dir"])
            .arg(self.dir.path().join(&*name))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run etcd; it is in the package etcd-server")?;
        *process = Some(child);
        Ok(())
    }

    /// Ends a member with SIGKILL.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill_member(&mut self, member: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.members[member].process.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// What `etcdctl` prints, asked of all members.
    ///
    /// # Errors
    /// It fails.
    pub async fn ctl(&self, words: &[&str]) -> anyhow::Result<String> {
        let endpoints = format!("--endpoints={}", self.endpoints().join(","));
        Program::new("etcdctl").env("ETCDCTL_API", "3").args([endpoints.as_str()]).args(words).ok().await
    }

    /// The member that leads the others.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (number, member) in self.members.iter().enumerate().filter(|(_, m)| m.process.is_some()) {
                let status = Program::new("etcdctl")
                    .env("ETCDCTL_API", "3")
                    .args([&format!("--endpoints={}", member.client), "endpoint", "status"])
                    .run()
                    .await?;
                // ENDPOINT, ID, VERSION, SIZE, IS LEADER, …
                if status.stdout.split(',').nth(4).is_some_and(|leads| leads.trim() == "true") {
                    return Ok(number);
                }
            }
            ensure!(Instant::now() < deadline, "the members elect no leader");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all members answer.
    ///
    /// # Errors
    /// They do not.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.ctl(&["endpoint", "health"]).await {
            ensure!(Instant::now() < deadline, "etcd does not get ready: {error:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|m| m.process.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A free port of 127.0.0.1. It is free again when this returns, so somebody else could take it.
fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
