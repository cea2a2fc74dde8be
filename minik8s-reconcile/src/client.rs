//! The client: one concrete type in front of any server.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt};
use minik8s_api::{Kind, Registry, Resource};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use crate::error::ApiError;
use crate::kinds::Kinds;
use crate::request::{
    ApiRequest, ApiResponse, DeleteParams, EventType, ListParams, Operation, Patch, PatchFormat, Payload,
    ResponseBody, User, WatchParams, WriteParams,
};
use crate::stored::Stored;

/// A handle on an API server, in this process or elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    service: BoxCloneSyncService<ApiRequest, ApiResponse, ApiError>,
    kinds: Kinds,
    user: User,
    manager: Arc<str>,
    writes: Option<WriteLog>,
}

/// The newest revision that was written of each kind (by [`Kind::qualified`]): what has to be seen before a cache
/// shows these writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteLog(Arc<Mutex<BTreeMap<String, u64>>>);

impl WriteLog {
    pub(crate) fn newest(&self) -> BTreeMap<String, u64> {
        self.0.lock().expect("no writer panics").clone()
    }

    fn note(&self, kind: &Kind, revision: u64) {
        let mut log = self.0.lock().expect("no writer panics");
        let newest = log.entry(kind.qualified()).or_default();
        *newest = revision.max(*newest);
    }
}

impl Client {
    /// A client of the server `service`, which knows these kinds: a fixed registry, or those that a server in this
    /// process serves at present.
    pub fn new<S>(service: S, kinds: impl Into<Kinds>) -> Self
    where
        S: Service<ApiRequest, Response = ApiResponse, Error = ApiError> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Self {
            service: BoxCloneSyncService::new(service),
            kinds: kinds.into(),
            user: User::internal(),
            manager: "minik8s".into(),
            writes: None,
        }
    }

    /// The same client, noting what it writes.
    pub(crate) fn logged(&self, writes: WriteLog) -> Self {
        Self { writes: Some(writes), ..self.clone() }
    }

    /// The same client, writing as the field manager `name`.
    #[must_use]
    pub fn field_manager(mut self, name: &str) -> Self {
        self.manager = name.into();
        self
    }

    /// The same client, asking as `user` (a server in this process believes it; a remote one has its own mind).
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    /// Whom this client asks as.
    pub fn identity(&self) -> &User {
        &self.user
    }

    /// The kinds that can be asked for now.
    pub fn registry(&self) -> Arc<Registry> {
        self.kinds.current()
    }

    /// The kinds that can be asked for, as they change.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Sends one request as it is.
    ///
    /// # Errors
    /// Whatever the server answers, or [`ApiError::unavailable`] when it cannot be reached. A write may have
    /// happened all the same when the answer was lost.
    pub async fn call(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        let Some(writes) = &self.writes else { return self.service.clone().oneshot(request).await };
        let kind = request.kind.clone();
        let reads = matches!(request.operation, Operation::Get | Operation::List(_) | Operation::Watch(_));
        let response = self.service.clone().oneshot(request).await?;
        match &response.body {
            ResponseBody::Object { object, .. } if !reads => writes.note(&kind, object.revision()),
            ResponseBody::Deleted { revision, .. } => writes.note(&kind, *revision),
            _ => {}
        }
        Ok(response)
    }

    /// A request about the kind as this client would make it, for kinds whose type is not known.
    pub fn request(&self, kind: Arc<Kind>, namespace: Option<&str>, operation: Operation) -> ApiRequest {
        let namespace = namespace.filter(|_| kind.namespaced).map(ToOwned::to_owned);
        ApiRequest { kind, namespace, name: None, subresource: None, operation, user: self.user.clone() }
    }

    /// The objects of type `K` in all namespaces, or of the cluster.
    ///
    /// # Panics
    /// The server does not know `K`.
    pub fn all<K: Resource>(&self) -> Api<K> {
        self.api(None)
    }

    /// The objects of type `K` in `namespace`.
    ///
    /// # Panics
    /// The server does not know `K`.
    pub fn namespaced<K: Resource>(&self, namespace: &str) -> Api<K> {
        self.api(Some(namespace.to_owned()))
    }

    fn api<K: Resource>(&self, namespace: Option<String>) -> Api<K> {
        let kind = self.registry().of::<K>().cloned().unwrap_or_else(|| {
            panic!("{} {} is not registered with this client's server", K::api_version(&()), K::kind(&()))
        });
        Api {
            client: self.clone(),
            namespace: namespace.filter(|_| kind.namespaced),
            kind,
            _type: PhantomData,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("user", &self.user.name).field("manager", &self.manager).finish()
    }
}

/// The objects of one type in one namespace, or in all.
pub struct Api<K> {
    client: Client,
    kind: Arc<Kind>,
    namespace: Option<String>,
    _type: PhantomData<fn(K)>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            _type: PhantomData,
        }
    }
}

impl<K> fmt::Debug for Api<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Api({:?} in {:?})", self.kind, self.namespace)
    }
}

/// A page of typed objects.
#[derive(Clone, Debug)]
pub struct List<K> {
    /// The objects, ordered by namespace and name.
    pub items: Vec<Arc<K>>,
    /// The revision that the list shows: watch from here.
    pub revision: u64,
    /// The token of the next page; empty on the last.
    pub continue_: String,
}

/// One step of a typed watch.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// It came to be or changed.
    Applied(Arc<K>),
    /// It is gone; this was its last state.
    Deleted(Arc<K>),
    /// Everything up to this revision has been seen. `initial` marks the end of the initial state.
    Bookmark {
        /// The revision.
        revision: u64,
        /// Whether it ends the initial state.
        initial: bool,
    },
}

impl<K: Resource> Api<K> {
    fn request(&self, name: Option<&str>, subresource: Option<&str>, operation: Operation) -> ApiRequest {
        ApiRequest {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: name.map(ToOwned::to_owned),
            subresource: subresource.map(ToOwned::to_owned),
            operation,
            user: self.client.user.clone(),
        }
    }

    fn write_params(&self) -> WriteParams {
        WriteParams { field_manager: self.client.manager.to_string(), ..WriteParams::default() }
    }

    async fn object(
        &self,
        name: Option<&str>,
        subresource: Option<&str>,
        operation: Operation,
    ) -> Result<Arc<K>, ApiError> {
        match self.client.call(self.request(name, subresource, operation)).await?.body {
            ResponseBody::Object { object, .. } => typed(&object),
            other => Err(unexpected(&other)),
        }
    }

    /// The object `name`.
    ///
    /// # Errors
    /// [`ApiError::is_not_found`] if there is none.
    pub async fn get(&self, name: &str) -> Result<Arc<K>, ApiError> {
        self.object(Some(name), None, Operation::Get).await
    }

    /// The object `name`, or `None`.
    ///
    /// # Errors
    /// Any but that there is none.
    pub async fn get_opt(&self, name: &str) -> Result<Option<Arc<K>>, ApiError> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// One page of objects; everything unless `params.limit` is set.
    ///
    /// # Errors
    /// [`ApiError::is_expired`] if the page's token is too old.
    pub async fn list(&self, params: &ListParams) -> Result<List<K>, ApiError> {
        match self.client.call(self.request(None, None, Operation::List(params.clone()))).await?.body {
            ResponseBody::List(list) => Ok(List {
                items: list.items.iter().map(typed).collect::<Result<_, _>>()?,
                revision: list.revision,
                continue_: list.continue_,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes from now on, or from `params.resource_version`.
    ///
    /// # Errors
    /// [`ApiError::is_expired`], at once or as the stream's last item, if that revision is too old: list again.
    pub async fn watch(
        &self,
        params: &WatchParams,
    ) -> Result<impl Stream<Item = Result<Event<K>, ApiError>> + Send + Unpin + use<K>, ApiError> {
        match self.client.call(self.request(None, None, Operation::Watch(params.clone()))).await?.body {
            ResponseBody::Watch(stream) => Ok(stream.map(|event| {
                let event = event?;
                Ok(match event.event {
                    EventType::Added | EventType::Modified => Event::Applied(typed(&event.object)?),
                    EventType::Deleted => Event::Deleted(typed(&event.object)?),
                    EventType::Bookmark => Event::Bookmark {
                        revision: event.object.revision(),
                        initial: event.initial_events_end,
                    },
                })
            })),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes `object`; the answer is what the server made of it.
    ///
    /// # Errors
    /// [`ApiError::is_already_exists`] if the name is taken.
    pub async fn create(&self, object: &K) -> Result<Arc<K>, ApiError> {
        let payload = Payload::Typed(Box::new(object.clone()));
        self.object(None, None, Operation::Create(payload, self.write_params())).await
    }

    /// Makes a subresource of `name`, such as an eviction.
    ///
    /// # Errors
    /// Whatever stands against it.
    pub async fn create_subresource(
        &self,
        name: &str,
        subresource: &str,
        json: Vec<u8>,
    ) -> Result<(), ApiError> {
        let operation = Operation::Create(Payload::Json(json.into()), self.write_params());
        self.client.call(self.request(Some(name), Some(subresource), operation)).await.map(drop)
    }

    /// Replaces an object; its resourceVersion, if set, must be the present one.
    ///
    /// # Errors
    /// [`ApiError::is_conflict`] if the object changed meanwhile.
    pub async fn update(&self, object: &K) -> Result<Arc<K>, ApiError> {
        self.replace(object, None).await
    }

    /// Replaces an object's status.
    ///
    /// # Errors
    /// [`ApiError::is_conflict`] if the object changed meanwhile.
    pub async fn update_status(&self, object: &K) -> Result<Arc<K>, ApiError> {
        self.replace(object, Some("status")).await
    }

    async fn replace(&self, object: &K, subresource: Option<&str>) -> Result<Arc<K>, ApiError> {
        let name = object.meta().name.clone().unwrap_or_default();
        let payload = Payload::Typed(Box::new(object.clone()));
        self.object(Some(&name), subresource, Operation::Update(payload, self.write_params())).await
    }

    /// Changes the object `name`.
    ///
    /// # Errors
    /// [`ApiError::is_not_found`] if there is none.
    pub async fn patch(&self, name: &str, patch: Patch) -> Result<Arc<K>, ApiError> {
        self.object(Some(name), None, Operation::Patch(patch, self.write_params())).await
    }

    /// Applies `config`, which says nothing but what `manager` wants of the object: makes the object, or changes these
    /// fields and takes out those that the manager applied before and nobody else owns. With `force`, it takes over
    /// fields that others own.
    ///
    /// A typed configuration says something of each field that its type does not make optional; a
    /// [`serde_json::Value`] can leave out any. A resourceVersion in it must be the present one.
    ///
    /// ```
    /// # use k8s_openapi::api::core::v1::ConfigMap;
    /// # use minik8s_reconcile::{ApiServer, storage::memory::MemoryStorage};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), minik8s_reconcile::ApiError> {
    /// # let server = ApiServer::new(MemoryStorage::new());
    /// # server.bootstrap().await?;
    /// let configs = server.client().namespaced::<ConfigMap>("default");
    /// let mut config = ConfigMap::default();
    /// config.data = Some([("key".to_owned(), "1".to_owned())].into());
    /// configs.apply("a", "me", &config, false).await?;
    ///
    /// config.data = Some([("key".to_owned(), "2".to_owned())].into());
    /// let refused = configs.apply("a", "somebody else", &config, false).await.expect_err("a conflict");
    /// assert_eq!(refused.to_string(), "Apply failed with 1 conflict: conflict with \"me\": .data.key");
    /// configs.apply("a", "somebody else", &config, true).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ApiError::is_conflict`] if others own fields that would change, with one cause for each.
    pub async fn apply(
        &self,
        name: &str,
        manager: &str,
        config: &impl serde::Serialize,
        force: bool,
    ) -> Result<Arc<K>, ApiError> {
        self.apply_part(name, None, manager, config, force).await
    }

    /// As [`Api::apply`], for the status of an object that exists.
    ///
    /// # Errors
    /// [`ApiError::is_not_found`] if there is none, and as [`Api::apply`].
    pub async fn apply_status(
        &self,
        name: &str,
        manager: &str,
        config: &impl serde::Serialize,
        force: bool,
    ) -> Result<Arc<K>, ApiError> {
        self.apply_part(name, Some("status"), manager, config, force).await
    }

    async fn apply_part(
        &self,
        name: &str,
        subresource: Option<&str>,
        manager: &str,
        config: &impl serde::Serialize,
        force: bool,
    ) -> Result<Arc<K>, ApiError> {
        let mut config = serde_json::to_value(config)
            .map_err(|e| ApiError::bad_request(format!("the configuration cannot be written: {e}")))?;
        let Some(fields) = config.as_object_mut() else {
            return Err(ApiError::bad_request("the configuration is no object"));
        };
        fields.insert("apiVersion".to_owned(), self.kind.api_version().into());
        fields.insert("kind".to_owned(), self.kind.kind.as_ref().into());
        let metadata = fields.entry("metadata").or_insert_with(|| serde_json::json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("name".to_owned(), name.into());
        }
        let body = config.to_string().into();
        let params = WriteParams { field_manager: manager.to_owned(), ..WriteParams::default() };
        let operation = Operation::Patch(Patch { format: PatchFormat::Apply, body, force }, params);
        self.object(Some(name), subresource, operation).await
    }

    /// Changes the status of the object `name`.
    ///
    /// # Errors
    /// [`ApiError::is_not_found`] if there is none.
    pub async fn patch_status(&self, name: &str, patch: Patch) -> Result<Arc<K>, ApiError> {
        self.object(Some(name), Some("status"), Operation::Patch(patch, self.write_params())).await
    }

    /// Deletes the object `name`. It may live on for its grace period or its finalizers.
    ///
    /// # Errors
    /// [`ApiError::is_not_found`] if there is none, [`ApiError::is_conflict`] if a precondition does not hold.
    pub async fn delete(&self, name: &str, params: &DeleteParams) -> Result<(), ApiError> {
        self.client.call(self.request(Some(name), None, Operation::Delete(params.clone()))).await.map(drop)
    }
}

fn typed<K: Resource>(object: &Stored) -> Result<Arc<K>, ApiError> {
    object
        .typed()
        .map_err(|e| ApiError::internal(format!("the server sent a {} that is none: {e}", K::kind(&()))))
}

fn unexpected(body: &ResponseBody) -> ApiError {
    ApiError::internal(format!("unexpected answer {body:?}"))
}
