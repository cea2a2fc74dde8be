use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde_json::{Value, json};

use super::{Rbac, bootstrap};
use crate::ApiServer;
use crate::error::ApiError;
use crate::request::{DeleteParams, ListParams, Patch, User};
use crate::server::authorizer::{Action, Authorizer};
use crate::storage::memory::MemoryStorage;

async fn server() -> ApiServer {
    let storage = Arc::new(MemoryStorage::new());
    let rbac = Rbac::start(storage.clone()).await.expect("an authorizer");
    let server = ApiServer::builder().authorizer(rbac).build(storage);
    server.bootstrap().await.expect("namespaces");
    server
}

fn user(name: &str) -> User {
    User::authenticated(name, Vec::new())
}

fn role(name: &str, verbs: &[&str], resources: &[&str]) -> Role {
    let rule = json!({ "apiGroups": [""], "resources": resources, "verbs": verbs });
    serde_json::from_value(json!({ "metadata": { "name": name }, "rules": [rule] })).expect("a role")
}

fn cluster_role(name: &str, rules: Value) -> ClusterRole {
    serde_json::from_value(json!({ "metadata": { "name": name }, "rules": rules })).expect("a role")
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> RoleBinding {
    let role = json!({ "apiGroup": super::GROUP, "kind": kind, "name": role });
    let subject = json!({ "kind": "User", "name": user, "apiGroup": super::GROUP });
    let body = json!({ "metadata": { "name": name }, "roleRef": role, "subjects": [subject] });
    serde_json::from_value(body).expect("a binding")
}

fn words(result: Result<impl Sized, ApiError>) -> String {
    match result {
        Ok(_) => String::new(),
        Err(error) => format!("{} {error}", error.code()),
    }
}

#[tokio::test]
async fn a_binding_is_in_force_when_it_is_there_and_not_a_moment_longer() {
    let server = server().await;
    let admin = server.client();
    let jane = server.client().user(user("jane")).namespaced::<ConfigMap>("default");
    let forbidden = "403 configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \
                     \"\" in the namespace \"default\"";
    let list = ListParams::default();
    assert_eq!(words(jane.list(&list).await), forbidden);
    admin.namespaced::<Role>("default").create(&role("r", &["list"], &["configmaps"])).await.expect("a role");
    let bindings = admin.namespaced::<RoleBinding>("default");
    for _ in 0..50 {
        bindings.create(&binding("b", "Role", "r", "jane")).await.expect("a binding");
        assert_eq!(words(jane.list(&list).await), "");
        bindings.delete("b", &DeleteParams::default()).await.expect("a deletion");
        assert_eq!(words(jane.list(&list).await), forbidden);
    }
    bindings.create(&binding("b", "Role", "gone", "jane")).await.expect("a binding");
    let why = format!("{forbidden}: RBAC: role.{} \"gone\" not found", super::GROUP);
    assert_eq!(words(jane.list(&list).await), why);
    let elsewhere = server.client().user(user("jane")).all::<ConfigMap>();
    assert!(words(elsewhere.list(&list).await).contains("at the cluster scope"));
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_have() {
    let server = server().await;
    let admin = server.client();
    let manager = json!([
        { "apiGroups": [super::GROUP], "resources": ["*"], "verbs": ["create", "update", "patch", "get"] },
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] },
    ]);
    admin.all::<ClusterRole>().create(&cluster_role("manager", manager)).await.expect("a role");
    let secrets = json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"] }]);
    admin.all::<ClusterRole>().create(&cluster_role("secrets", secrets)).await.expect("a role");
    let mine = binding("mine", "ClusterRole", "manager", "jane");
    admin.namespaced::<RoleBinding>("default").create(&mine).await.expect("a binding");

    let jane = server.client().user(user("jane"));
    let roles = jane.namespaced::<Role>("default");
    assert_eq!(words(roles.create(&role("a", &["get"], &["pods"])).await), "");
    let refused = "is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC \
                   permissions not currently held:\n";
    let table = [
        (
            &["get", "delete"][..],
            &["pods"][..],
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}",
        ),
        (&["*"], &["pods"], "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"*\"]}"),
        (
            &["get", "list"],
            &["secrets"],
            "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}",
        ),
    ];
    for (verbs, resources, missing) in table {
        let error = words(roles.create(&role("b", verbs, resources)).await);
        assert_eq!(error, format!("403 roles.{} \"b\" {refused}{missing}", super::GROUP));
        let error = words(roles.update(&role("a", verbs, resources)).await);
        assert_eq!(error, format!("403 roles.{} \"a\" {refused}{missing}", super::GROUP));
        let rule = json!({ "apiGroups": [""], "resources": resources, "verbs": verbs });
        let patch = Patch::merge(&json!({ "rules": [rule] }));
        let error = words(roles.patch("a", patch).await);
        assert_eq!(error, format!("403 roles.{} \"a\" {refused}{missing}", super::GROUP));
        let config = json!({ "rules": [rule] });
        let error = words(roles.apply("c", "me", &config, true).await);
        assert_eq!(error, format!("403 roles.{} \"c\" {refused}{missing}", super::GROUP));
    }
    let bindings = jane.namespaced::<RoleBinding>("default");
    let error = words(bindings.create(&binding("x", "ClusterRole", "secrets", "jane")).await);
    assert!(error.contains(refused), "{error}");
    let error = words(bindings.create(&binding("x", "ClusterRole", "nowhere", "jane")).await);
    assert_eq!(error, format!("404 clusterroles.{} \"nowhere\" not found", super::GROUP));
    assert_eq!(words(bindings.create(&binding("x", "Role", "a", "joe")).await), "");
    // What was given before may be given on: only what changes is looked at.
    let same = Patch::merge(&json!({ "metadata": { "annotations": { "a": "b" } } }));
    assert_eq!(words(bindings.patch("mine", same).await), "");

    let special = json!([
        { "apiGroups": [super::GROUP], "resources": ["clusterroles"], "verbs": ["bind"],
          "resourceNames": ["secrets"] },
        { "apiGroups": [super::GROUP], "resources": ["roles"], "verbs": ["escalate"] },
    ]);
    admin.all::<ClusterRole>().create(&cluster_role("special", special)).await.expect("a role");
    let more = binding("more", "ClusterRole", "special", "jane");
    admin.namespaced::<RoleBinding>("default").create(&more).await.expect("a binding");
    assert_eq!(words(bindings.create(&binding("y", "ClusterRole", "secrets", "jane")).await), "");
    assert_eq!(words(roles.create(&role("z", &["*"], &["*"])).await), "");
}

#[tokio::test]
async fn roles_are_not_widened_by_the_back_door() {
    let server = server().await;
    let admin = server.client();
    let everything_of_roles =
        json!([{ "apiGroups": [super::GROUP], "resources": ["clusterroles"], "verbs": ["create", "patch"] }]);
    admin.all::<ClusterRole>().create(&cluster_role("r", everything_of_roles)).await.expect("a role");
    let secrets = json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }]);
    admin.all::<ClusterRole>().create(&cluster_role("secrets", secrets)).await.expect("a role");
    let body = json!({
        "metadata": { "name": "b" }, "roleRef": { "apiGroup": super::GROUP, "kind": "ClusterRole", "name": "r" },
        "subjects": [{ "kind": "Group", "apiGroup": super::GROUP, "name": "system:authenticated" }],
    });
    let binding: ClusterRoleBinding = serde_json::from_value(body).expect("a binding");
    admin.all::<ClusterRoleBinding>().create(&binding).await.expect("a binding");
    let roles = server.client().user(user("jane")).all::<ClusterRole>();
    let label =
        json!({ "metadata": { "labels": { "rbac.authorization.k8s.io/aggregate-to-view": "true" } } });
    let error = words(roles.patch("secrets", Patch::merge(&label)).await);
    assert!(error.contains("attempting to grant RBAC permissions not currently held"), "{error}");
    let mut whole = cluster_role("whole", json!([]));
    whole.aggregation_rule = Some(Default::default());
    let error = words(roles.create(&whole).await);
    let why = format!(
        "403 clusterroles.{} \"whole\" is forbidden: must have cluster-admin privileges to use an aggregationRule",
        super::GROUP
    );
    assert_eq!(error, why);
}

#[tokio::test]
async fn what_everyone_has_is_made_once_and_completed_later() {
    let server = server().await;
    let client = server.client();
    bootstrap(&client).await.expect("roles");
    let revision = server.storage().revision().await.expect("a revision");
    bootstrap(&client).await.expect("roles");
    assert_eq!(server.storage().revision().await.expect("a revision"), revision, "nothing to do");

    let roles = client.all::<ClusterRole>();
    let mut discovery = (*roles.get("system:discovery").await.expect("a role")).clone();
    discovery.rules = Some(Vec::new());
    roles.update(&discovery).await.expect("an update");
    let mut basic = (*roles.get("system:basic-user").await.expect("a role")).clone();
    basic.rules = None;
    let annotation = ("rbac.authorization.kubernetes.io/autoupdate".to_owned(), "false".to_owned());
    basic.metadata.annotations = Some([annotation].into());
    roles.update(&basic).await.expect("an update");
    let bindings = client.all::<ClusterRoleBinding>();
    let mut admins = (*bindings.get("cluster-admin").await.expect("a binding")).clone();
    admins.subjects.get_or_insert_default()[0].name = "others".to_owned();
    bindings.update(&admins).await.expect("an update");

    bootstrap(&client).await.expect("roles");
    let rules = roles.get("system:discovery").await.expect("a role").rules.clone();
    assert!(!rules.unwrap_or_default().is_empty(), "added again");
    assert_eq!(roles.get("system:basic-user").await.expect("a role").rules, None, "left alone");
    let subjects = bindings.get("cluster-admin").await.expect("a binding").subjects.clone();
    let names: Vec<_> = subjects.unwrap_or_default().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["others", "system:masters"]);
}

#[tokio::test]
async fn a_check_is_quick_among_thousands_of_bindings() {
    let storage = Arc::new(MemoryStorage::new());
    let open = ApiServer::new(storage.clone());
    open.bootstrap().await.expect("namespaces");
    bootstrap(&open.client()).await.expect("roles");
    let bindings = open.client().namespaced::<RoleBinding>("default");
    for n in 0..2000 {
        bindings
            .create(&binding(&format!("b{n}"), "ClusterRole", "view", &format!("u{n}")))
            .await
            .expect("made");
    }
    let rbac = Rbac::start(storage).await.expect("an authorizer");
    let action = Action::Resource {
        verb: "create",
        group: "authorization.k8s.io",
        version: "v1",
        resource: "selfsubjectaccessreviews",
        subresource: "",
        namespace: "",
        name: "",
        field_selector: "",
    };
    let jane = user("u7");
    // What it costs must not depend on how many others there are: a scan of all would take milliseconds.
    let began = std::time::Instant::now();
    for _ in 0..1000 {
        assert!(rbac.authorize(&jane, &action).allowed);
    }
    let each = began.elapsed() / 1000;
    assert!(each < std::time::Duration::from_micros(200), "{each:?}, unoptimised");
}
