//! What admission sees of a request.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use minik8s_api::{Kind, Object};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::error::ApiError;
use crate::request::{DeleteParams, User, WriteParams};
use crate::server::ApiServer;
use crate::server::key::{Scope, namespace_key};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make an object, or what a subresource makes, such as a binding.
    Create,
    /// Change an object.
    Update,
    /// Delete an object.
    Delete,
    /// Begin to talk with an object: exec, attach, port-forward, proxy.
    Connect,
}

impl Verb {
    /// As webhooks and policies name it: `CREATE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// How it is to be done.
#[derive(Clone, Copy)]
pub(in crate::server) enum Options<'a> {
    /// The options of a write, by the name of their kind, such as `CreateOptions`.
    Write(&'static str, &'a WriteParams),
    Delete(&'a DeleteParams),
    /// There are none.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "connections come over HTTP"))]
    None,
}

/// A write on its way to the storage.
pub struct Request<'a> {
    pub(in crate::server) server: &'a ApiServer,
    pub(in crate::server) scope: &'a Scope,
    verb: Verb,
    name: String,
    subresource: &'a str,
    object: Option<Box<dyn Object>>,
    old: Option<&'a dyn Object>,
    options: Options<'a>,
    namespace: OnceCell<Option<Arc<Namespace>>>,
}

impl<'a> Request<'a> {
    /// A request without objects.
    pub(in crate::server) fn new(
        server: &'a ApiServer,
        scope: &'a Scope,
        verb: Verb,
        name: &str,
        options: Options<'a>,
    ) -> Self {
        Self {
            server,
            scope,
            verb,
            name: name.to_owned(),
            subresource: "",
            object: None,
            old: None,
            options,
            namespace: OnceCell::new(),
        }
    }

    pub(in crate::server) fn of_part(mut self, subresource: &'a str) -> Self {
        self.subresource = subresource;
        self
    }

    pub(in crate::server) fn with_object(mut self, object: Box<dyn Object>) -> Self {
        self.object = Some(object);
        self
    }

    pub(in crate::server) fn in_place_of(mut self, old: &'a dyn Object) -> Self {
        self.old = Some(old);
        self
    }

    /// The object came to be called that.
    pub(in crate::server) fn set_name(&mut self, name: &str) {
        name.clone_into(&mut self.name);
    }

    pub(in crate::server) fn take_object(&mut self) -> Option<Box<dyn Object>> {
        self.object.take()
    }

    pub(in crate::server) fn set_object(&mut self, object: Box<dyn Object>) {
        self.object = Some(object);
    }

    /// Who asks.
    pub fn user(&self) -> &User {
        &self.scope.user
    }

    /// What is to be done.
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// The kind that the request's path names. The object is of another for most subresources.
    pub fn kind(&self) -> &Arc<Kind> {
        &self.scope.kind
    }

    /// The namespace; `None` for kinds that are in none.
    pub fn namespace(&self) -> Option<&str> {
        self.scope.namespace.as_deref()
    }

    /// The object's name; empty while it has none yet.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The subresource that is written, such as `status` or `eviction`; empty for the object itself.
    pub fn subresource(&self) -> &str {
        self.subresource
    }

    /// Whether it is about an object of that group and kind itself, and no subresource.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.subresource.is_empty() && self.scope.kind.kind == kind && self.scope.kind.group == group
    }

    /// The object as it is to be; `None` where it is to go.
    pub fn object(&self) -> Option<&dyn Object> {
        self.object.as_deref()
    }

    /// The object as it is to be, to change. What clients cannot change of its metadata stays as it is.
    pub fn object_mut(&mut self) -> Option<&mut Box<dyn Object>> {
        self.object.as_mut()
    }

    /// The object as it is now; `None` for one that is made.
    pub fn old(&self) -> Option<&dyn Object> {
        self.old
    }

    /// Whether nothing is to be written in the end.
    pub fn is_dry_run(&self) -> bool {
        match self.options {
            Options::Write(_, params) => params.dry_run,
            Options::Delete(params) => params.dry_run,
            Options::None => false,
        }
    }

    /// The options of the request, such as a `CreateOptions` of `meta.k8s.io/v1`; null where there are none.
    pub fn options(&self) -> Value {
        let mut options = match self.options {
            Options::Write(kind, params) => {
                let mut options = json!({ "kind": kind, "apiVersion": "meta.k8s.io/v1" });
                if !params.field_manager.is_empty() {
                    options["fieldManager"] = params.field_manager.as_str().into();
                }
                options
            }
            Options::Delete(params) => {
                let mut options = json!({ "kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1" });
                if let Some(seconds) = params.grace_period_s {
                    options["gracePeriodSeconds"] = seconds.into();
                }
                if let Some(propagation) = params.propagation {
                    options["propagationPolicy"] = propagation.name().into();
                }
                options
            }
            Options::None => return Value::Null,
        };
        if self.is_dry_run() {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    /// The namespace as an object; `None` for kinds that are in none, and where there is no such namespace. It is looked
    /// up once.
    ///
    /// # Errors
    /// The storage does not answer.
    pub async fn namespace_object(&self) -> Result<Option<Arc<Namespace>>, ApiError> {
        let Some(name) = self.namespace() else { return Ok(None) };
        let found = self.namespace.get_or_try_init(|| async {
            let stored = self.server.storage.get(&namespace_key(name)).await?;
            stored.map(|s| s.typed::<Namespace>().map_err(ApiError::internal)).transpose()
        });
        found.await.cloned()
    }

    /// 403: the object may not be written; `why` says what stands against it.
    pub fn forbidden(&self, why: impl fmt::Display) -> ApiError {
        ApiError::forbidden(&self.scope.kind, &self.name, why)
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = self.scope.kind.qualified();
        write!(f, "Request({} {resource}/{} {:?})", self.verb.as_str(), self.subresource, self.name)
    }
}
