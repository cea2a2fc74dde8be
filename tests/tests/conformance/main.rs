//! What clients that nobody here wrote make of the API server.
//!
//! | what such clients ask | where it is tested |
//! |---|---|
//! | discovery, in parts and aggregated; `/version/` with its slash | every client begins with it; `kubectl: … explains and lists kinds` |
//! | `Accept` with protobuf, tables and partial objects in it | kubectl from 1.32 on; `minik8s-reconcile/src/http/tests.rs` |
//! | protobuf bodies | `kubectl: create, for each kind it can make` (from 1.32 on) |
//! | tables with ready-made cells | `kubectl: … custom resources`; the `cli` suite |
//! | OpenAPI v2 in protobuf (1.20 to 1.33) and v3 | `kubectl: … manages configurations`, `… explains and lists kinds` |
//! | the object or a `Status` in answer to `DELETE` | `python: kubernetes` |
//! | errors with their reasons and fields | all of them |
//! | lists in pages, selectors of both sorts | `lists: …`, the Python clients |
//! | watches from nothing, from a version, with an initial list | `watches: …`, `kube: streaming lists`, the Python clients |
//! | every sort of patch; server-side apply | `kubectl: … applies on the server's side`, `kube: managers that apply …`, the Python clients |
//! | scale, status, eviction, binding | `kubectl: … manages configurations`, `… drains a node …`; every pod is bound |
//! | exec, attach, cp and port-forward over SPDY, WebSocket and one in the other | `kubectl: every version works with pods`, the Python clients |
//! | pod security, quotas, policies and their warnings | `kubectl: every version is told …` |
//! | access reviews | `kubectl: … explains and lists kinds`, `python: kubernetes` |
//! | HPA, events and evictions in two versions | `python: kubernetes`; kubectl 1.20 |
//! | HTTP/2 over TLS | kubectl; the others speak HTTP/1.1 |
//!
//! Not tested, for want of the thing itself: `metrics.k8s.io`, which `kubectl top` asks for.

mod admission;
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
        .alone("kubectl: every version drains a node as far as a budget allows", kubectl::drain)
        .case("kubectl: every version is told what a namespace allows", admission::namespaces)
        .case("kubectl: every version is told what a policy is against", admission::policies)
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
