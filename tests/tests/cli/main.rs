//! The command lines: ours, and kubectl's on our server.

mod bad_input;
mod changes;
mod joining;
mod kubectl;
mod looking;
mod streams;

use std::process::ExitCode;

use minik8s_tests::Suite;

fn main() -> ExitCode {
    Suite::new()
        .case("get: a pod's line", looking::table)
        .case("get: formats, selectors, namespaces", looking::formats)
        .case("get: watching", looking::watching)
        .case("describe and version", looking::describe)
        .case("apply: a folder, standard input, changes", changes::apply)
        .case("create and delete", changes::create_and_delete)
        .case("logs", streams::logs)
        .case("exec", streams::exec)
        .case("kubectl: exec", streams::kubectl_exec)
        .case("kubectl: agrees with minik8s", kubectl::agrees)
        .case("kubectl: explain, api-resources, wait, patch, label", kubectl::more)
        .case("node join: tokens, names, hashes", joining::joins)
        .case("bad input: minik8s says what is wrong", bad_input::minik8s)
        .case("bad input: kubectl says what is wrong", bad_input::kubectl)
        .case("bad input: no server, no such thing", bad_input::nothing_there)
        .run()
}

/// A pod that serves nothing and waits.
pub(crate) fn idle(name: &str, labels: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ {labels} }} }}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{ name: main, image: "localhost/busybox:1", command: [sleep, "3600"] }}]
"#
    )
}
