//! A cluster for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::Program;

/// What the clusters of tests are called: this, the process that made it, and a number.
const PREFIX: &str = "e2e-";

/// A cluster of one node, `n1`. It goes down when it is dropped, unless it was there before.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    target: PathBuf,
    keep: bool,
}

impl Cluster {
    /// Brings a cluster up, under a name that no other process uses; `options` are for `cargo xtask cluster-up`. It has
    /// one node, if they do not say otherwise.
    ///
    /// # Errors
    /// Not root, or what `cargo xtask cluster-up` says.
    pub fn up(number: usize, options: &[&str]) -> anyhow::Result<Self> {
        let target = target()?;
        build_xtask()?;
        sweep(&target);
        let cluster = Self { name: format!("{PREFIX}{}-{number}", std::process::id()), target, keep: false };
        // From here on a failure takes down what there is of it.
        cluster.again(options)?;
        Ok(cluster)
    }

    /// Brings the cluster up, though it may be up.
    ///
    /// # Errors
    /// As [`Self::up`].
    pub fn again(&self, options: &[&str]) -> anyhow::Result<()> {
        let several = options.contains(&"--nodes") || options.contains(&"--control-planes");
        let one: &[&str] = if several { &[] } else { &["--nodes", "1"] };
        self.xtask(&[&["cluster-up", "--no-demo", "--name", &self.name], one, options].concat())
    }

    /// Takes the cluster down.
    ///
    /// # Errors
    /// What `cargo xtask cluster-down` says.
    pub fn down(mut self) -> anyhow::Result<()> {
        self.keep = true;
        self.xtask(&["cluster-down", "--name", &self.name])
    }

    /// A cluster that is up already and stays so.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn existing(name: &str) -> anyhow::Result<Self> {
        let cluster = Self { name: name.to_owned(), target: target()?, keep: true };
        if !cluster.kubeconfig().exists() {
            bail!("there is no cluster {name}; try: cargo xtask cluster-up --no-demo --name {name}");
        }
        build_xtask()?;
        Ok(cluster)
    }

    /// Leaves the cluster up when this is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder in which the cluster's state is.
    pub fn dir(&self) -> PathBuf {
        self.target.join("clusters").join(&self.name)
    }

    /// The folder that cargo builds into.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// A kubeconfig that reaches the API server from this machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    /// A client of the API server.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        let file = Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// The command line of minik8s, on this cluster.
    pub fn minik8s(&self) -> Program {
        Program::new(self.program()).env("KUBECONFIG", self.kubeconfig())
    }

    /// The minik8s program.
    pub fn program(&self) -> PathBuf {
        self.programs().join("minik8s")
    }

    /// Where the programs are that are not optimised: those that tests use.
    fn programs(&self) -> PathBuf {
        self.target.join("debug")
    }

    /// kubectl, on this cluster.
    pub fn kubectl(&self) -> Program {
        Program::new("kubectl").env("KUBECONFIG", self.kubeconfig())
    }

    /// A command inside the node.
    pub fn node(&self, words: &[&str]) -> Program {
        self.on("n1", words)
    }

    /// A command inside the node of that name.
    pub fn on(&self, node: &str, words: &[&str]) -> Program {
        Program::new(self.programs().join("xtask"))
            .args(["node", node, "--name", &self.name, "--"])
            .args(words)
    }

    /// What a command inside the node prints.
    ///
    /// # Errors
    /// It fails.
    pub async fn node_sh(&self, script: &str) -> anyhow::Result<String> {
        self.node(&["sh", "-c", script]).ok().await
    }

    /// Runs one of xtask's commands to its end.
    ///
    /// # Errors
    /// It fails; what it printed is in the error.
    pub fn xtask(&self, args: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(self.programs().join("xtask")).args(args).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("cargo xtask {}:\n{}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// The process of this machine that is the node's first.
    ///
    /// # Errors
    /// The node does not run.
    pub fn init(&self) -> anyhow::Result<u32> {
        self.init_of("n1")
    }

    fn init_of(&self, node: &str) -> anyhow::Result<u32> {
        let pid = self.dir().join("nodes").join(node).join("pid");
        let text = fs::read_to_string(pid).context("the node does not run")?;
        Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
    }

    /// The process of this machine in which the node's init runs `name`, if it does: `containerd`, `minik8s server` or
    /// `minik8s node`.
    ///
    /// # Errors
    /// The node does not run.
    pub fn process(&self, name: &str) -> anyhow::Result<Option<u32>> {
        self.process_on("n1", name)
    }

    /// As [`Self::process`], on the node of that name.
    ///
    /// # Errors
    /// The node does not run.
    pub fn process_on(&self, node: &str, name: &str) -> anyhow::Result<Option<u32>> {
        let init = self.init_of(node)?;
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
        Ok(children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|b| *b == 0).map(String::from_utf8_lossy);
            let program = words.next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
            match name.split_once(' ') {
                Some((first, second)) => program == first && words.next().is_some_and(|w| w == second),
                None => program == name,
            }
        }))
    }

    /// Ends one of the node's programs with SIGKILL. The node's init starts it again.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.process(name)?.with_context(|| format!("{name} does not run"))?;
        let status = Command::new("kill").args(["-9", &pid.to_string()]).status()?;
        anyhow::ensure!(status.success(), "cannot kill {name}, process {pid}");
        Ok(())
    }

    /// The last lines that one of the node's programs logged: `containerd`, `minik8s-server`, `minik8s-node` or `init`.
    pub fn log_tail(&self, name: &str, lines: usize) -> String {
        self.log_tail_on("n1", name, lines)
    }

    /// As [`Self::log_tail`], on the node of that name.
    pub fn log_tail_on(&self, node: &str, name: &str, lines: usize) -> String {
        let text = fs::read(self.dir().join(format!("nodes/{node}/log/{name}.log"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = self.xtask(&["cluster-down", "--name", &self.name]) {
            crate::suite::say(&format!("cluster {} is left behind: {error:#}", self.name));
        }
    }
}

/// cargo's target folder, which this test is in.
fn target() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.ancestors().nth(3).context("a test is in target/PROFILE/deps")?.to_owned())
}

/// Builds the program that brings clusters up.
fn build_xtask() -> anyhow::Result<()> {
    build("xtask")
}

/// Builds a package of the workspace, unoptimised.
///
/// # Errors
/// It does not build.
pub fn build(package: &str) -> anyhow::Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    // Build scripts that look at what cargo says of this test would run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|p| text.starts_with(p))
        {
            cargo.env_remove(&name);
        }
    }
    let status =
        cargo.args(["build", "--quiet", "--package", package]).status().context("cannot run cargo")?;
    anyhow::ensure!(status.success(), "{package} does not build");
    Ok(())
}

/// The path of one of the workspace's programs, which [`build`] has built.
///
/// # Errors
/// This program is not where cargo puts tests.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    Ok(target()?.join("debug").join(name))
}

/// Takes down what tests that were killed have left.
fn sweep(target: &Path) {
    let entries = fs::read_dir(target.join("clusters")).into_iter().flatten().flatten();
    for name in entries.filter_map(|e| e.file_name().into_string().ok()) {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            drop(Cluster { name, target: target.to_owned(), keep: false });
        }
    }
}
