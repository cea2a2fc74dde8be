//! What clients that nobody here wrote make of the API server.

mod helm;
mod kube;
mod kubectl;
mod lists;
mod watches;

use std::process::ExitCode;

use minik8s_tests::{Suite, clients};

fn main() -> ExitCode {
    Suite::new()
        .case("python: kubernetes", async |scene| clients::python(&scene, "with_kubernetes").await)
        .case("python: lightkube", async |scene| clients::python(&scene, "with_lightkube").await)
        .case("python: kr8s", async |scene| clients::python(&scene, "with_kr8s").await)
        .case("kubectl: every version manages configurations", kubectl::configuration)
        .case("kubectl: every version explains and lists kinds", kubectl::discovery)
        .case("kubectl: every version applies on the server's side", kubectl::server_side_apply)
        .case("kubectl: every version works with pods", kubectl::pods)
        .case("kubectl: every version works with custom resources", kubectl::custom_resources)
        .case("kubectl: create, for each kind it can make", kubectl::create)
        .case("kubectl: drain respects a disruption budget", kubectl::drain)
        .case("helm: install, upgrade, rollback, uninstall", helm::release)
        .case("kube: a controller with a finalizer and events", kube::controller)
        .case("kube: waits for conditions and deletions", kube::waits)
        .case("kube: managers that apply without end agree", kube::apply_loops)
        .case("kube: streaming lists", kube::streaming_lists)
        .case("lists: pages are of one moment while others write", lists::pages)
        .case("lists: a token that has expired says how to go on", lists::expired)
        .case("watches: one that does not read holds up nobody", watches::blocked)
        .alone("watches: a restart of the server leaves no gap", watches::restart)
        .run()
}
