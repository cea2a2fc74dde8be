//! What Helm asks of an API server, request by request: a release is a secret that is labelled with its state, and the
//! chart's objects are created, patched and deleted as it goes from revision to revision.

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{Method, Request};
use minik8s_tests::Scene;
use serde_json::{Value, json};

const MERGE: &str = "application/strategic-merge-patch+json";

struct Helm {
    kube: kube::Client,
    namespace: String,
}

impl Helm {
    /// Sends a request: its status code and its answer.
    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> anyhow::Result<(u16, Value)> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", "application/json")
            .header("user-agent", "Helm/3.19.0")
            .header("content-type", content_type)
            .body(kube::client::Body::from(body))?;
        let answer = self.kube.send(request).await?;
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect_bytes().await?;
        Ok((code, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    async fn get(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        self.send(Method::GET, path, "application/json", &Value::Null).await
    }

    /// Sends a request that must be answered with `code`.
    async fn must(&self, code: u16, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let content_type = if method == Method::PATCH { MERGE } else { "application/json" };
        let (got, answer) = self.send(method.clone(), path, content_type, body).await?;
        ensure!(got == code, "{method} {path}: {got}, not {code}: {answer}");
        Ok(answer)
    }

    fn secrets(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    fn collection(&self, object: &Value) -> anyhow::Result<String> {
        let plural = format!("{}s", object["kind"].as_str().context("a kind")?.to_lowercase());
        let version = object["apiVersion"].as_str().context("a version")?;
        let prefix = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
        Ok(format!("{prefix}/namespaces/{}/{plural}", self.namespace))
    }

    fn place(&self, object: &Value) -> anyhow::Result<String> {
        Ok(format!("{}/{}", self.collection(object)?, object["metadata"]["name"].as_str().context("a name")?))
    }

    fn record(&self, revision: u32, status: &str) -> Value {
        let release = json!({ "name": "web", "version": revision, "info": { "status": status } }).to_string();
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "helm.sh/release.v1",
            "metadata": {
                "name": format!("sh.helm.release.v1.web.v{revision}"),
                "namespace": self.namespace,
                "labels": { "name": "web", "owner": "helm", "status": status, "version": revision.to_string() },
            },
            "data": { "release": BASE64_STANDARD.encode(BASE64_STANDARD.encode(release)) },
        })
    }

    /// Has the revision recorded as new, or in another state.
    async fn note(&self, revision: u32, status: &str, new: bool) -> anyhow::Result<()> {
        let record = self.record(revision, status);
        match new {
            true => self.must(201, Method::POST, &self.secrets(), &record).await?,
            false => self.must(200, Method::PUT, &self.place(&record)?, &record).await?,
        };
        Ok(())
    }

    /// The revisions that are in that state.
    async fn revisions(&self, status: &str) -> anyhow::Result<Vec<String>> {
        let selector = format!("name%3Dweb%2Cowner%3Dhelm%2Cstatus%3D{status}");
        let (code, list) = self.get(&format!("{}?labelSelector={selector}", self.secrets())).await?;
        ensure!(code == 200, "{code}: {list}");
        let items = list["items"].as_array().context("items")?;
        Ok(items
            .iter()
            .filter_map(|i| i["metadata"]["labels"]["version"].as_str().map(str::to_owned))
            .collect())
    }

    /// Brings the objects from those of one revision to those of the next.
    async fn go(&self, old: &[Value], new: &[Value]) -> anyhow::Result<()> {
        for object in new {
            let place = self.place(object)?;
            if old.iter().any(|o| self.place(o).is_ok_and(|p| p == place)) {
                self.must(200, Method::GET, &place, &Value::Null).await?;
                let mut patch = object.clone();
                let fields = patch.as_object_mut().context("an object")?;
                fields.retain(|name, _| name != "apiVersion" && name != "kind");
                self.must(200, Method::PATCH, &format!("{place}?fieldManager=helm"), &patch).await?;
            } else {
                let path = format!("{}?fieldManager=helm", self.collection(object)?);
                self.must(201, Method::POST, &path, object).await?;
            }
        }
        for object in old {
            let place = self.place(object)?;
            if !new.iter().any(|n| self.place(n).is_ok_and(|p| p == place)) {
                self.remove(&place).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, place: &str) -> anyhow::Result<()> {
        let options =
            json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background" });
        self.must(200, Method::DELETE, place, &options).await?;
        Ok(())
    }
}

fn chart(image: &str, replicas: u32, second: bool) -> Vec<Value> {
    let labels = json!({ "app.kubernetes.io/name": "web", "app.kubernetes.io/managed-by": "Helm" });
    let metadata = json!({
        "name": "web", "labels": labels,
        "annotations": { "meta.helm.sh/release-name": "web" },
    });
    let mut objects = vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": { "selector": { "app": "web" }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "serviceAccountName": "web", "containers": [
                        { "name": "web", "image": image, "ports": [{ "name": "http", "containerPort": 80 }] },
                    ] },
                },
            },
        }),
    ];
    if second {
        let mut config =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "a": "1" } });
        config["metadata"]["name"] = "extra".into();
        objects.push(config);
    }
    objects
}

pub(super) async fn release(scene: Scene) -> anyhow::Result<()> {
    let helm = Helm { kube: scene.kube(), namespace: scene.namespace().to_owned() };
    let (code, version) = helm.get("/version").await?;
    ensure!(code == 200 && version["gitVersion"].as_str().is_some_and(|v| v.starts_with("v1.")), "{version}");

    // Install.
    ensure!(helm.revisions("deployed").await?.is_empty());
    let first = chart("web:1", 0, false);
    for object in &first {
        let place = helm.place(object)?;
        let (code, status) = helm.get(&place).await?;
        ensure!(code == 404 && status["reason"] == "NotFound", "{place}: {code} {status}");
    }
    helm.note(1, "pending-install", true).await?;
    helm.must(409, Method::POST, &helm.secrets(), &helm.record(1, "pending-install")).await?;
    helm.go(&[], &first).await?;
    helm.note(1, "deployed", false).await?;
    ensure!(helm.revisions("deployed").await? == ["1"]);

    // Upgrade: another image, and an object more.
    let second = chart("web:2", 0, true);
    helm.note(2, "pending-upgrade", true).await?;
    helm.go(&first, &second).await?;
    helm.note(1, "superseded", false).await?;
    helm.note(2, "deployed", false).await?;
    let deployment = helm.place(&second[2])?;
    let (_, now) = helm.get(&deployment).await?;
    let containers = now["spec"]["template"]["spec"]["containers"].as_array().context("containers")?;
    ensure!(containers.len() == 1 && containers[0]["image"] == "web:2", "{now}");
    ensure!(now["metadata"]["generation"] == 2, "{}", now["metadata"]);
    let managers = now["metadata"]["managedFields"].as_array().context("managed fields")?;
    ensure!(managers.iter().all(|m| m["manager"] == "helm" && m["operation"] == "Update"), "{managers:?}");

    // Rollback.
    helm.note(3, "pending-rollback", true).await?;
    helm.go(&second, &first).await?;
    helm.note(2, "superseded", false).await?;
    helm.note(3, "deployed", false).await?;
    let (_, now) = helm.get(&deployment).await?;
    ensure!(now["spec"]["template"]["spec"]["containers"][0]["image"] == "web:1", "{now}");
    ensure!(helm.get(&helm.place(&second[3])?).await?.0 == 404);
    ensure!(helm.revisions("superseded").await? == ["1", "2"]);

    // Uninstall.
    helm.note(3, "uninstalling", false).await?;
    for object in first.iter().rev() {
        let place = helm.place(object)?;
        helm.remove(&place).await?;
        ensure!(helm.get(&place).await?.0 == 404, "{place} is there");
    }
    for revision in 1..=3 {
        helm.remove(&helm.place(&helm.record(revision, ""))?).await?;
    }
    let (_, left) = helm.get(&format!("{}?labelSelector=owner%3Dhelm", helm.secrets())).await?;
    ensure!(left["items"] == json!([]), "{left}");
    Ok(())
}
