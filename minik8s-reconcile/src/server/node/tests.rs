use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use minik8s_api::Resource;
use serde_json::{Value, json};

use crate::ApiServer;
use crate::error::ApiError;
use crate::request::{DeleteParams, ListParams, Patch, User, WatchParams};
use crate::server::authorizer::{Action, Union};
use crate::server::rbac;
use crate::storage::memory::MemoryStorage;

fn node(name: &str) -> User {
    User::authenticated(&format!("system:node:{name}"), vec!["system:nodes".to_owned()])
}

fn of<K: Resource>(body: Value) -> K {
    serde_json::from_value(body).expect("an object")
}

fn pod(name: &str, node: &str, volumes: Value) -> Pod {
    of(json!({
        "metadata": { "name": name },
        "spec": {
            "nodeName": node, "serviceAccountName": name, "volumes": volumes,
            "containers": [{ "name": "c", "image": "i", "env": [
                { "name": "E", "valueFrom": { "secretKeyRef": { "name": format!("{name}-env"), "key": "k" } } },
            ] }],
        },
    }))
}

async fn world() -> ApiServer {
    let storage = Arc::new(MemoryStorage::new());
    let access = Union::of_cluster(storage.clone()).await.expect("an authorizer");
    let server = ApiServer::builder().authorizer(access).build(storage);
    server.bootstrap().await.expect("namespaces");
    let client = server.client();
    rbac::bootstrap(&client).await.expect("roles");
    let named = |name: &str| json!({ "metadata": { "name": name } });
    for name in ["p1", "p2"] {
        let place = client.namespaced::<Secret>("default");
        place.create(&of(named(&format!("{name}-env")))).await.expect("a secret");
        place.create(&of(named(&format!("{name}-vol")))).await.expect("a secret");
        client.namespaced::<ConfigMap>("default").create(&of(named(name))).await.expect("a config map");
        client.namespaced::<ServiceAccount>("default").create(&of(named(name))).await.expect("an account");
        let capacity = json!({ "storage": "1Gi" });
        let volume = json!({
            "metadata": { "name": format!("pv-{name}") },
            "spec": { "capacity": capacity, "accessModes": ["ReadWriteOnce"], "hostPath": { "path": "/x" } },
        });
        client.all::<PersistentVolume>().create(&of(volume)).await.expect("a volume");
        let claim = json!({
            "metadata": { "name": name },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": { "requests": capacity },
                "volumeName": format!("pv-{name}"),
            },
        });
        client.namespaced::<PersistentVolumeClaim>("default").create(&of(claim)).await.expect("a claim");
    }
    for n in ["n1", "n2"] {
        client.all::<Node>().create(&of(named(n))).await.expect("a node");
        let name = format!("p{}", &n[1..]);
        let volumes = json!([
            { "name": "s", "secret": { "secretName": format!("{name}-vol") } },
            { "name": "c", "projected": { "sources": [{ "configMap": { "name": name } }] } },
            { "name": "v", "persistentVolumeClaim": { "claimName": name } },
        ]);
        client.namespaced::<Pod>("default").create(&pod(&name, n, volumes)).await.expect("a pod");
    }
    server
}

fn code(result: Result<impl Sized, ApiError>) -> u16 {
    result.map_or_else(|e| e.code(), |_| 200)
}

#[tokio::test]
async fn a_node_reads_what_its_pods_need_and_nothing_of_others() {
    let server = world().await;
    let client = server.client().user(node("n1"));
    let here = "default";
    for (name, expected) in [("1", 200), ("2", 403)] {
        let name = format!("p{name}");
        let secrets = client.namespaced::<Secret>(here);
        assert_eq!(code(secrets.get(&format!("{name}-env")).await), expected);
        assert_eq!(code(secrets.get(&format!("{name}-vol")).await), expected);
        let one = ListParams::fields(format!("metadata.name={name}-vol"));
        assert_eq!(code(secrets.list(&one).await), expected);
        assert_eq!(code(client.namespaced::<ConfigMap>(here).get(&name).await), expected);
        assert_eq!(code(client.namespaced::<PersistentVolumeClaim>(here).get(&name).await), expected);
        assert_eq!(code(client.all::<PersistentVolume>().get(&format!("pv-{name}")).await), expected);
        assert_eq!(code(client.namespaced::<Pod>(here).get(&name).await), expected);
        let status = Patch::merge(&json!({ "status": { "phase": "Running" } }));
        assert_eq!(code(client.namespaced::<Pod>(here).patch_status(&name, status).await), expected);
    }
    let all = ListParams::default();
    assert_eq!(code(client.all::<Secret>().list(&all).await), 403);
    assert_eq!(code(client.namespaced::<Secret>(here).list(&all).await), 403);
    assert_eq!(code(client.all::<ConfigMap>().list(&all).await), 403);
    assert_eq!(code(client.all::<PersistentVolume>().list(&all).await), 403);
    assert_eq!(code(client.all::<ServiceAccount>().list(&all).await), 403);
    assert_eq!(code(client.all::<Pod>().list(&all).await), 403);
    assert_eq!(code(client.all::<Pod>().list(&ListParams::fields("spec.nodeName=n2")).await), 403);
    assert_eq!(code(client.all::<Pod>().list(&ListParams::fields("spec.nodeName!=n1")).await), 403);
    assert_eq!(code(client.all::<Pod>().list(&ListParams::fields("spec.nodeName=n1")).await), 200);
    let watch = WatchParams { field_selector: "spec.nodeName=n1".to_owned(), ..WatchParams::default() };
    assert_eq!(code(client.all::<Pod>().watch(&watch).await), 200);
    // The way to the pods of another node is no secret.
    assert_eq!(code(client.all::<Node>().list(&all).await), 200);
    let error = client.namespaced::<Secret>(here).get("p2-vol").await.expect_err("not its own");
    assert_eq!(
        error.to_string(),
        "secrets \"p2-vol\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API group \"\" in \
         the namespace \"default\": no relationship found between node 'n1' and this object"
    );
    // With the pod goes the right.
    server.client().namespaced::<Pod>(here).delete("p1", &DeleteParams::now()).await.expect("a deletion");
    let gone = || async { code(client.namespaced::<Secret>(here).get("p1-vol").await) == 403 };
    while !gone().await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_node_learns_of_the_end_of_its_pods_and_not_of_the_beginning_of_others() {
    let server = world().await;
    let pods = server.client().user(node("n1")).namespaced::<Pod>("default");
    let all = server.client().namespaced::<Pod>("default");
    for round in 0..20 {
        let name = format!("new-{round}");
        // However quick the node is.
        all.create(&pod(&name, if round % 2 == 0 { "n2" } else { "" }, json!([]))).await.expect("a pod");
        assert_eq!(code(pods.get(&name).await), 403);
        let named = ListParams::fields(format!("metadata.name={name}"));
        assert_eq!(code(pods.list(&named).await), 403);
    }
    all.delete("p1", &DeleteParams::now()).await.expect("a deletion");
    server.authorizer.settle().await.expect("a storage");
    assert_eq!(code(pods.get("p1").await), 404);
    let status = Patch::merge(&json!({ "status": { "phase": "Running" } }));
    assert_eq!(code(pods.patch_status("p1", status).await), 404);
    assert_eq!(code(pods.delete("p1", &DeleteParams::now()).await), 404);
}

#[tokio::test]
async fn a_node_writes_its_own_things_alone() {
    let server = world().await;
    let client = server.client().user(node("n1"));
    let pods = client.namespaced::<Pod>("default");
    let refused = |result: Result<(), ApiError>, words: &str| {
        let error = result.expect_err(words);
        assert!(error.code() == 403 && error.to_string().contains(words), "{error}");
    };
    let create = async |pod: &Pod| pods.create(pod).await.map(drop);
    refused(create(&pod("x", "n1", json!([]))).await, "can only create mirror pods");
    let mirror = |name: &str, node: &str, spec: Value| {
        let mut body = json!({
            "metadata": { "name": name, "annotations": { "kubernetes.io/config.mirror": "x" } },
            "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] },
        });
        body["spec"].as_object_mut().expect("a map").extend(spec.as_object().cloned().expect("a map"));
        of::<Pod>(body)
    };
    create(&mirror("m", "n1", json!({}))).await.expect("a mirror pod");
    refused(create(&mirror("o", "n2", json!({}))).await, "spec.nodeName set to itself");
    refused(
        create(&mirror("o", "n1", json!({ "serviceAccountName": "p2" }))).await,
        "can not create pods that reference a service account",
    );
    let steals = json!({ "volumes": [{ "name": "s", "secret": { "secretName": "p2-vol" } }] });
    refused(create(&mirror("o", "n1", steals)).await, "can not create pods that reference secrets");
    let delete = async |name: &str| pods.delete(name, &DeleteParams::now()).await;
    refused(delete("p2").await, "can only delete pods with spec.nodeName set to itself");
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "p2" } });
    let eviction = pods.create_subresource("p2", "eviction", eviction.to_string().into()).await;
    refused(eviction, "can only delete pods with spec.nodeName set to itself");
    delete("m").await.expect("its own");
    let label = Patch::merge(&json!({ "metadata": { "labels": { "a": "b" } } }));
    refused(
        pods.patch_status("p1", label.clone()).await.map(drop),
        "cannot update labels through pod status",
    );
    refused(pods.patch("p1", label).await.map(drop), "cannot patch resource \"pods\"");

    let nodes = client.all::<Node>();
    let patch = async |name: &str, body: Value| nodes.patch(name, Patch::merge(&body)).await.map(drop);
    let labels = |key: &str| json!({ "metadata": { "labels": { key: "v" } } });
    for key in [
        "mine",
        "example.com/a",
        "kubernetes.io/hostname",
        "x.node.kubernetes.io/a",
        "kubelet.kubernetes.io/b",
    ] {
        patch("n1", labels(key)).await.expect(key);
    }
    for key in [
        "node-restriction.kubernetes.io/a",
        "x.node-restriction.kubernetes.io/a",
        "kubernetes.io/other",
        "node-role.kubernetes.io/control-plane",
        "x.k8s.io/a",
    ] {
        refused(patch("n1", labels(key)).await, &format!("is not allowed to modify labels: {key}"));
    }
    let taint = json!({ "spec": { "taints": [{ "key": "a", "effect": "NoSchedule" }] } });
    refused(patch("n1", taint).await, "is not allowed to modify taints");
    refused(patch("n2", labels("mine")).await, "cannot patch resource \"nodes\"");
    let other = json!({ "metadata": { "name": "n3" } });
    refused(nodes.create(&of(other)).await.map(drop), "is not allowed to modify node \"n3\"");
    refused(nodes.delete("n1", &DeleteParams::default()).await, "cannot delete resource \"nodes\"");

    let leases = client.namespaced::<Lease>("kube-node-lease");
    leases.create(&of(json!({ "metadata": { "name": "n1" } }))).await.expect("its own");
    let other = leases.create(&of(json!({ "metadata": { "name": "n2" } }))).await.map(drop);
    refused(other, "with the same name as the requesting node");
    let elsewhere = client.namespaced::<Lease>("default");
    let other = elsewhere.create(&of(json!({ "metadata": { "name": "n1" } }))).await.map(drop);
    refused(other, "cannot create resource \"leases\"");
}

/// Whether the authorizer lets `who` ask for a token of the account.
#[tokio::test]
async fn tokens_are_for_accounts_of_the_nodes_pods() {
    let server = world().await;
    let may = |who: &User, account: &str| {
        let action = Action::Resource {
            verb: "create",
            group: "",
            version: "v1",
            resource: "serviceaccounts",
            subresource: "token",
            namespace: "default",
            name: account,
            field_selector: "",
        };
        server.authorizer.authorize(who, &action).allowed
    };
    server.authorizer.settle().await.expect("a storage");
    assert!(may(&node("n1"), "p1"));
    assert!(!may(&node("n1"), "p2"));
    assert!(!may(&node("n3"), "p1"));
    let not_a_node = User::authenticated("system:node:n1", Vec::new());
    assert!(!may(&not_a_node, "p1"), "the name alone makes no node");
}
