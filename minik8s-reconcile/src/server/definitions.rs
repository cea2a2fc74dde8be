//! Custom resource definitions: whatever is written of one takes effect before the writer gets its answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames,
};
use minik8s_api::crd::{self, names};
use minik8s_api::{Kind, Object, Registry};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::key::Scope;
use super::{ApiServer, encoding};
use crate::error::ApiError;
use crate::request::{ApiRequest, ApiResponse, Operation, ResponseBody, User};
use crate::storage::{Compare, Op, Query, Txn, TxnOutcome};
use crate::stored::Stored;

/// How often the status of definitions is worked out anew when somebody else writes them meanwhile.
const ATTEMPTS: usize = 8;

/// How long to wait before a storage that failed is asked again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// What the server knows of definitions.
#[derive(Clone)]
pub(super) struct Definitions {
    built_in: Arc<Registry>,
    /// By name. Held while definitions are written, one after the other.
    known: Arc<Mutex<BTreeMap<String, Known>>>,
}

/// The kinds of a definition, and what they were made from.
struct Known {
    origin: Origin,
    kinds: Vec<Arc<Kind>>,
}

/// All that the kinds of a definition depend on. Its generation stands for its spec.
#[derive(PartialEq)]
struct Origin {
    uid: Option<String>,
    generation: Option<i64>,
    names: CustomResourceDefinitionNames,
    terminating: bool,
}

impl Definitions {
    pub(super) fn new(built_in: Arc<Registry>) -> Self {
        Self { built_in, known: Arc::default() }
    }
}

/// Whether a request changes definitions.
pub(super) fn is_write(request: &ApiRequest) -> bool {
    request.kind.kind == "CustomResourceDefinition"
        && request.kind.group == "apiextensions.k8s.io"
        && !matches!(request.operation, Operation::Get | Operation::List(_) | Operation::Watch(_))
}

impl ApiServer {
    /// Carries out a change of definitions, and what follows from it for the kinds that are served.
    pub(super) async fn write_definition(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        let server = self.clone();
        // A task of its own: what was begun is brought to its end even if nobody waits for the answer any more.
        let work = async move {
            let mut known = server.definitions.known.lock().await;
            let scope = Scope::new(request.kind.clone(), None, request.user.clone())?;
            let dry_run = match &request.operation {
                Operation::Create(_, params) | Operation::Update(_, params) | Operation::Patch(_, params) => {
                    params.dry_run
                }
                Operation::Delete(params) | Operation::DeleteCollection(_, params) => params.dry_run,
                _ => true,
            };
            let mut response = server.dispatch(request).await?;
            if dry_run {
                return Ok(response);
            }
            server.settle(&mut known).await?;
            if let ResponseBody::Object { object, .. } = &mut response.body {
                let metadata = object.metadata().map_err(ApiError::internal)?;
                // The writer sees what became of it, so that its next change is not refused as outdated.
                if let Some(name) = &metadata.name
                    && let Some(now) = server.storage.get(&scope.key(name)?).await?
                    && now.metadata().map_err(ApiError::internal)?.uid == metadata.uid
                {
                    *object = now;
                }
            }
            Ok(response)
        };
        tokio::spawn(work).await.map_err(ApiError::internal)?
    }

    /// Serves the kinds of the definitions that are stored.
    pub(super) async fn settle_definitions(&self) -> Result<(), ApiError> {
        self.settle(&mut *self.definitions.known.lock().await).await
    }

    /// Serves what other servers on the same storage write of definitions, too, until `stop`. What this server writes
    /// needs none of it.
    pub async fn follow_definitions(&self, stop: CancellationToken) {
        let Some(kind) = self.definitions.built_in.of::<CustomResourceDefinition>() else { return };
        let Ok(scope) = Scope::new(kind.clone(), None, User::internal()) else { return };
        let follow = async {
            loop {
                let followed = self.follow_definitions_from(&scope.prefix()).await;
                if let Err(error) = followed {
                    tracing::debug!(%error, "reading the custom resource definitions anew");
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = follow => {}
        }
    }

    async fn follow_definitions_from(&self, prefix: &str) -> Result<(), ApiError> {
        let revision = self.storage.revision().await?;
        let mut watch = self.storage.watch(prefix, revision).await?;
        self.settle_definitions().await?;
        loop {
            watch.next().await?;
            self.settle_definitions().await?;
        }
    }

    /// Brings the kinds that are served and the status of all definitions in line with the definitions. A kind is
    /// served before its definition says so.
    async fn settle(&self, known: &mut BTreeMap<String, Known>) -> Result<(), ApiError> {
        let Some(kind) = self.definitions.built_in.of::<CustomResourceDefinition>() else { return Ok(()) };
        let scope = Scope::new(kind.clone(), None, User::internal())?;
        for _ in 0..ATTEMPTS {
            let page = self.storage.list(&Query::prefix(scope.prefix())).await?;
            let stored: Vec<_> = page.items.into_iter().map(|(_, stored)| stored).collect();
            let read = |s: &Stored| s.typed::<CustomResourceDefinition>();
            let mut definitions =
                stored.iter().map(read).collect::<Result<Vec<_>, _>>().map_err(ApiError::internal)?;
            let settled = names::settle(&definitions, &self.definitions.built_in, self.clock.now());
            let mut changed = Vec::new();
            for ((definition, status), stored) in definitions.iter_mut().zip(settled).zip(stored) {
                if definition.status.as_ref() != Some(&status) {
                    Arc::make_mut(definition).status = Some(status);
                    changed.push((definition.clone(), stored));
                }
            }
            self.serve(&definitions, known);
            if self.report(&scope, changed).await? {
                return Ok(());
            }
        }
        Err(ApiError::unavailable("the custom resource definitions change too fast"))
    }

    /// Serves the kinds of these definitions.
    fn serve(&self, definitions: &[Arc<CustomResourceDefinition>], known: &mut BTreeMap<String, Known>) {
        let mut registry = (*self.definitions.built_in).clone();
        let mut next = BTreeMap::new();
        for definition in definitions.iter().filter(|d| names::is_established(d)) {
            let name = definition.metadata.name.clone().unwrap_or_default();
            let origin = Origin {
                uid: definition.metadata.uid.clone(),
                generation: definition.metadata.generation,
                names: names::accepted(definition).clone(),
                terminating: definition.metadata.deletion_timestamp.is_some(),
            };
            let kinds = match known.remove(&name).filter(|k| k.origin == origin) {
                // The same kinds as before, so that watches of them go on.
                Some(known) => known.kinds,
                None => match crd::kinds(definition) {
                    Ok(kinds) => kinds.into_iter().map(Arc::new).collect(),
                    Err(errors) => {
                        tracing::error!(definition = name, %errors, "a stored definition is not valid; it is not served");
                        Vec::new()
                    }
                },
            };
            kinds.iter().for_each(|kind| registry.insert(kind.clone()));
            next.insert(name, Known { origin, kinds });
        }
        *known = next;
        if !registry.is_same(&self.kinds.current()) {
            self.kinds.replace(registry);
        }
    }

    /// Writes statuses; `false` if somebody else wrote meanwhile.
    async fn report(
        &self,
        scope: &Scope,
        changed: Vec<(Arc<CustomResourceDefinition>, Stored)>,
    ) -> Result<bool, ApiError> {
        for (mut definition, stored) in changed {
            let key = scope.key(definition.metadata.name.as_deref().unwrap_or_default())?;
            let object: &mut CustomResourceDefinition = Arc::make_mut(&mut definition);
            let draft = encoding::draft(&scope.kind, object, stored.managed_fields())?;
            let txn = Txn {
                compare: vec![Compare::Revision(key.clone(), stored.revision())],
                ops: vec![Op::Put(key, draft)],
            };
            if let TxnOutcome::Refused { .. } = self.storage.txn(txn).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Notes in a definition that its objects are to go before it.
pub(super) fn mark_deleted(object: &mut dyn Object, now: Timestamp) {
    let Some(definition) = object.downcast_mut::<CustomResourceDefinition>() else { return };
    let finalizers = definition.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == names::FINALIZER) {
        finalizers.push(names::FINALIZER.to_owned());
    }
    let status = definition.status.get_or_insert_default();
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    names::set_condition(status, "Terminating", true, "InstanceDeletionPending", message, now);
}

#[cfg(test)]
mod tests;
