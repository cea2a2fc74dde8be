//! What pods do on a node.

mod accounts;
mod configuration;
mod endings;
mod failures;
mod network;
mod probes;
mod resources;
mod restarts;
mod volumes;

use std::process::ExitCode;

use minik8s_tests::Suite;

fn main() -> ExitCode {
    // Those that wait longest come first.
    Suite::new()
        .case("restarts: a crash loop waits longer each time", restarts::crash_loop)
        .case("restarts: one container is killed, the other goes on", restarts::one_of_two)
        .case("probes: a failed liveness probe restarts the container", probes::liveness)
        .case("probes: a readiness probe turns readiness on and off", probes::readiness)
        .case("probes: a startup probe holds the others back", probes::startup)
        .case("restarts: restartPolicy Never and OnFailure", restarts::policies)
        .case("restarts: init containers run in order, sidecars beside", restarts::init_containers)
        .case("endings: hooks run around a container's life", endings::hooks)
        .case("endings: TERM is heard", endings::term_heard)
        .case("endings: TERM is ignored, KILL follows after the grace period", endings::term_ignored)
        .case("endings: a deadline ends the pod", endings::deadline)
        .case("endings: a container's last words", endings::last_words)
        .case("accounts: a pod asks the server with its token", accounts::asks)
        .case("configuration: the environment's sources", configuration::environment)
        .case("configuration: command, arguments, folder and user", configuration::process)
        .case("configuration: what does not exist yet is waited for", configuration::missing)
        .case("volumes: emptyDir and hostPath", volumes::folders)
        .case("volumes: ConfigMap, Secret and downward API as files", volumes::files)
        .case("network: names, addresses, other pods", network::pods_reach_one_another)
        .case("network: a port is free again for the next container", network::host_network)
        .case("failures: an image that does not exist", failures::image)
        .case("failures: a command that does not exist", failures::command)
        .case("failures: no node fits", failures::no_node)
        .case("resources: a memory limit is enforced", resources::memory)
        .alone("resources: a CPU limit is enforced", resources::cpu)
        .run()
}
