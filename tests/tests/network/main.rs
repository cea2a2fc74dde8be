//! One network across nodes: every pod reaches every other, whatever carries the packets, and nothing is left behind.

mod churn;
mod plugins;
mod policies;
mod probe;
mod reach;

use std::process::ExitCode;

use minik8s_tests::Suite;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == probe::WORD) {
        return probe::main(&words[1..]);
    }
    let vxlan = Suite::new()
        .cluster(&["--nodes", "3"])
        .case("vxlan: pods reach one another on all nodes", reach::everywhere)
        .alone("pods come and go while agents are killed, and nothing is left", churn::churn)
        .run();
    let host_gw = Suite::new()
        .cluster(&[
            "--nodes",
            "3",
            "--agent-option=--network-backend=host-gw",
            "--agent-option=--network-policy",
        ])
        .case("host-gw: pods reach one another on all nodes", reach::everywhere)
        .case("policies hold across nodes", policies::hold)
        .run();
    let plugins = plugins::run();
    if [vxlan, host_gw, plugins].iter().all(|code| *code == ExitCode::SUCCESS) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
