//! Faults under load: servers that are killed or held up, members of etcd that die, a full disk. What was acknowledged is
//! there, nothing is half there, and a watch goes on without a gap. `cargo xtask robustness --times 1000` is the long
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

/// What there is, and how many times when nobody says: kills of a server with either storage, deaths of members of etcd,
/// servers that are held up for longer than their lease, a full disk.
const FAULTS: [(&str, usize); 5] =
    [("embedded", 20), ("etcd", 20), ("members", 5), ("pauses", 2), ("disk", 1)];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let wanted = |fault: &&str| {
        let mut named = args.iter().filter(|arg| FAULTS.iter().any(|(name, _)| name == arg)).peekable();
        named.peek().is_none() || named.any(|name| name == fault)
    };
    let times = args.iter().position(|a| a == "--times").and_then(|at| args.get(at + 1)?.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let run = async {
        build("minik8s-bins")?;
        for (fault, usual) in FAULTS.iter().filter(|(fault, _)| wanted(fault)) {
            let times = times.unwrap_or(*usual);
            let what = match *fault {
                "members" => members::die(times).await,
                "pauses" => pauses::pauses(times).await,
                "disk" => disk::full().await,
                storage => kills::kills(storage, times).await,
            };
            let what = what.with_context(|| format!("{fault}, {times} times"))?;
            say(&format!("{fault}, {times} times: {what}"));
        }
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
