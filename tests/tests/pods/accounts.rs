//! Pods that talk to the API server.

use anyhow::{Context, ensure};
use minik8s_tests::Scene;
use serde_json::Value;

/// The pod waits, so that questions can be asked from within.
const MANIFEST: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: { name: reader }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: pods }
rules:
- { apiGroups: [""], resources: [pods], verbs: [get, list] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: reader }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: pods }
subjects: [{ kind: ServiceAccount, name: reader, namespace: NAMESPACE }]
---
apiVersion: v1
kind: Pod
metadata: { name: asks }
spec:
  serviceAccountName: reader
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sleep, "1000"]
    env: [{ name: SERVER, valueFrom: { fieldRef: { fieldPath: status.hostIP } } }]
    volumeMounts: [{ name: machine, mountPath: /host, readOnly: true }]
  volumes: [{ name: machine, hostPath: { path: /usr } }]
---
apiVersion: v1
kind: Pod
metadata: { name: mute }
spec:
  automountServiceAccountToken: false
  containers:
  - { name: main, image: localhost/busybox:1, command: [sleep, "1000"] }
"#;

const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A pod asks with its token, and may do what its account may, and no more; the token goes with the pod.
pub(super) async fn asks(scene: Scene) -> anyhow::Result<()> {
    let namespace = scene.namespace().to_owned();
    scene.apply(&MANIFEST.replace("NAMESPACE", &namespace)).await?;
    scene.until_ready("asks").await?;
    let ask = async |path: &str| {
        // The machine's curl, with its own libraries: the image has nothing that checks certificates.
        let script = format!(
            "set -- /host/lib/*-linux-gnu/ld-linux*.so.?; folders=$(echo /host/lib/*-linux-gnu | tr ' ' ':'); \
             \"$1\" --library-path \"$folders\" /host/bin/curl -s --cacert {FOLDER}/ca.crt \
             -H \"Authorization: Bearer $(cat {FOLDER}/token)\" \"https://$SERVER:6443{path}\" 2>&1"
        );
        let answer = scene.sh("asks", "main", &script).await?;
        serde_json::from_str::<Value>(&answer).with_context(|| answer.clone())
    };
    let pods = ask(&format!("/api/v1/namespaces/{namespace}/pods/asks")).await?;
    ensure!(pods["spec"]["serviceAccountName"] == "reader", "{pods}");
    let secrets = ask(&format!("/api/v1/namespaces/{namespace}/secrets")).await?;
    ensure!(secrets["code"] == 403, "{secrets}");
    let elsewhere = ask("/api/v1/namespaces/kube-system/pods").await?;
    ensure!(elsewhere["code"] == 403, "{elsewhere}");
    let told = scene.sh("asks", "main", &format!("cat {FOLDER}/namespace {FOLDER}/ca.crt")).await?;
    ensure!(told.starts_with(&namespace) && told.contains("BEGIN CERTIFICATE"), "{told}");

    scene.until_ready("mute").await?;
    let nothing = scene.sh("mute", "main", &format!("ls {FOLDER} 2>&1; true")).await?;
    ensure!(nothing.contains("No such file"), "{nothing}");

    let token = scene.sh("asks", "main", &format!("cat {FOLDER}/token")).await?;
    let own = ["get", "pods", "--token", token.trim()];
    let before = as_nobody(&scene, &own).await?;
    ensure!(before.code == 0, "{}", before.stderr);
    scene.kubectl(&["delete", "pod", "asks", "--grace-period=0", "--force"]).ok().await?;
    scene.until_gone("asks").await?;
    let after = as_nobody(&scene, &own).await?;
    ensure!(after.code != 0 && after.stderr.contains("Unauthorized"), "{}{}", after.stdout, after.stderr);
    Ok(())
}

/// kubectl, which shows no certificate.
async fn as_nobody(scene: &Scene, words: &[&str]) -> anyhow::Result<minik8s_tests::Ran> {
    let server = "jsonpath={.clusters[0].cluster.server}";
    let server = scene.kubectl(&["config", "view", "--minify", "-o", server]).ok().await?;
    let mut all = vec!["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", "--server", server.trim()];
    all.extend(["--namespace", scene.namespace()]);
    all.extend(words);
    minik8s_tests::Program::new("kubectl").args(all).run().await
}
