use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use minik8s_api::Registry;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::approve::{Question, is_held, is_own, question};
use super::clean::Cleaning;
use super::sign::Signing;
use super::{add_condition, condition, is_issued};
use crate::client::Client;
use crate::manager::Manager;
use crate::pki::{Authority, Signer, SigningKey, ask, holder};
use crate::planner::{Change, Planner};
use crate::request::{ApiRequest, ApiResponse, Operation, Patch, Payload, User, WriteParams};
use crate::server::ApiServer;
use crate::server::authorizer::Union;
use crate::server::rbac;
use crate::server::token::bootstrap::BootstrapToken;
use crate::server::token::{DEFAULT_ISSUER, Tokens};
use crate::storage::Storage;
use crate::storage::memory::MemoryStorage;

const CLIENT: &[&str] = &["client auth", "digital signature"];
const SERVING: &[&str] = &["server auth", "digital signature"];

/// A request, by `asker`, for the node `name`.
fn request(signer: Signer, asker: &User, node: &str, hosts: &[&str]) -> CertificateSigningRequest {
    let hosts: Vec<String> = hosts.iter().map(|&h| h.to_owned()).collect();
    let (_, pem) = ask(&format!("system:node:{node}"), "system:nodes", &hosts).expect("a request");
    let usages = if signer == Signer::NodeServing { SERVING } else { CLIENT };
    let mut request = CertificateSigningRequest::default();
    request.metadata.name = Some("r".to_owned());
    request.spec.signer_name = signer.name().to_owned();
    request.spec.request = ByteString(pem.into_bytes());
    request.spec.usages = Some(usages.iter().map(|&u| u.to_owned()).collect());
    request.spec.username = Some(asker.name.to_string());
    request.spec.groups = Some(asker.groups.to_vec());
    request
}

fn node_user(name: &str) -> User {
    User::named(&format!("system:node:{name}"), &["system:nodes", "system:authenticated"])
}

fn kind() -> Arc<minik8s_api::Kind> {
    Registry::builtin().of::<CertificateSigningRequest>().expect("a kind").clone()
}

#[test]
fn what_there_is_to_decide() {
    let joining = User::named("system:bootstrap:abcdef", &["system:bootstrappers"]);
    let join = request(Signer::NodeClient, &joining, "n1", &[]);
    let expected = Question::May { subresource: "nodeclient", joins: Some("n1".to_owned()) };
    assert_eq!(question(&join), Some(expected));
    let renewal = request(Signer::NodeClient, &node_user("n1"), "n1", &[]);
    assert_eq!(question(&renewal), Some(Question::May { subresource: "selfnodeclient", joins: None }));
    let another = request(Signer::NodeClient, &node_user("n2"), "n1", &[]);
    assert!(matches!(question(&another), Some(Question::May { subresource: "nodeclient", .. })));
    let serving = request(Signer::NodeServing, &node_user("n1"), "n1", &["n1", "10.0.0.1"]);
    assert!(matches!(question(&serving), Some(Question::Serves { .. })));
    let another = request(Signer::NodeServing, &node_user("n2"), "n1", &["n1"]);
    assert_eq!(question(&another), None);
    let odd = request(Signer::NodeClient, &joining, "n1", &["n1"]);
    assert_eq!(question(&odd), None, "the signer would not sign it");
    let mut decided = join;
    add_condition(&mut decided, "Denied", "No", String::new());
    assert_eq!(question(&decided), None);
}

#[test]
fn a_node_has_its_own_names() {
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": "n1" },
        "status": { "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }] },
    }))
    .expect("a node");
    let address = |text: &str| text.parse().expect("an address");
    let name = |text: &str| text.to_owned();
    assert!(is_own(&node, &[name("n1")], &[address("10.0.0.1")]));
    assert!(!is_own(&node, &[name("n1"), name("kubernetes")], &[address("10.0.0.1")]));
    assert!(!is_own(&node, &[name("n1")], &[address("10.0.0.2")]));
}

#[test]
fn a_lease_is_held_while_it_is_renewed() {
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().expect("a time");
    let mut lease = Lease::default();
    assert!(!is_held(&lease, now));
    let spec = lease.spec.get_or_insert_default();
    spec.lease_duration_seconds = Some(40);
    spec.renew_time = Some(MicroTime(now - SignedDuration::from_secs(39)));
    assert!(is_held(&lease, now));
    assert!(!is_held(&lease, now + SignedDuration::from_secs(1)));
}

#[test]
fn what_is_approved_is_signed_once() {
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().expect("a time");
    let (authority, _) = Authority::generate(now).expect("an authority");
    let signing = Signing { kind: kind(), authority: Arc::new(authority) };
    let mut request = request(Signer::NodeClient, &node_user("n1"), "n1", &[]);
    assert!(signing.plan(&request, &(), now).changes.is_empty(), "nobody approved it");
    add_condition(&mut request, "Approved", "Yes", String::new());
    let plan = signing.plan(&request, &(), now);
    let [Change::UpdateStatus(signed, _)] = plan.changes.as_slice() else { panic!("{plan:?}") };
    let signed = signed.downcast_ref::<CertificateSigningRequest>().expect("a request");
    assert!(is_issued(signed));
    assert!(signing.plan(signed, &(), now).changes.is_empty());
    let mut odd = request.clone();
    odd.spec.usages = Some(vec!["cert sign".to_owned()]);
    let plan = signing.plan(&odd, &(), now);
    let [Change::UpdateStatus(failed, _)] = plan.changes.as_slice() else { panic!("{plan:?}") };
    let failed = failed.downcast_ref::<CertificateSigningRequest>().expect("a request");
    let why = condition(failed, "Failed").and_then(|c| c.message.clone()).expect("a reason");
    assert!(why.contains("cert sign"), "{why}");
    assert!(signing.plan(failed, &(), now).changes.is_empty());
    request.spec.signer_name = "example.com/mine".to_owned();
    assert!(signing.plan(&request, &(), now).changes.is_empty(), "another's to sign");
}

#[test]
fn old_requests_go() {
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().expect("a time");
    let cleaning = Cleaning { kind: kind() };
    let mut request = request(Signer::NodeClient, &node_user("n1"), "n1", &[]);
    request.metadata.creation_timestamp = Some(Time(now));
    let after = |request: &CertificateSigningRequest, hours| {
        let plan = cleaning.plan(request, &(), now + SignedDuration::from_hours(hours));
        assert_eq!(plan.changes.is_empty(), plan.requeue.is_some());
        !plan.changes.is_empty()
    };
    assert!(!after(&request, 23) && after(&request, 24));
    add_condition(&mut request, "Denied", "No", String::new());
    let conditions = request.status.as_mut().and_then(|s| s.conditions.as_mut()).expect("conditions");
    conditions[0].last_update_time = Some(Time(now + SignedDuration::from_hours(2)));
    assert!(!after(&request, 2) && after(&request, 3));
}

/// A cluster's server, with the controllers at work.
struct World {
    server: ApiServer,
    _stop: tokio_util::sync::DropGuard,
}

impl World {
    async fn new() -> Self {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let access = Union::of_cluster(storage.clone()).await.expect("authorizers");
        let (key, _) = SigningKey::generate().expect("a key");
        let tokens = Tokens::new(DEFAULT_ISSUER, key);
        let server = ApiServer::builder().authorizer(access).tokens(tokens).build(storage);
        server.bootstrap().await.expect("namespaces");
        rbac::bootstrap(&server.client()).await.expect("roles");
        let (authority, _) = Authority::generate(Timestamp::now()).expect("an authority");
        let stop = CancellationToken::new();
        let manager = Manager::new(server.client())
            .controller(super::approver())
            .controller(super::signer(&server.registry(), Arc::new(authority)));
        tokio::spawn(manager.run(stop.clone()));
        Self { server, _stop: stop.drop_guard() }
    }

    fn client(&self, user: User) -> Client {
        self.server.client().user(user)
    }

    /// Asks, and waits for what becomes of it.
    async fn ask(
        &self,
        user: User,
        name: &str,
        mut request: CertificateSigningRequest,
    ) -> CertificateSigningRequest {
        request.metadata.name = Some(name.to_owned());
        let requests = self.client(user).all::<CertificateSigningRequest>();
        requests.create(&request).await.expect("whoever asks may");
        loop {
            let request = requests.get(name).await.expect("it is there");
            let over = is_issued(&request) || condition(&request, "Denied").is_some();
            if over {
                return (*request).clone();
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_machine_joins_with_a_token_and_goes_on_with_its_certificate() {
    let world = World::new().await;
    let token = BootstrapToken {
        id: "abcdef".to_owned(),
        secret: "0123456789abcdef".to_owned(),
        expiration: None,
        authenticates: true,
        signs: true,
        groups: vec!["system:bootstrappers:workers".to_owned()],
        description: String::new(),
    };
    let secrets = world.server.client().namespaced("kube-system");
    secrets.create(&token.to_secret()).await.expect("a token");
    for bad in ["abcdef.0123456789abcdee", "abcdee.0123456789abcdef", "abcdef.", "abcdef"] {
        assert!(world.server.bearer(bad).await.is_err_and(|e| e.code() == 401), "{bad}");
    }
    let joining = world.server.bearer("abcdef.0123456789abcdef").await.expect("a user");
    assert_eq!(&*joining.name, "system:bootstrap:abcdef");
    assert_eq!(
        *joining.groups,
        ["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"]
    );
    // It may ask, and nothing else.
    assert!(world.client(joining.clone()).all::<Node>().get("n1").await.is_err_and(|e| e.is_forbidden()));
    let asked = request(Signer::NodeClient, &User::anonymous(), "n1", &[]);
    let issued = world.ask(joining.clone(), "first", asked).await;
    let pem = issued.status.as_ref().and_then(|s| s.certificate.clone()).expect("a certificate").0;
    let node = holder(&CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("a user");
    assert_eq!(&*node.name, "system:node:n1");
    let renewed = world.ask(node.clone(), "second", request(Signer::NodeClient, &node, "n1", &[])).await;
    assert!(is_issued(&renewed));
    // It serves under its own name and address once it has said which that is.
    let nodes = world.client(node.clone()).all::<Node>();
    let mut n1 = Node::default();
    n1.metadata.name = Some("n1".to_owned());
    nodes.create(&n1).await.expect("its own node");
    let serving = request(Signer::NodeServing, &node, "n1", &["n1", "10.0.0.1"]);
    let addresses = json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }] } });
    let (serving, said) = tokio::join!(
        world.ask(node.clone(), "third", serving),
        nodes.patch_status("n1", Patch::merge(&addresses)),
    );
    said.expect("its own status");
    assert!(is_issued(&serving));
    // A node that is at work keeps its name.
    let mut lease = Lease::default();
    lease.metadata.name = Some("n1".to_owned());
    let spec = lease.spec.get_or_insert_default();
    spec.lease_duration_seconds = Some(40);
    spec.renew_time = Some(MicroTime(Timestamp::now()));
    let leases = world.client(node.clone()).namespaced::<Lease>("kube-node-lease");
    leases.create(&lease).await.expect("its own lease");
    let asked = request(Signer::NodeClient, &joining, "n1", &[]);
    let denied = world.ask(joining.clone(), "fourth", asked).await;
    assert_eq!(condition(&denied, "Denied").and_then(|c| c.reason.as_deref()), Some("NodeExists"));
    // And no node gets another's.
    let theft = request(Signer::NodeClient, &node, "n2", &[]);
    let requests = world.client(node).all::<CertificateSigningRequest>();
    let error = requests.create(&theft).await.expect_err("another's name");
    assert!(error.is_forbidden() && error.to_string().contains("CN=system:node:n1"), "{error}");
}

#[tokio::test]
async fn approving_and_signing_are_rights_of_their_own() {
    let world = World::new().await;
    let (_, pem) = ask("root", "system:masters", &[]).expect("a request");
    let mut greedy = request(Signer::Client, &User::internal(), "n1", &[]);
    greedy.spec.request = ByteString(pem.into_bytes());
    let jane = User::authenticated("jane", Vec::new());
    let may = |name: &str, rules: serde_json::Value| {
        let of = |kind: &str| format!("{{\"kind\":\"{kind}\"}}");
        let _ = of;
        let role = json!({ "metadata": { "name": name }, "rules": rules });
        let binding = json!({
            "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane" }],
        });
        let client = world.server.client();
        async move {
            use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
            let role: ClusterRole = serde_json::from_value(role).expect("a role");
            let binding: ClusterRoleBinding = serde_json::from_value(binding).expect("a binding");
            client.all::<ClusterRole>().create(&role).await.expect("a role");
            client.all::<ClusterRoleBinding>().create(&binding).await.expect("a binding");
        }
    };
    let group = json!(["certificates.k8s.io"]);
    may(
        "ask",
        json!([{ "apiGroups": group, "verbs": ["create", "get", "update"],
                 "resources": ["certificatesigningrequests", "certificatesigningrequests/approval",
                               "certificatesigningrequests/status"] }]),
    )
    .await;
    let requests = world.client(jane.clone()).all::<CertificateSigningRequest>();
    let error = requests.create(&greedy).await.expect_err("administrators' rights");
    assert!(error.to_string().contains("system:masters group is not allowed"), "{error}");
    let mut wanted = request(Signer::Client, &jane, "n1", &[]);
    wanted.spec.usages = Some(CLIENT.iter().map(|&u| u.to_owned()).collect());
    let made = requests.create(&wanted).await.expect("whoever may ask");
    let approve = |client: Client| {
        let mut request = (*made).clone();
        add_condition(&mut request, "Approved", "Yes", String::new());
        async move {
            let kind = client.registry().of::<CertificateSigningRequest>().expect("a kind").clone();
            let operation = Operation::Update(Payload::Typed(Box::new(request)), WriteParams::default());
            let call = ApiRequest {
                name: Some("r".to_owned()),
                subresource: Some("approval".to_owned()),
                ..client.request(kind, None, operation)
            };
            client.call(call).await.map(|_: ApiResponse| ())
        }
    };
    let error = approve(world.client(jane.clone())).await.expect_err("not hers to approve");
    assert!(error.is_forbidden() && error.to_string().contains("not permitted to approve"), "{error}");
    let mut forged = (*made).clone();
    forged.status.get_or_insert_default().certificate = Some(ByteString(b"x".to_vec()));
    let error = requests.update_status(&forged).await.expect_err("not hers to sign");
    assert!(error.is_forbidden() && error.to_string().contains("not permitted to sign"), "{error}");
    may(
        "approve",
        json!([{ "apiGroups": group, "verbs": ["approve"], "resources": ["signers"],
                 "resourceNames": ["kubernetes.io/*"] }]),
    )
    .await;
    approve(world.client(jane)).await.expect("now it is");
}
