//! What a container gets to know.

use std::collections::BTreeMap;

use anyhow::ensure;
use minik8s_tests::{Scene, waiting_reason};

const SOURCES: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: { name: settings }
data: { colour: green, size: "10" }
---
apiVersion: v1
kind: Secret
metadata: { name: login }
stringData: { user: me, password: "p w" }
---
apiVersion: v1
kind: Pod
metadata:
  name: env
  labels: { app: env, tier: back }
  annotations: { note: hello }
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: localhost/busybox:1
    command: [env]
    resources: { limits: { cpu: 500m, memory: 64Mi } }
    envFrom:
    - configMapRef: { name: settings }
      prefix: CM_
    - secretRef: { name: login }
    - configMapRef: { name: absent, optional: true }
    env:
    - { name: LITERAL, value: "a b" }
    - { name: EXPANDED, value: "<$(LITERAL)> $(UNKNOWN) $$(LITERAL)" }
    - { name: user, value: overridden }
    - { name: NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
    - { name: NAMESPACE, valueFrom: { fieldRef: { fieldPath: metadata.namespace } } }
    - { name: TIER, valueFrom: { fieldRef: { fieldPath: "metadata.labels['tier']" } } }
    - { name: NOTE, valueFrom: { fieldRef: { fieldPath: "metadata.annotations['note']" } } }
    - { name: UID_, valueFrom: { fieldRef: { fieldPath: metadata.uid } } }
    - { name: NODE, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
    - { name: IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
    - { name: HOST_IP, valueFrom: { fieldRef: { fieldPath: status.hostIP } } }
    - { name: CPU, valueFrom: { resourceFieldRef: { resource: limits.cpu, divisor: 1m } } }
    - { name: MEMORY, valueFrom: { resourceFieldRef: { resource: limits.memory, divisor: 1Mi } } }
    - { name: COLOUR, valueFrom: { configMapKeyRef: { name: settings, key: colour } } }
    - { name: PASSWORD, valueFrom: { secretKeyRef: { name: login, key: password } } }
    - { name: ABSENT, valueFrom: { configMapKeyRef: { name: settings, key: absent, optional: true } } }
"#;

pub(super) async fn environment(scene: Scene) -> anyhow::Result<()> {
    scene.apply(SOURCES).await?;
    let pod = scene.until_ended("env").await?;
    let status = pod.status.clone().unwrap_or_default();
    let text = scene.logs("env", "main").await?;
    let env: BTreeMap<&str, &str> = text.lines().filter_map(|l| l.split_once('=')).collect();
    let own = |value: &Option<String>| value.clone().unwrap_or_default();
    for (name, value) in [
        ("LITERAL", "a b"),
        ("EXPANDED", "<a b> $(UNKNOWN) $(LITERAL)"),
        ("user", "overridden"),
        ("password", "p w"),
        ("CM_colour", "green"),
        ("CM_size", "10"),
        ("NAME", "env"),
        ("NAMESPACE", scene.namespace()),
        ("TIER", "back"),
        ("NOTE", "hello"),
        ("UID_", &own(&pod.metadata.uid)),
        ("NODE", "n1"),
        ("IP", &own(&status.pod_ip)),
        ("HOST_IP", &own(&status.host_ip)),
        ("CPU", "500"),
        ("MEMORY", "64"),
        ("COLOUR", "green"),
        ("PASSWORD", "p w"),
        ("HOSTNAME", "env"),
    ] {
        ensure!(env.get(name) == Some(&value), "{name} is {:?}, not {value:?}\n{text}", env.get(name));
    }
    ensure!(!env.contains_key("ABSENT"), "{text}");
    Ok(())
}

pub(super) async fn process(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: process }
spec:
  restartPolicy: Never
  securityContext: { runAsUser: 1000, runAsGroup: 2000, fsGroup: 3000, supplementalGroups: [4000] }
  containers:
  - name: both
    image: localhost/busybox:1
    command: [echo, "$(WHO)"]
    args: ["and $(WHO)", "$$(WHO)"]
    env: [{ name: WHO, value: me }]
  - name: args
    image: localhost/busybox:1
    args: [echo, only arguments]
  - name: folder
    image: localhost/busybox:1
    workingDir: /made/for/this
    command: [pwd]
  - name: user
    image: localhost/busybox:1
    command: [sh, -c, "id -u; id -g; id -G | tr ' ' '\n' | sort | tr '\n' ' '; touch /data/mine && stat -c %g /data/mine"]
    volumeMounts: [{ name: data, mountPath: /data }]
  - name: root
    image: localhost/busybox:1
    securityContext: { runAsUser: 0, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
    command: [sh, -c, "id -u; touch /x 2>&1; chown 1 /data 2>&1; grep CapEff /proc/1/status"]
    volumeMounts: [{ name: data, mountPath: /data }]
  volumes: [{ name: data, emptyDir: {} }]
"#;
    scene.apply(manifest).await?;
    scene.until_ended("process").await?;
    for (name, expected) in [
        ("both", "me and me $(WHO)\n"),
        ("args", "only arguments\n"),
        ("folder", "/made/for/this\n"),
        ("user", "1000\n2000\n2000 3000 4000 3000\n"),
        (
            "root",
            "0\ntouch: /x: Read-only file system\nchown: /data: Operation not permitted\nCapEff:\t0000000000000000\n",
        ),
    ] {
        let printed = scene.logs("process", name).await?;
        ensure!(printed == expected, "{name} printed {printed:?}, not {expected:?}");
    }
    Ok(())
}

pub(super) async fn missing(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: waits }
spec:
  containers:
  - name: env
    image: localhost/busybox:1
    command: [sleep, "3600"]
    env: [{ name: COLOUR, valueFrom: { configMapKeyRef: { name: later, key: colour } } }]
---
apiVersion: v1
kind: Pod
metadata: { name: volume }
spec:
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sleep, "3600"]
    volumeMounts: [{ name: later, mountPath: /etc/later }]
  volumes: [{ name: later, configMap: { name: later } }]
"#;
    scene.apply(manifest).await?;
    let told = |p: &_| waiting_reason(p, "env") == Some("CreateContainerConfigError");
    scene.until("waits", "to say what it waits for", told).await?;
    scene.until("volume", "to wait", |p| waiting_reason(p, "main") == Some("ContainerCreating")).await?;
    scene
        .apply("apiVersion: v1\nkind: ConfigMap\nmetadata: { name: later }\ndata: { colour: blue }\n")
        .await?;
    for (pod, container, script) in
        [("waits", "env", "echo $COLOUR"), ("volume", "main", "cat /etc/later/colour")]
    {
        scene.until_ready(pod).await?;
        let seen = scene.sh(pod, container, script).await?;
        ensure!(seen.trim() == "blue", "{pod} has {seen:?}");
    }
    Ok(())
}
