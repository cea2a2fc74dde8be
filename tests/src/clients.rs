//! Programs and libraries that talk to an API server and that nobody here wrote. `cargo xtask test` installs those that
//! the machine lacks.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::{Program, Scene};

/// Runs the Python module `module` of `tests/clients`, whose tests are unittest's, in the scene's namespace.
///
/// # Errors
/// A test fails, or Python's clients are not installed.
pub async fn python(scene: &Scene, module: &str) -> anyhow::Result<()> {
    let python = scene.cluster().target().join("clients/python/bin/python");
    ensure!(python.exists(), "there is no {}; try: cargo xtask test e2e", python.display());
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let ran = Program::new(python)
        .args(["-B", "-W", "ignore", "-m", "unittest", "--verbose", module])
        .dir(dir)
        .env("KUBECONFIG", scene.cluster().kubeconfig())
        .env("NAMESPACE", scene.namespace())
        .run()
        .await?;
    // A module in which no test was found has tested nothing.
    let some = ran.stderr.contains("Ran ") && !ran.stderr.contains("Ran 0 tests");
    ensure!(ran.code == 0 && some, "{}\n{}", ran.stdout, ran.stderr);
    Ok(())
}

/// A kubectl.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// Its version: major and minor.
    pub version: (u32, u32),
    program: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// All that there are: on the PATH, beside that one, and the distribution's. Oldest first, one of each version.
    ///
    /// # Errors
    /// One of them does not run, or there is none.
    pub async fn all(scene: &Scene) -> anyhow::Result<Vec<Self>> {
        let mut programs = vec![scene.cluster().target().join("clients/kubectl-debian/usr/bin/kubectl")];
        let path = std::env::var_os("PATH").unwrap_or_default();
        for dir in std::env::split_paths(&path) {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let named = entries.filter(|e| {
                let name = e.file_name();
                name == "kubectl" || name.to_string_lossy().starts_with("kubectl.1.")
            });
            programs.extend(named.map(|e| e.path()));
        }
        let mut all: Vec<Self> = Vec::new();
        for program in programs.into_iter().filter(|p| p.exists()) {
            let printed = Program::new(&program).args(["version", "--client", "-o", "json"]).ok().await?;
            let version: serde_json::Value = serde_json::from_str(&printed)?;
            let part = |name: &str| {
                let text = version["clientVersion"][name].as_str().unwrap_or_default();
                text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>()
            };
            let version = (part("major")?, part("minor")?);
            if all.iter().all(|k| k.version != version) {
                // What one has learnt of the server is not for the next one.
                let home = scene.cluster().dir().join(format!(
                    "home-{}-{}-{}",
                    scene.namespace(),
                    version.0,
                    version.1
                ));
                all.push(Self { version, program, home });
            }
        }
        all.sort_by_key(|k| k.version);
        ensure!(!all.is_empty(), "there is no kubectl");
        Ok(all)
    }

    /// The newest.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub async fn newest(scene: &Scene) -> anyhow::Result<Self> {
        Self::all(scene).await?.pop().context("there is one")
    }

    /// Runs it in the scene's namespace.
    pub fn run(&self, scene: &Scene, args: &[&str]) -> Program {
        Program::new(&self.program)
            .env("KUBECONFIG", scene.cluster().kubeconfig())
            .env("HOME", &self.home)
            .args(["--namespace", scene.namespace()])
            .args(args)
    }
}
