//! containerd's services, as clients that name our namespace in every call.

use std::error::Error as _;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{CreateNamespaceRequest, CreateRequest, DeleteRequest, Namespace};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::runtime::{Result, RuntimeError};

/// The largest message we take: a list of some hundred containers with their specs.
const MAX_MESSAGE: usize = 64 << 20;

/// A channel on which every call carries our namespace and perhaps a lease.
pub(super) type Scoped = InterceptedService<Channel, Scope>;

/// What goes with every call.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Scope {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

/// The way to containerd. Clones share one connection.
#[derive(Clone, Debug)]
pub(super) struct Rpc {
    channel: Channel,
    scope: Scope,
}

macro_rules! services {
    ($($name:ident: $client:ident,)*) => {$(
        pub(super) fn $name(&self) -> $client<Scoped> {
            $client::with_interceptor(self.channel.clone(), self.scope.clone())
                .max_decoding_message_size(MAX_MESSAGE)
        }
    )*};
}

impl Rpc {
    services! {
        containers: ContainersClient,
        content: ContentClient,
        diff: DiffClient,
        events: EventsClient,
        images: ImagesClient,
        leases: LeasesClient,
        namespaces: NamespacesClient,
        snapshots: SnapshotsClient,
        tasks: TasksClient,
        version: VersionClient,
    }

    pub(super) fn new(channel: Channel, namespace: &str) -> Result<Self> {
        let namespace = namespace.parse().map_err(|_| {
            RuntimeError::Other(format!("{namespace:?} is no name for a namespace of containerd"))
        })?;
        Ok(Self { channel, scope: Scope { namespace, lease: None } })
    }

    /// The channel itself, for services that have no namespaces.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Makes our namespace if it is not there yet.
    pub(super) async fn ensure_namespace(&self) -> Result<()> {
        let name = self.scope.namespace.to_str().unwrap_or_default().to_owned();
        let request = CreateNamespaceRequest { namespace: Some(Namespace { name, ..Namespace::default() }) };
        match self.namespaces().create(request).await {
            Err(status) if status.code() != Code::AlreadyExists => Err(failed("create namespace", &status)),
            _ => Ok(()),
        }
    }

    /// Takes a lease: what calls over the returned [`Rpc`] make stays until it is released, or for an hour.
    pub(super) async fn lease(&self) -> Result<Lease> {
        let expiry = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let labels = [("containerd.io/gc.expire".to_owned(), format!("{expiry:.0}"))].into();
        let request = CreateRequest { id: unique("minik8s"), labels };
        let answer = self.leases().create(request).await.map_err(|status| failed("create lease", &status))?;
        let id = answer.into_inner().lease.unwrap_or_default().id;
        let mut rpc = self.clone();
        rpc.scope.lease = id.parse().ok();
        Ok(Lease { rpc, id })
    }
}

/// A time in which containerd's garbage collector leaves our things alone.
pub(super) struct Lease {
    /// The channel under the lease.
    pub(super) rpc: Rpc,
    id: String,
}

impl Lease {
    /// Ends it. What nothing refers to by now goes.
    pub(super) async fn release(self) {
        let mut rpc = self.rpc;
        rpc.scope.lease = None;
        // If this fails it expires.
        if let Err(status) = rpc.leases().delete(DeleteRequest { id: self.id, sync: false }).await {
            tracing::debug!(%status, "a lease of containerd was not released");
        }
    }
}

/// A name that nobody has used before.
pub(super) fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{:x}-{:x}-{count:x}", std::process::id(), jiff::Timestamp::now().as_nanosecond())
}

/// What became of a call, in the words of this crate's errors.
pub(super) fn failed(what: &str, status: &Status) -> RuntimeError {
    let message = format!("{what}: {}", status.message());
    if unreachable(status) { RuntimeError::Unavailable(message) } else { RuntimeError::Other(message) }
}

/// Whether there was nobody to answer. A connection that breaks during a call has all sorts of codes, but unlike an answer
/// of containerd's it has a cause.
fn unreachable(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) || status.source().is_some()
}

/// `None` where containerd says that there is no such thing.
pub(super) fn found<T>(what: &str, answer: Result<tonic::Response<T>, Status>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(failed(what, &status)),
    }
}
