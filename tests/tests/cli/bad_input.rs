//! Input that is wrong is refused with words that help, with exit code 1, and leaves nothing.

use anyhow::ensure;
use minik8s_tests::{Ran, Scene};

use crate::idle;

/// Manifests, and what ours and kubectl's message must name.
fn manifests() -> Vec<(&'static str, String, &'static [&'static str])> {
    let pod = |from: &str, to: &str| idle("bad", "").replace(from, to);
    let big = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: bad }}\ndata:\n  a: {}\n",
        "x".repeat(5 << 20)
    );
    vec![
        ("an unknown kind", pod("kind: Pod", "kind: Pot"), &["Pot"]),
        ("an unknown version", pod("apiVersion: v1", "apiVersion: v7"), &["v7"]),
        ("no kind", pod("kind: Pod\n", ""), &["kind"]),
        (
            "no image",
            pod("image: \"localhost/busybox:1\", ", ""),
            &["spec.containers[0].image", "Required value"],
        ),
        (
            "two containers of one name",
            pod("containers: [", "containers: [{ name: main, image: x }, "),
            &["spec.containers", "uplicate", "main"],
        ),
        ("a misspelt field", pod("containers:", "contaners:"), &["contaners"]),
        (
            "a wrong type",
            pod("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: soon"),
            &["soon"],
        ),
        ("a bad name", pod("name: bad", "name: Bad_Name"), &["metadata.name", "Bad_Name"]),
        (
            "a bad quantity",
            pod("name: main,", "name: main, resources: { limits: { memory: lots } },"),
            &["lots"],
        ),
        ("a bad label", pod("labels: {  }", "labels: { app: \"a b\" }"), &["a b"]),
        ("a negative grace period", pod("Seconds: 1", "Seconds: -1"), &["terminationGracePeriodSeconds"]),
        (
            "a missing volume",
            pod("name: main,", "name: main, volumeMounts: [{ name: v, mountPath: /v }],"),
            &["volumeMounts[0].name", "v"],
        ),
        ("a tab", pod("  terminationGracePeriodSeconds", "\tterminationGracePeriodSeconds"), &["tab"]),
        (
            "no YAML",
            "apiVersion: v1\nkind: [Pod\nmetadata: { name: bad }\n".to_owned(),
            &["standard input:3:9: document 1", "flow sequence"],
        ),
        ("5 MB", big, &["5242947 bytes", "3145728"]),
    ]
}

async fn nothing_made(scene: &Scene, what: &str) -> anyhow::Result<()> {
    let left = scene.minik8s(&["get", "pods,configmaps", "-o", "name"]).ok().await?;
    ensure!(!left.contains("bad"), "{what} made something: {left}");
    Ok(())
}

/// What a person is to be spared.
fn is_readable(what: &str, ran: &Ran) -> anyhow::Result<()> {
    ensure!(!ran.stderr.contains("panicked") && !ran.stderr.contains("backtrace"), "{what}: {}", ran.stderr);
    ensure!(ran.stderr.len() < 2000, "{what}: a message of {} bytes", ran.stderr.len());
    Ok(())
}

pub(super) async fn minik8s(scene: Scene) -> anyhow::Result<()> {
    for (what, manifest, words) in manifests() {
        for verb in ["apply", "create"] {
            let ran = scene.minik8s(&[verb, "-f", "-"]).input(manifest.clone()).run().await?;
            ran.failed_with(1, words).map_err(|e| e.context(what))?;
            is_readable(what, &ran)?;
            ensure!(ran.stdout.is_empty(), "{what}: {}", ran.stdout);
        }
        nothing_made(&scene, what).await?;
    }
    // One document that cannot be read spoils the lot; the position of it is in the message.
    let two = format!("{}---\nkind: Pot\napiVersion: v1\nmetadata: {{ name: x }}\n", idle("bad", ""));
    let ran = scene.minik8s(&["apply", "-f", "-"]).input(two).run().await?;
    ran.failed_with(1, &["document 2", "line 9", "Pot"])?;
    nothing_made(&scene, "half a manifest").await
}

pub(super) async fn kubectl(scene: Scene) -> anyhow::Result<()> {
    for (what, manifest, words) in manifests() {
        let ran = scene.kubectl(&["create", "-f", "-"]).input(manifest).run().await?;
        // What kubectl finds by itself it says in its own words.
        let words = match what {
            "a tab" | "no YAML" => &["yaml"],
            "no kind" => &["kind"],
            "a wrong type" => &["terminationGracePeriodSeconds"],
            "5 MB" => &["large"],
            _ => words,
        };
        ran.failed_with(1, words).map_err(|e| e.context(what))?;
        nothing_made(&scene, what).await?;
    }
    Ok(())
}

pub(super) async fn nothing_there(scene: Scene) -> anyhow::Result<()> {
    for (args, words) in [
        (&["get", "pod", "nobody"][..], &["NotFound", "\"nobody\" not found"][..]),
        (&["get", "pots"], &["\"pots\""]),
        (&["get", "pods", "-l", "a=b=c"], &["unable to parse requirement"]),
        (&["apply", "-f", "/no/such/file"], &["/no/such/file"]),
        (&["logs", "nobody"], &["\"nobody\" not found"]),
        (&["describe", "pod", "nobody"], &["\"nobody\" not found"]),
        (&["delete", "pod", "nobody"], &["\"nobody\" not found"]),
        (&["--context", "other", "get", "pods"], &["other"]),
        (&["--kubeconfig", "/no/such/file", "get", "pods"], &["/no/such/file"]),
    ] {
        scene.minik8s(args).run().await?.failed_with(1, words)?;
    }
    scene.minik8s(&["apply", "-f", "-"]).input("").run().await?.failed_with(1, &["no objects"])?;
    let elsewhere = idle("bad", "").replace("name: bad", "name: bad, namespace: nowhere");
    let ran = scene.minik8s(&["apply", "-f", "-"]).input(elsewhere).run().await?;
    ran.failed_with(1, &["nowhere", "not found"])?;

    // A server that is not there.
    let config = tempfile::NamedTempFile::new()?;
    let text = std::fs::read_to_string(scene.cluster().kubeconfig())?;
    let server = text.lines().find_map(|l| l.trim().strip_prefix("server: ")).unwrap_or_default();
    std::fs::write(config.path(), text.replace(server, "https://127.0.0.1:1"))?;
    let path = config.path().to_string_lossy().into_owned();
    let ran = scene.minik8s(&["--kubeconfig", &path, "get", "pods"]).run().await?;
    ran.failed_with(1, &["cannot be reached", "is it running?"])?;
    // Words that are no command are the caller's mistake, which has a code of its own.
    scene.minik8s(&["gte", "pods"]).run().await?.failed_with(2, &["gte"])?;
    Ok(())
}
