//! Making, changing and removing objects.

use std::fs;

use anyhow::ensure;
use minik8s_tests::Scene;

use crate::idle;

fn map(name: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: {name} }}\ndata: {{ {data} }}\n")
}

pub(super) async fn apply(scene: Scene) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("1.yaml"), format!("{}---\n{}", map("one", "a: b"), map("two", "a: b")))?;
    fs::write(folder.path().join("2.yml"), map("three", "a: b"))?;
    let json = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"four"},"data":{"a":"b"}}"#;
    fs::write(folder.path().join("3.json"), json)?;
    fs::write(folder.path().join("notes.txt"), "no manifest: at all")?;
    let path = folder.path().to_string_lossy().into_owned();
    let printed = scene.minik8s(&["apply", "-f", &path, "--dry-run"]).ok().await?;
    ensure!(printed.contains("(dry run)"), "{printed}");
    let none = scene.minik8s(&["get", "configmap", "one"]).run().await?;
    none.failed_with(1, &["not found"])?;
    let printed = scene.minik8s(&["apply", "-f", &path]).ok().await?;
    let names = ["one", "two", "three", "four"];
    let expected: String = names.iter().map(|n| format!("configmap/{n} created\n")).collect();
    ensure!(printed == expected, "{printed}");
    let printed = scene.minik8s(&["apply", "-f", &path]).ok().await?;
    ensure!(printed == expected.replace("created", "unchanged"), "{printed}");

    // A key that goes from the manifest goes from the object; one that someone else has set stays.
    scene.apply(&map("one", "a: b, c: d")).await?;
    scene.kubectl(&["patch", "configmap", "one", "-p", r#"{"data":{"other":"x"}}"#]).ok().await?;
    let printed = scene.minik8s(&["apply", "-f", "-"]).input(map("one", "a: e")).ok().await?;
    ensure!(printed == "configmap/one configured\n", "{printed}");
    let data = scene.kubectl(&["get", "configmap", "one", "-o", "jsonpath={.data}"]).ok().await?;
    ensure!(data == r#"{"a":"e","other":"x"}"#, "{data}");
    // What someone else has set is taken over only by who insists.
    let take = || map("one", "a: e, other: \"y\"");
    let refused = scene.minik8s(&["apply", "-f", "-"]).input(take()).run().await?;
    refused.failed_with(1, &["conflict with \"kubectl-patch\"", ".data.other", "--force-conflicts"])?;
    let printed = scene.minik8s(&["apply", "--force-conflicts", "-f", "-"]).input(take()).ok().await?;
    ensure!(printed == "configmap/one configured\n", "{printed}");
    let data = scene.kubectl(&["get", "configmap", "one", "-o", "jsonpath={.data}"]).ok().await?;
    ensure!(data == r#"{"a":"e","other":"y"}"#, "{data}");
    scene.minik8s(&["delete", "-f", &path]).ok().await?;
    let left = scene.minik8s(&["get", "configmaps", "-o", "name"]).ok().await?;
    ensure!(!names.iter().any(|n| left.contains(&format!("/{n}\n"))), "{left}");
    Ok(())
}

pub(super) async fn create_and_delete(scene: Scene) -> anyhow::Result<()> {
    let create = |text: &str| scene.minik8s(&["create", "-f", "-"]).input(text);
    ensure!(create(&idle("one", "app: x")).ok().await? == "pod/one created\n");
    create(&idle("one", "app: x")).run().await?.failed_with(1, &["AlreadyExists", "\"one\""])?;
    let generated = idle("one", "app: x").replace("name: one", "generateName: gen-");
    create(&generated).ok().await?;
    create(&generated).ok().await?;
    create(&idle("other", "app: y")).ok().await?;
    let names = scene.minik8s(&["get", "pods", "-o", "name"]).ok().await?;
    ensure!(names.lines().filter(|l| l.starts_with("pod/gen-")).count() == 2, "{names}");

    // It waits until the pods are gone.
    let deleted = scene.minik8s(&["delete", "pods", "-l", "app=x"]).ok().await?;
    ensure!(deleted.lines().count() == 3 && deleted.contains("pod \"one\" deleted\n"), "{deleted}");
    let names = scene.minik8s(&["get", "pods", "-o", "name"]).ok().await?;
    ensure!(names == "pod/other\n", "{names}");
    scene.minik8s(&["delete", "pod", "one"]).run().await?.failed_with(1, &["NotFound", "\"one\""])?;
    scene.minik8s(&["delete", "pod", "one", "--ignore-not-found"]).ok().await?;
    scene.minik8s(&["delete", "pods"]).run().await?.failed_with(1, &["--all"])?;
    scene.minik8s(&["delete", "pod/other", "--force"]).ok().await?;
    scene.minik8s(&["get", "pod", "other"]).run().await?.failed_with(1, &["NotFound"])?;
    Ok(())
}
