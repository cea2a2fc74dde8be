//! `kill -9` of the server, again and again.

use std::time::Duration;

use minik8s_tests::Etcd;

use crate::load::Load;
use crate::say;
use crate::server::Server;

/// That many, of a server with that storage.
pub(crate) async fn kills(storage: &str, kills: usize) -> anyhow::Result<String> {
    let etcd = if storage == "etcd" { Some(Etcd::start(1).await?) } else { None };
    let mut server = etcd.as_ref().map_or_else(Server::embedded, Server::of)?;
    server.start(None)?;
    let maps = server.maps().await?;
    let seen = Load::run(&[maps], async |_| {
        let random = numbers(storage);
        for kill in 1..=kills {
            // Somewhere in the middle of it.
            tokio::time::sleep(Duration::from_millis(30 + random(kill) % 150)).await;
            server.kill()?;
            server.start(None)?;
            server.client().await?;
            if kill % 100 == 0 {
                say(&format!("{storage}: {kill} kills"));
            }
        }
        Ok(())
    })
    .await?;
    seen.judge()
}

/// Numbers that differ from kill to kill and not from run to run.
fn numbers(seed: &str) -> impl Fn(usize) -> u64 {
    let seed = seed.bytes().fold(7_u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
    move |n| (n as u64).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33
}
