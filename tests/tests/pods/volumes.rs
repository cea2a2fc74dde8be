//! Volumes.

use anyhow::ensure;
use minik8s_tests::Scene;

pub(super) async fn folders(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: folders }
spec:
  containers:
  - name: one
    image: localhost/busybox:1
    command: [sleep, "3600"]
    volumeMounts:
    - { name: disk, mountPath: /disk }
    - { name: memory, mountPath: /memory }
    - { name: host, mountPath: /host }
    - { name: disk, mountPath: /part, subPath: deep/part }
  - name: other
    image: localhost/busybox:1
    command: [sleep, "3600"]
    volumeMounts:
    - { name: disk, mountPath: /disk, readOnly: true }
    - { name: memory, mountPath: /memory }
    - { name: file, mountPath: /file, readOnly: true }
  volumes:
  - { name: disk, emptyDir: {} }
  - { name: memory, emptyDir: { medium: Memory, sizeLimit: 1Mi } }
  - { name: host, hostPath: { path: /run/e2e-folders, type: DirectoryOrCreate } }
  - { name: file, hostPath: { path: /proc/version, type: File } }
"#;
    scene.apply(manifest).await?;
    scene.until_ready("folders").await?;
    scene
        .sh("folders", "one", "echo 1 > /disk/a; echo 2 > /memory/b; echo 3 > /host/c; echo 4 > /part/d")
        .await?;
    let script =
        "cat /disk/a /memory/b /disk/deep/part/d; touch /disk/x 2>&1; grep -c ' /memory tmpfs ' /proc/mounts";
    let seen = scene.sh("folders", "other", script).await?;
    ensure!(seen == "1\n2\n4\ntouch: /disk/x: Read-only file system\n1\n", "the other sees {seen:?}");
    let full = scene.exec("folders", "one", &["dd", "if=/dev/zero", "of=/memory/big", "bs=1M", "count=4"]);
    ensure!(full.run().await?.code != 0, "4 MiB fit into 1 MiB");
    let on_node = scene.cluster().node_sh("cat /run/e2e-folders/c").await?;
    ensure!(on_node == "3\n", "the node sees {on_node:?}");
    // What is in a container's own file system goes with the container; volumes stay.
    scene.sh("folders", "one", "touch /own").await?;
    scene.kill(&scene.running("folders", "one").await?).await?;
    let again = |p: &_| minik8s_tests::restarts(p, "one") == 1 && minik8s_tests::is_ready(p);
    scene.until("folders", "to be ready again", again).await?;
    let seen = scene.sh("folders", "one", "cat /disk/a /memory/b /host/c; ls /own 2>&1 || :").await?;
    ensure!(seen == "1\n2\n3\nls: /own: No such file or directory\n", "the restarted one sees {seen:?}");
    scene.minik8s(&["delete", "pod", "folders", "--now"]).ok().await?;
    let on_node = scene.cluster().node_sh("cat /run/e2e-folders/c; rm -r /run/e2e-folders").await?;
    ensure!(on_node == "3\n", "what is the node's stays: {on_node:?}");
    Ok(())
}

pub(super) async fn files(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: ConfigMap
metadata: { name: settings }
data: { colour: green, size: "10" }
binaryData: { raw: AAEC }
---
apiVersion: v1
kind: Secret
metadata: { name: login }
stringData: { user: me }
---
apiVersion: v1
kind: Pod
metadata: { name: files, labels: { app: files } }
spec:
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sleep, "3600"]
    resources: { limits: { memory: 64Mi } }
    volumeMounts:
    - { name: all, mountPath: /all }
    - { name: some, mountPath: /some }
    - { name: all, mountPath: /one/file, subPath: colour }
    - { name: login, mountPath: /login }
    - { name: self, mountPath: /self }
    - { name: mixed, mountPath: /mixed }
  volumes:
  - { name: all, configMap: { name: settings } }
  - name: some
    configMap: { name: settings, defaultMode: 0440, items: [{ key: size, path: nested/size, mode: 0400 }] }
  - { name: login, secret: { secretName: login } }
  - name: self
    downwardAPI:
      items:
      - { path: name, fieldRef: { fieldPath: metadata.name } }
      - { path: labels, fieldRef: { fieldPath: metadata.labels } }
      - { path: memory, resourceFieldRef: { containerName: main, resource: limits.memory } }
  - name: mixed
    projected:
      sources:
      - { configMap: { name: settings, items: [{ key: colour, path: c }] } }
      - { secret: { name: login, items: [{ key: user, path: u }] } }
"#;
    scene.apply(manifest).await?;
    scene.until_ready("files").await?;
    for (script, expected) in [
        ("cat /all/colour /all/size", "green10"),
        ("md5sum < /all/raw", "b95f67f61ebb03619622d798f45fc2d3  -\n"),
        ("cat /some/nested/size; stat -L -c %a /some/nested/size; ls /some", "10400\nnested\n"),
        ("cat /one/file", "green"),
        ("cat /login/user; grep -c ' /login tmpfs ' /proc/mounts", "me1\n"),
        ("cat /self/name; echo; cat /self/labels; echo; cat /self/memory", "files\napp=\"files\"\n67108864"),
        ("cat /mixed/c /mixed/u", "greenme"),
        ("touch /all/x 2>&1 || :", "touch: /all/x: Read-only file system\n"),
    ] {
        let seen = scene.sh("files", "main", script).await?;
        ensure!(seen == expected, "{script}: {seen:?}, not {expected:?}");
    }
    Ok(())
}
