//! The API server: what stands between clients and the storage.
//!
//! It is a [`tower::Service`] of [`ApiRequest`]s. A program calls it through a [`Client`]; [`crate::http`] puts it on
//! the network. Tests, simulations and clusters all run this one.

pub mod admission;
mod apply;
pub mod authorizer;
pub(crate) mod call;
mod certificate;
mod convert;
mod create;
mod definitions;
mod delete;
mod encoding;
mod eviction;
mod fence;
mod follow;
mod key;
mod managed_fields;
pub mod node;
mod part;
mod patch;
mod pods;
pub mod rbac;
mod read;
mod review;
mod scale;
mod service_account;
pub mod token;
mod update;
mod watch;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use minik8s_api::Registry;
use minik8s_api::conversion::ConversionError;
use tower::Service;

use self::authorizer::{AlwaysAllow, Authorizer};
use crate::client::Client;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::kinds::Kinds;
use crate::request::{ApiRequest, ApiResponse, Operation, User};
use crate::rng::Rng;
use crate::storage::{Storage, StorageError};

/// The namespaces that every cluster has.
pub const INITIAL_NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// A Kubernetes API server. Cheap to clone; clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    storage: Arc<dyn Storage>,
    kinds: Kinds,
    definitions: definitions::Definitions,
    clock: Clock,
    rng: Rng,
    authorizer: Arc<dyn Authorizer>,
    tokens: Option<token::Tokens>,
    admission: Arc<admission::Chain>,
}

impl ApiServer {
    /// A server of all built-in kinds over `storage`.
    pub fn new(storage: impl Storage) -> Self {
        Self::builder().build(storage)
    }

    /// Sets up a server.
    pub fn builder() -> ApiServerBuilder {
        ApiServerBuilder {
            registry: None,
            clock: Clock::system(),
            rng: Rng::from_entropy(),
            authorizer: Arc::new(AlwaysAllow),
            tokens: None,
            admission: Vec::new(),
            stay: admission::TolerationSeconds::default(),
        }
    }

    /// Makes what every cluster has, the initial namespaces and priority classes, where they do not exist; and serves the kinds of the
    /// custom resource definitions that are stored. Until then a server is not ready.
    ///
    /// # Errors
    /// The storage does not answer.
    pub async fn bootstrap(&self) -> Result<(), ApiError> {
        self.admission.begin(&self.storage).await?;
        self.settle_definitions().await?;
        let namespaces = self.client().all::<Namespace>();
        for name in INITIAL_NAMESPACES {
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some(name.to_owned());
            match namespaces.create(&namespace).await {
                Ok(_) => {}
                Err(e) if e.is_already_exists() => {}
                Err(e) => return Err(e),
            }
        }
        if self.registry().of::<PriorityClass>().is_some() {
            admission::bootstrap(&self.client()).await?;
        }
        Ok(())
    }

    /// A client of this server that may do everything.
    pub fn client(&self) -> Client {
        Client::new(self.clone(), self.kinds.clone())
    }

    /// The kinds that it serves now.
    pub fn registry(&self) -> Arc<Registry> {
        self.kinds.current()
    }

    /// The kinds that it serves, as they change with custom resource definitions.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// What it issues tokens with, if it does.
    pub fn tokens(&self) -> Option<&token::Tokens> {
        self.tokens.as_ref()
    }

    /// Its random numbers.
    pub fn rng(&self) -> &Rng {
        &self.rng
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Its storage.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Answers one request.
    ///
    /// # Errors
    /// As the Kubernetes API would.
    ///
    /// # Cancel safety
    /// A write that has begun goes on when the future is dropped.
    pub async fn handle(&self, mut request: ApiRequest) -> Result<ApiResponse, ApiError> {
        if request.kind.custom {
            // Who asks may have known the kind for long.
            let current = self.kinds.current();
            request.kind = current.same(&request.kind).ok_or_else(ApiError::no_such_resource)?.clone();
        }
        let deprecation = request.kind.deprecation.clone();
        let mut response = if definitions::is_write(&request) {
            self.write_definition(request).await?
        } else {
            self.dispatch(request).await?
        };
        response.warnings.extend(deprecation);
        Ok(response)
    }

    async fn dispatch(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        let ApiRequest { kind, namespace, name, subresource, operation, user } = request;
        let selector = authorizer::field_selector(&operation);
        let selected = authorizer::selected(selector, "metadata.name");
        let named = name.as_deref().or(selected.as_deref());
        let (verb, place) = (operation.verb(), namespace.as_deref());
        let mut action = authorizer::action(&kind, verb, place, named, subresource.as_deref());
        if let authorizer::Action::Resource { field_selector, .. } = &mut action {
            *field_selector = selector;
        }
        self.permit(&user, &action).await?;
        let writes = !matches!(verb, "get" | "list" | "watch");
        let grants = writes && kind.group == rbac::GROUP;
        let rules = writes && admission::is_about(&kind);
        let scope = key::Scope::new(kind, namespace, user)?;
        let response = self.perform(scope, name, subresource, operation).await?;
        if grants {
            // What has been acknowledged is in force.
            self.authorizer.settle().await?;
        }
        if rules {
            self.admission.settle(&self.storage).await?;
        }
        Ok(response)
    }

    /// Does what has been permitted.
    async fn perform(
        &self,
        scope: key::Scope,
        name: Option<String>,
        subresource: Option<String>,
        operation: Operation,
    ) -> Result<ApiResponse, ApiError> {
        match (operation, name, subresource.as_deref()) {
            (Operation::Create(payload, params), None, None) if !scope.kind.stored => {
                self.review(&scope, payload, &params).await
            }
            (Operation::DeleteCollection(..), ..) if !scope.kind.verbs().contains(&"deletecollection") => {
                Err(ApiError::method_not_allowed())
            }
            _ if !scope.kind.stored => Err(ApiError::method_not_allowed()),
            (operation, Some(name), Some("scale")) if scope.kind.scale.is_some() => {
                self.scale(&scope, &name, operation).await
            }
            (Operation::Get, Some(name), None | Some("status")) => self.get(&scope, &name).await,
            (Operation::Get, Some(name), Some(of @ ("approval" | "ephemeralcontainers" | "resize")))
                if part::Part::of(&scope.kind, Some(of)).is_ok() =>
            {
                self.get(&scope, &name).await
            }
            (Operation::List(params), None, None) => self.list(&scope, &params).await,
            (Operation::Watch(params), None, None) => self.watch(&scope, params).await,
            (Operation::Create(payload, params), None, None) => self.create(&scope, payload, &params).await,
            (Operation::Create(payload, params), Some(name), Some(subresource)) => {
                self.create_subresource(&scope, &name, subresource, payload, &params).await
            }
            (Operation::Update(payload, params), Some(name), part) => {
                let part = part::Part::of(&scope.kind, part)?;
                self.update(&scope, &name, part, payload, &params).await
            }
            (Operation::Patch(patch, params), Some(name), part) => {
                let part = part::Part::of(&scope.kind, part)?;
                self.patch(&scope, &name, part, &patch, &params).await
            }
            (Operation::Delete(params), Some(name), None) => self.delete(&scope, &name, &params).await,
            (Operation::DeleteCollection(list, params), None, None) => {
                self.delete_collection(&scope, &list, &params).await
            }
            (_, _, Some(_)) => Err(ApiError::no_such_resource()),
            _ => Err(ApiError::method_not_allowed()),
        }
    }
}

impl ApiServer {
    /// Whether `user` may do that.
    ///
    /// # Errors
    /// 403, if not.
    pub(crate) async fn permit(&self, user: &User, action: &authorizer::Action<'_>) -> Result<(), ApiError> {
        if self.authorizer.authorize(user, action).allowed {
            return Ok(());
        }
        // It may be allowed by something that has just been written. Nobody writes for those nobody knows.
        if !user.is_anonymous() {
            self.authorizer.settle().await?;
        }
        let decision = self.authorizer.authorize(user, action);
        if decision.allowed { Ok(()) } else { Err(authorizer::forbidden(user, action, &decision)) }
    }
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiServer({} kinds)", self.registry().iter().count())
    }
}

impl Service<ApiRequest> for ApiServer {
    type Response = ApiResponse;
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<ApiResponse, ApiError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ApiRequest) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { server.handle(request).await })
    }
}

/// Sets up an [`ApiServer`].
pub struct ApiServerBuilder {
    registry: Option<Registry>,
    clock: Clock,
    rng: Rng,
    authorizer: Arc<dyn Authorizer>,
    tokens: Option<token::Tokens>,
    admission: Vec<Arc<dyn admission::Admission>>,
    stay: admission::TolerationSeconds,
}

impl fmt::Debug for ApiServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiServerBuilder")
    }
}

impl ApiServerBuilder {
    /// Serves these kinds instead of the built-in ones.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Takes the time from `clock` instead of the machine.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes uids and generated names from `rng`, for runs that can be repeated.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Asks `authorizer` who may do what, instead of letting everybody do everything.
    #[must_use]
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Self {
        self.authorizer = Arc::new(authorizer);
        self
    }

    /// Issues tokens of service accounts, knows them again, and gives them to new pods. Every namespace must have a
    /// default account then: see [`crate::controllers::service_accounts`].
    #[must_use]
    pub fn tokens(mut self, tokens: token::Tokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Adds a step of admission of your own, behind those that were added before.
    #[must_use]
    pub fn admission(mut self, plugin: impl admission::Admission) -> Self {
        self.admission.push(Arc::new(plugin));
        self
    }

    /// Gives new pods this time on a node that is down, where they do not say how long they stay.
    #[must_use]
    pub fn default_tolerations(mut self, stay: admission::TolerationSeconds) -> Self {
        self.stay = stay;
        self
    }

    /// The server, over `storage`.
    pub fn build(self, storage: impl Storage) -> ApiServer {
        let built_in = Arc::new(self.registry.unwrap_or_else(Registry::builtin));
        ApiServer {
            storage: Arc::new(storage),
            kinds: built_in.clone().into(),
            definitions: definitions::Definitions::new(built_in),
            clock: self.clock,
            rng: self.rng.child("server"),
            authorizer: self.authorizer,
            tokens: self.tokens,
            admission: Arc::new(admission::Chain::new(self.admission, self.stay)),
        }
    }
}

impl From<ConversionError> for ApiError {
    fn from(error: ConversionError) -> Self {
        Self::internal(error)
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Compacted { requested, oldest } => {
                Self::expired(format!("too old resource version: {requested} ({oldest})"))
            }
            StorageError::Future { requested, current } => {
                // Go's clients look for this cause.
                Self::timeout(format!("Too large resource version: {requested}, current: {current}"))
                    .with_cause("ResourceVersionTooLarge", "Too large resource version")
                    .with_retry_after(1)
            }
            StorageError::Full(_) => Self::new(507, "InsufficientStorage", error.to_string()),
            StorageError::Fenced(_) => Self::new(412, "Fenced", error.to_string()),
            StorageError::Corrupt(_) => Self::internal(error),
            StorageError::Unavailable(_) => Self::unavailable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
