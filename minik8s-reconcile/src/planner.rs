//! Reconcilers in two halves: one that decides and one that acts.
//!
//! [`Planner::observe`] reads the caches, [`Planner::plan`] decides, and both are plain functions: a test gives a world
//! and looks at the plan. What a plan says is then done in its order, until something fails.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use minik8s_api::{Kind, Object, Resource};

use crate::cache::Caches;
use crate::client::Client;
use crate::cx::Cx;
use crate::error::ApiError;
use crate::reconciler::{Action, Reconciler, Result};
use crate::recorder::EventKind;
use crate::request::{ApiRequest, DeleteParams, Operation, Patch, Payload, WriteParams};

/// Decides what has to change for an object.
pub trait Planner: Send + Sync + 'static {
    /// The kind it is responsible for.
    type Object: Resource;
    /// What the decision rests on, besides the object: a snapshot of its own.
    type World: Send;

    /// Reads what the decision rests on.
    fn observe(&self, object: &Self::Object, caches: &Caches) -> Self::World;

    /// Decides. The same input gives the same plan; and a plan that has been carried out gives an empty one.
    fn plan(&self, object: &Self::Object, world: &Self::World, now: Timestamp) -> Plan;
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// In this order.
    pub changes: Vec<Change>,
    /// Decide again after that time, even if nothing changes.
    pub requeue: Option<Duration>,
    /// What to tell users, once the changes are made: kind, reason, message.
    pub events: Vec<(EventKind, &'static str, String)>,
}

/// A write.
#[derive(Debug)]
pub enum Change {
    /// Make this object.
    Create(Box<dyn Object>, Arc<Kind>),
    /// Replace this object, if it is still at its resourceVersion.
    Update(Box<dyn Object>, Arc<Kind>),
    /// Replace this object's status, if it is still at its resourceVersion.
    UpdateStatus(Box<dyn Object>, Arc<Kind>),
    /// Change the object of that namespace and name.
    Patch(Arc<Kind>, String, String, Patch),
    /// Delete the object of that namespace and name.
    Delete(Arc<Kind>, String, String, DeleteParams),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |o: &dyn Object| {
            let meta = o.metadata();
            meta.name.clone().or_else(|| meta.generate_name.clone()).unwrap_or_default()
        };
        match self {
            Self::Create(o, kind) => write!(f, "create {} {}", kind.singular, name(&**o)),
            Self::Update(o, kind) => write!(f, "update {} {}", kind.singular, name(&**o)),
            Self::UpdateStatus(o, kind) => write!(f, "update status of {} {}", kind.singular, name(&**o)),
            Self::Patch(kind, _, name, _) => write!(f, "patch {} {name}", kind.singular),
            Self::Delete(kind, _, name, _) => write!(f, "delete {} {name}", kind.singular),
        }
    }
}

/// A [`Planner`] as a [`Reconciler`].
#[derive(Debug)]
pub struct Planned<P>(pub P);

impl<P: Planner> Reconciler for Planned<P> {
    type Object = P::Object;

    async fn reconcile(&self, object: Arc<P::Object>, cx: Cx) -> Result<Action> {
        let plan = {
            let world = self.0.observe(&object, &cx.caches);
            self.0.plan(&object, &world, cx.now())
        };
        for change in plan.changes {
            execute(cx.client(), change).await?;
        }
        for (kind, reason, message) in plan.events {
            cx.events().event(&*object, kind, reason, message);
        }
        Ok(plan.requeue.map_or(Action::Done, Action::RequeueAfter))
    }
}

/// Makes one change. That something to be deleted is gone already is fine.
async fn execute(client: &Client, change: Change) -> Result<(), ApiError> {
    let params = WriteParams::default;
    let place = |o: &dyn Object| {
        let meta = o.metadata();
        (meta.namespace.clone(), meta.name.clone())
    };
    let request = |kind: Arc<Kind>, namespace: Option<&str>, name: Option<String>, operation| ApiRequest {
        name,
        ..client.request(kind, namespace, operation)
    };
    let request = match change {
        Change::Create(object, kind) => {
            let (namespace, _) = place(&*object);
            request(kind, namespace.as_deref(), None, Operation::Create(Payload::Typed(object), params()))
        }
        Change::Update(object, kind) => {
            let (namespace, name) = place(&*object);
            request(kind, namespace.as_deref(), name, Operation::Update(Payload::Typed(object), params()))
        }
        Change::UpdateStatus(object, kind) => {
            let (namespace, name) = place(&*object);
            let operation = Operation::Update(Payload::Typed(object), params());
            let request = request(kind, namespace.as_deref(), name, operation);
            ApiRequest { subresource: Some("status".to_owned()), ..request }
        }
        Change::Patch(kind, namespace, name, patch) => {
            request(kind, Some(&namespace), Some(name), Operation::Patch(patch, params()))
        }
        Change::Delete(kind, namespace, name, delete) => {
            request(kind, Some(&namespace), Some(name), Operation::Delete(delete))
        }
    };
    let deletes = matches!(request.operation, Operation::Delete(_));
    match client.call(request).await {
        Err(error) if deletes && error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests;
