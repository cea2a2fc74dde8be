//! Small OCI images from the distribution's packages, without a registry.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::packages;
use crate::progress::step;
use crate::workspace::{command, quiet, target};

/// Applets of busybox that the image has.
const APPLETS: &[&str] = &[
    "sh",
    "ash",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hostname",
    "httpd",
    "id",
    "ifconfig",
    "ip",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mktemp",
    "mount",
    "mv",
    "nc",
    "netstat",
    "nohup",
    "nproc",
    "nslookup",
    "pidof",
    "ping",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "route",
    "sed",
    "seq",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tar",
    "tee",
    "test",
    "time",
    "timeout",
    "top",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "uniq",
    "unlink",
    "uptime",
    "usleep",
    "vi",
    "watch",
    "wc",
    "wget",
    "which",
    "whoami",
    "xargs",
    "yes",
];

/// Packages of the python image.
const PYTHON: &[&str] = &[
    "python3.11-minimal",
    "libpython3.11-minimal",
    "python3.11",
    "libpython3.11-stdlib",
    "libc6",
    "libexpat1",
    "zlib1g",
    "libssl3",
    "libffi8",
    "libsqlite3-0",
    "libbz2-1.0",
    "liblzma5",
    "libuuid1",
    "libgcc-s1",
];

/// Builds all images that are not there yet, and says where they are.
pub fn build_all() -> anyhow::Result<Vec<PathBuf>> {
    packages::ensure()?;
    Ok(vec![busybox()?, python()?])
}

/// `localhost/busybox:1`
pub fn busybox() -> anyhow::Result<PathBuf> {
    build("localhost/busybox:1", "busybox.tar", &["sh"], |root| {
        skeleton(root)?;
        add_busybox(root)
    })
}

/// `localhost/python:3`
pub fn python() -> anyhow::Result<PathBuf> {
    build("localhost/python:3", "python.tar", &["python3"], |root| {
        skeleton(root)?;
        let debs = root.with_extension("debs");
        fs::create_dir_all(&debs)?;
        quiet(command("apt-get", &["download"]).args(PYTHON).current_dir(&debs))?;
        for deb in fs::read_dir(&debs)? {
            quiet(command("dpkg-deb", &["-x"]).arg(deb?.path()).arg(root))?;
        }
        fs::remove_dir_all(&debs)?;
        for useless in ["usr/share/doc", "usr/share/man", "usr/share/lintian"] {
            let path = root.join(useless);
            if path.exists() {
                fs::remove_dir_all(path)?;
            }
        }
        symlink("python3.11", root.join("usr/bin/python3"))?;
        symlink("python3.11", root.join("usr/bin/python"))?;
        add_busybox(root)
    })
}

fn skeleton(root: &Path) -> anyhow::Result<()> {
    for dir in ["bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/tmp"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nuser:x:1000:1000::/home:/bin/sh\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\nuser:x:1000:\n")?;
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    Ok(())
}

fn add_busybox(root: &Path) -> anyhow::Result<()> {
    let busybox = packages::find("busybox").context("busybox is not installed")?;
    let bin = root.join("bin");
    fs::copy(busybox, bin.join("busybox"))?;
    fs::set_permissions(bin.join("busybox"), fs::Permissions::from_mode(0o755))?;
    for applet in APPLETS {
        let path = bin.join(applet);
        if !path.exists() {
            symlink("busybox", path)?;
        }
    }
    Ok(())
}

fn build(
    reference: &str,
    file: &str,
    cmd: &[&str],
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let dir = target().join("images");
    let tar = dir.join(file);
    if tar.exists() {
        return Ok(tar);
    }
    step(&format!("image {reference}"), || {
        fs::create_dir_all(&dir)?;
        // A name of its own, so that two runs at once do not meet.
        let scratch = dir.join(format!(".{file}.{}", std::process::id()));
        let root = scratch.join("root");
        fs::create_dir_all(&root)?;
        let done = fill(&root).and_then(|()| archive(reference, &root, cmd, &scratch.join("image")));
        if done.is_ok() {
            fs::rename(scratch.join("image"), &tar)?;
        }
        fs::remove_dir_all(&scratch)?;
        done
    })
    .with_context(|| format!("cannot build {reference}"))?;
    Ok(tar)
}

/// Writes the image as an archive of an OCI layout.
fn archive(reference: &str, root: &Path, cmd: &[&str], out: &Path) -> anyhow::Result<()> {
    let plain = layer(root)?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&plain)?;
    let layer = gzip.finish()?;
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": cmd },
        "rootfs": { "type": "layers", "diff_ids": [digest(&plain)] },
        "history": [{ "created_by": "cargo xtask images" }],
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
    })
    .to_string();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    let tag = reference.rsplit(':').next().unwrap_or_default();
    entry["annotations"] =
        json!({ "io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    let mut tar = tar::Builder::new(fs::File::create(out)?);
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", hex(bytes));
    for (path, bytes) in [
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice()),
        (blob(config.as_bytes()), config.as_bytes()),
        (blob(&layer), &layer),
        (blob(manifest.as_bytes()), manifest.as_bytes()),
        ("index.json".to_owned(), index.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes)?;
    }
    tar.into_inner()?.sync_all()?;
    Ok(())
}

/// The folder as an uncompressed layer: everything belongs to root, and no times, so that the same files give the
/// same digest.
fn layer(root: &Path) -> anyhow::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, root, Path::new(""))?;
    Ok(tar.into_inner()?)
}

fn append(tar: &mut tar::Builder<Vec<u8>>, root: &Path, below: &Path) -> anyhow::Result<()> {
    let mut names: Vec<_> =
        fs::read_dir(root.join(below))?.map(|e| Ok(e?.file_name())).collect::<std::io::Result<_>>()?;
    names.sort();
    for name in names {
        let path = below.join(name);
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full)?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata_in_mode(&metadata, tar::HeaderMode::Deterministic);
        header.set_mode(metadata.permissions().mode() & 0o7777);
        header.set_uid(0);
        header.set_gid(0);
        if metadata.is_symlink() {
            tar.append_link(&mut header, &path, fs::read_link(&full)?)?;
        } else if metadata.is_dir() {
            tar.append_data(&mut header, &path, std::io::empty())?;
            append(tar, root, &path)?;
        } else {
            tar.append_data(&mut header, &path, fs::File::open(&full)?)?;
        }
    }
    Ok(())
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
