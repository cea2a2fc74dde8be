//! `delete`.

use std::process::ExitCode;
use std::sync::Arc;

use futures::StreamExt;
use minik8s_api::Kind;
use minik8s_reconcile::request::{
    DeleteParams, EventType, ListParams, Operation, Propagation, ResponseBody, WatchParams,
};
use minik8s_reconcile::{ApiError, ApiRequest, Stored};

use super::resources;
use super::session::Session;
use super::{manifests, note, print, print_error};
use crate::args::Delete;

/// An object to be deleted.
struct Doomed {
    kind: Arc<Kind>,
    namespace: Option<String>,
    name: String,
}

impl Doomed {
    fn title(&self) -> String {
        format!("{} \"{}\"", self.kind.singular, self.name)
    }

    fn request(&self, session: &Session, operation: Operation) -> ApiRequest {
        let request = session.client().request(self.kind.clone(), self.namespace.as_deref(), operation);
        ApiRequest { name: Some(self.name.clone()), ..request }
    }
}

pub async fn run(session: &Session, delete: &Delete) -> anyhow::Result<ExitCode> {
    let params = DeleteParams {
        grace_period_s: match (delete.force, delete.now) {
            (true, _) => Some(0),
            (_, true) => Some(1),
            _ => delete.grace_period,
        },
        propagation: Some(Propagation::Background),
        ..DeleteParams::default()
    };
    if delete.force {
        note("warning: the object is removed at once; what it stands for may go on running for a while");
    }
    let by_search = delete.all || delete.selector.is_some();
    let mut code = ExitCode::SUCCESS;
    let mut going = Vec::new();
    for doomed in find(session, delete).await? {
        match session.call(doomed.request(session, Operation::Delete(params.clone()))).await {
            Ok(response) => {
                print(&format!("{} deleted\n", doomed.title()))?;
                if let ResponseBody::Object { object, .. } = response.body {
                    going.push((doomed, object));
                }
            }
            // One that was found and is gone has gone by itself.
            Err(error) if error.is_not_found() && (delete.ignore_not_found || by_search) => {}
            Err(error) => {
                code = ExitCode::FAILURE;
                print_error(&error.into());
            }
        }
    }
    if !delete.no_wait {
        for (doomed, last) in going {
            wait(session, &doomed, &last).await?;
        }
    }
    Ok(code)
}

async fn find(session: &Session, delete: &Delete) -> anyhow::Result<Vec<Doomed>> {
    let mut found = Vec::new();
    if !delete.filename.is_empty() {
        for manifest in manifests::load(session, &delete.filename).await? {
            let request = manifest.request(session, Operation::Get);
            let name = manifest.name().to_owned();
            found.push(Doomed { kind: manifest.kind, namespace: request.namespace, name });
        }
        return Ok(found);
    }
    for target in resources::parse(session, &delete.resources).await? {
        let namespace = target.kind.namespaced.then(|| session.namespace().to_owned());
        let kind = target.kind;
        if target.names.is_empty() {
            let Some(selector) = delete.selector.clone().or(delete.all.then(String::new)) else {
                anyhow::bail!("which {}? Give names, -l LABELS or --all", kind.plural);
            };
            let list = Operation::List(ListParams::labels(selector));
            let request = session.client().request(kind.clone(), namespace.as_deref(), list);
            if let ResponseBody::List(list) = session.call(request).await?.body {
                for object in list.items {
                    let name = object.metadata()?.name.unwrap_or_default();
                    found.push(Doomed { kind: kind.clone(), namespace: namespace.clone(), name });
                }
            }
        }
        let doomed = |name| Doomed { kind: kind.clone(), namespace: namespace.clone(), name };
        found.extend(target.names.into_iter().map(doomed));
    }
    if found.is_empty() {
        note("No resources found");
    }
    Ok(found)
}

/// Waits until the object (not a new one of its name) is gone.
async fn wait(session: &Session, doomed: &Doomed, last: &Stored) -> Result<(), ApiError> {
    let uid = |object: &Stored| object.metadata().ok().and_then(|m| m.uid);
    let present = match session.call(doomed.request(session, Operation::Get)).await {
        Ok(response) => match response.body {
            ResponseBody::Object { object, .. } => object,
            _ => return Ok(()),
        },
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    };
    if uid(&present) != uid(last) {
        return Ok(());
    }
    let watch = Operation::Watch(WatchParams {
        field_selector: format!("metadata.name={}", doomed.name),
        resource_version: Some(present.revision()),
        ..WatchParams::default()
    });
    let request = session.client().request(doomed.kind.clone(), doomed.namespace.as_deref(), watch);
    let ResponseBody::Watch(mut events) = session.call(request).await?.body else { return Ok(()) };
    while let Some(event) = events.next().await {
        if event?.event == EventType::Deleted {
            break;
        }
    }
    Ok(())
}
