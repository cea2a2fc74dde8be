//! Clients that nobody here wrote, for the conformance tests: Python's, and the distribution's kubectl.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::packages;
use crate::progress::step;
use crate::workspace::{command, quiet, root, target};

/// Installs them below `target/clients`, where that has not been done.
pub fn ensure() -> anyhow::Result<()> {
    let dir = target().join("clients");
    fs::create_dir_all(&dir)?;
    python(&dir.join("python"))?;
    kubectl(&dir.join("kubectl-debian"))
}

/// A virtual environment with what `tests/clients/requirements.txt` asks for.
fn python(dir: &Path) -> anyhow::Result<()> {
    let wanted = root().join("tests/clients/requirements.txt");
    let text = fs::read_to_string(&wanted).with_context(|| wanted.display().to_string())?;
    let stamp = dir.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|there| there == text) {
        return Ok(());
    }
    packages::ensure_python()?;
    step("Python clients", || {
        let _ = fs::remove_dir_all(dir);
        let at = dir.display().to_string();
        quiet(&mut command("python3", &["-m", "venv", &at]))?;
        let pip = dir.join("bin/pip").display().to_string();
        let list = wanted.display().to_string();
        quiet(&mut command(&pip, &["install", "--quiet", "--disable-pip-version-check", "-r", &list]))?;
        Ok(fs::write(&stamp, &text)?)
    })
}

/// The kubectl of Debian, which is years older than any other that is still met. Unpacked, not installed: a newer one
/// may be there under the same name.
fn kubectl(dir: &Path) -> anyhow::Result<()> {
    let program: PathBuf = dir.join("usr/bin/kubectl");
    if program.exists() || packages::find("apt-get").is_none() {
        return Ok(());
    }
    step("kubectl of the distribution", || {
        fs::create_dir_all(dir)?;
        let mut download = command("apt-get", &["download", "kubernetes-client"]);
        if quiet(download.current_dir(dir)).is_err() {
            quiet(&mut command("apt-get", &["update"]))?;
            quiet(&mut download)?;
        }
        let archives = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
        let archive =
            archives.iter().map(fs::DirEntry::path).find(|p| p.extension().is_some_and(|e| e == "deb"));
        let archive = archive.context("apt-get has left no package")?;
        let (from, to) = (archive.display().to_string(), dir.display().to_string());
        quiet(&mut command("dpkg-deb", &["-x", &from, &to]))?;
        Ok(fs::remove_file(archive)?)
    })
}
