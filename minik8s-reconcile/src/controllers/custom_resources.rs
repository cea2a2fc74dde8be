//! Removes the objects of custom resource definitions that are being deleted, and lets the definitions go. All else
//! about definitions is done by the server itself.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use minik8s_api::Kind;
use minik8s_api::crd::names;
use serde_json::json;

use crate::controller::Controller;
use crate::cx::Cx;
use crate::error::ApiError;
use crate::reconciler::{Action, Reconciler, Result};
use crate::request::{DeleteParams, ListParams, Operation, Patch, ResponseBody};

/// Objects go when their finalizers do; until then there is nothing to do but look.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The controller, to be given to a [`crate::Manager`].
pub fn controller() -> Controller<impl Reconciler> {
    Controller::new("custom-resource-controller", CustomResourceController)
}

struct CustomResourceController;

impl Reconciler for CustomResourceController {
    type Object = CustomResourceDefinition;

    async fn reconcile(&self, definition: Arc<CustomResourceDefinition>, cx: Cx) -> Result<Action> {
        let finalizers = definition.metadata.finalizers.clone().unwrap_or_default();
        let held = finalizers.iter().any(|f| f == names::FINALIZER);
        if definition.metadata.deletion_timestamp.is_none() || !held {
            return Ok(Action::Done);
        }
        let left = match kind(&cx, &definition) {
            Some(kind) => empty(&cx, &kind).await?,
            None => 0,
        };
        if left > 0 {
            let message = format!("{left} instances remain and are waiting for their finalizers");
            report(&cx, &definition, "InstanceDeletionInProgress", &message).await?;
            return Ok(Action::RequeueAfter(LOOK_AGAIN));
        }
        release(&cx, &definition, &finalizers).await?;
        Ok(Action::Done)
    }
}

/// The definition's kind in the version that is stored, if it is served.
fn kind(cx: &Cx, definition: &CustomResourceDefinition) -> Option<Arc<Kind>> {
    let plural = &names::accepted(definition).plural;
    let registry = cx.client().registry();
    let mut kinds =
        registry.stored().filter(|k| k.custom && k.group == definition.spec.group && k.plural == *plural);
    // A definition that never got its names has no objects; the kind of that name is another's.
    kinds.next().filter(|_| names::is_established(definition)).cloned()
}

/// Deletes all objects of a kind, and says how many are still there.
async fn empty(cx: &Cx, kind: &Arc<Kind>) -> Result<usize, ApiError> {
    let client = cx.client();
    let delete = Operation::DeleteCollection(ListParams::default(), DeleteParams::default());
    client.call(client.request(kind.clone(), None, delete)).await?;
    let list = client.request(kind.clone(), None, Operation::List(ListParams::default()));
    match client.call(list).await?.body {
        ResponseBody::List(list) => Ok(list.items.len()),
        _ => Err(ApiError::internal("a list is a list")),
    }
}

/// Takes the finalizer off, with which the definition goes.
async fn release(
    cx: &Cx,
    definition: &CustomResourceDefinition,
    finalizers: &[String],
) -> Result<(), ApiError> {
    let left: Vec<_> = finalizers.iter().filter(|f| *f != names::FINALIZER).collect();
    let metadata = &definition.metadata;
    let patch = json!({
        "metadata": { "uid": metadata.uid, "resourceVersion": metadata.resource_version, "finalizers": left },
    });
    settled(cx.client().all::<CustomResourceDefinition>().patch(name(definition), Patch::merge(&patch)).await)
}

/// Says what the definition waits for, if that is news.
async fn report(
    cx: &Cx,
    definition: &CustomResourceDefinition,
    reason: &str,
    message: &str,
) -> Result<(), ApiError> {
    let mut status = definition.status.clone().unwrap_or_default();
    names::set_condition(&mut status, "Terminating", true, reason, message, cx.now());
    if definition.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let patch = Patch::merge(&json!({ "status": { "conditions": status.conditions } }));
    settled(cx.client().all::<CustomResourceDefinition>().patch_status(name(definition), patch).await)
}

fn name(definition: &CustomResourceDefinition) -> &str {
    definition.metadata.name.as_deref().unwrap_or_default()
}

/// That it is gone is as good as done.
fn settled<T>(answer: Result<T, ApiError>) -> Result<(), ApiError> {
    match answer {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
