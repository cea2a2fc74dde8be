//! A disk that is full.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use kube::api::PostParams;

use crate::load::{map, number};
use crate::server::Server;

/// A server whose objects are on a disk of eight megabytes.
pub(crate) async fn full() -> anyhow::Result<String> {
    if !nix::unistd::geteuid().is_root() {
        bail!("mounts need root");
    }
    let mut server = Server::embedded()?;
    let objects = server.data().join("objects");
    fs::create_dir_all(&objects)?;
    let mut wrap = Command::new("unshare");
    wrap.args(["--mount", "sh", "-c", "mount -t tmpfs -o size=8m none \"$0\" && exec \"$@\""]).arg(&objects);
    server.start(Some(wrap))?;
    let maps = server.maps().await?;
    let large = |name: &str| {
        let mut map = map(name, 1);
        map.data.get_or_insert_default().insert("ballast".into(), "x".repeat(500_000));
        map
    };
    let mut written = Vec::new();
    let refused = loop {
        let name = format!("big-{}", written.len());
        match maps.create(&PostParams::default(), &large(&name)).await {
            Ok(_) => written.push(name),
            Err(error) => break error,
        }
        ensure!(written.len() < 100, "the disk does not fill up");
    };
    let kube::Error::Api(status) = &refused else { bail!("{refused}") };
    ensure!(status.code == 507 && status.reason == "InsufficientStorage", "{status:?}");
    for name in &written {
        number(&maps.get(name).await.context("reads go on")?)?;
    }
    ensure!(maps.get(&format!("big-{}", written.len())).await.is_err(), "what was refused is not there");
    let pid = server.pid()?;
    let mount = format!("mount -o remount,size=64m {}", objects.display());
    let grown = Command::new("nsenter")
        .args(["--target", &pid.to_string(), "--mount", "sh", "-c", &mount])
        .status()?;
    ensure!(grown.success(), "the disk cannot be made larger");
    for number in 0..10 {
        maps.create(&PostParams::default(), &large(&format!("more-{number}")))
            .await
            .context("there is room")?;
    }
    Ok(format!("{} objects, the next one refused, then ten more", written.len()))
}
