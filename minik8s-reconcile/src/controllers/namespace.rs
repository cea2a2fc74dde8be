//! Empties namespaces that are being deleted, and lets them go
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/>).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_api::Kind;
use serde_json::json;

use crate::controller::Controller;
use crate::cx::Cx;
use crate::error::ApiError;
use crate::reconciler::{Action, Reconciler, Result};
use crate::request::{DeleteParams, ListParams, Operation, Patch, Payload, ResponseBody, WriteParams};

/// The finalizer in a namespace's spec that stands for its contents.
const FINALIZER: &str = "kubernetes";
/// Things take their grace periods to end; until then there is nothing to do but look.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The controller, to be given to a [`crate::Manager`].
pub fn controller() -> Controller<impl Reconciler> {
    Controller::new("namespace-controller", NamespaceController)
}

struct NamespaceController;

impl Reconciler for NamespaceController {
    type Object = Namespace;

    async fn reconcile(&self, namespace: Arc<Namespace>, cx: Cx) -> Result<Action> {
        let spec = namespace.spec.clone().unwrap_or_default();
        let held = spec.finalizers.iter().flatten().any(|f| f == FINALIZER);
        if namespace.metadata.deletion_timestamp.is_none() || !held {
            return Ok(Action::Done);
        }
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let mut left = Vec::new();
        let kinds: Vec<Arc<Kind>> =
            cx.client().registry().stored().filter(|k| k.namespaced).cloned().collect();
        for kind in kinds {
            let count = empty(&cx, &kind, name).await?;
            if count > 0 {
                left.push(format!("{} has {count} resource instances", kind.qualified()));
            }
        }
        if left.is_empty() {
            finalize(&cx, &namespace).await?;
            return Ok(Action::Done);
        }
        report(&cx, &namespace, &left).await?;
        Ok(Action::RequeueAfter(LOOK_AGAIN))
    }
}

/// Deletes everything of a kind, and says how much is still there.
async fn empty(cx: &Cx, kind: &Arc<Kind>, namespace: &str) -> Result<usize, ApiError> {
    let client = cx.client();
    let list = || client.request(kind.clone(), Some(namespace), Operation::List(ListParams::default()));
    let count = |body| match body {
        ResponseBody::List(list) => list.items.len(),
        _ => 0,
    };
    if count(client.call(list()).await?.body) == 0 {
        return Ok(0);
    }
    let delete = Operation::DeleteCollection(ListParams::default(), DeleteParams::default());
    client.call(client.request(kind.clone(), Some(namespace), delete)).await?;
    Ok(count(client.call(list()).await?.body))
}

/// Takes the finalizer off, with which the namespace goes.
async fn finalize(cx: &Cx, namespace: &Namespace) -> Result<(), ApiError> {
    let mut released = namespace.clone();
    if let Some(finalizers) = released.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
        finalizers.retain(|f| f != FINALIZER);
    }
    let client = cx.client();
    let kind = client.registry().of::<Namespace>().expect("it was watched").clone();
    let update = Operation::Update(Payload::Typed(Box::new(released)), WriteParams::default());
    let mut request = client.request(kind, None, update);
    request.name.clone_from(&namespace.metadata.name);
    request.subresource = Some("finalize".to_owned());
    match client.call(request).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Says what the namespace waits for, if that is news.
async fn report(cx: &Cx, namespace: &Namespace, left: &[String]) -> Result<(), ApiError> {
    let message = format!("Some resources are remaining: {}", left.join(", "));
    let conditions = namespace.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let known = conditions.iter().find(|c| c.type_ == "NamespaceContentRemaining");
    if known.is_some_and(|c| c.message.as_deref() == Some(message.as_str())) {
        return Ok(());
    }
    let condition = NamespaceCondition {
        type_: "NamespaceContentRemaining".to_owned(),
        status: "True".to_owned(),
        reason: Some("SomeResourcesRemain".to_owned()),
        message: Some(message),
        last_transition_time: known
            .and_then(|c| c.last_transition_time.clone())
            .or_else(|| Some(Time(cx.now()))),
    };
    let patch = Patch::merge(&json!({ "status": { "conditions": [condition] } }));
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    match cx.client().all::<Namespace>().patch_status(name, patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
