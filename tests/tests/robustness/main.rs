//! Faults under load: servers that are killed or held up, members of etcd that die, a full disk. What was acknowledged is
//! there, nothing is half there, and a watch goes on without a gap. `cargo xtask robustness --kills 1000` is the long
//! version.

mod disk;
mod kills;
mod load;
mod members;
mod pauses;
mod server;

use std::process::ExitCode;

use anyhow::Context;
use minik8s_tests::build;

/// Kills when nobody says how many.
const KILLS: usize = 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|at| args.get(at + 1));
    if args.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let kills = value("--kills").and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let storages = match value("--storage").map(String::as_str) {
        None | Some("all") => vec!["embedded", "etcd"],
        Some(one) => vec![one],
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let run = async {
        build("minik8s-bins")?;
        for storage in storages {
            let what =
                kills::kills(storage, kills).await.with_context(|| format!("kills, with {storage}"))?;
            say(&format!("{storage}: {kills} kills, {what}"));
            if storage == "etcd" {
                let deaths = kills.div_ceil(4);
                let what = members::die(deaths).await.context("members that die")?;
                say(&format!("etcd: {deaths} deaths of members, {what}"));
                let pauses = kills.div_ceil(10);
                let what = pauses::pauses(pauses).await.context("servers that are held up")?;
                say(&format!("etcd: {pauses} servers held up for longer than their lease, {what}"));
            }
        }
        let what = disk::full().await.context("a full disk")?;
        say(&format!("a full disk: {what}"));
        anyhow::Ok(())
    };
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}
