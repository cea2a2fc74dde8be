//! `apply` and `create`.
//!
//! `apply` is the server's: it knows what was applied before, so that a field that is taken out of a manifest is taken
//! out of the object, and who else has a say in it.

use std::process::ExitCode;

use minik8s_reconcile::ApiError;
use minik8s_reconcile::request::{
    FieldValidation, Operation, Patch, PatchFormat, Payload, ResponseBody, WriteParams,
};

use super::manifests::{self, Manifest};
use super::session::Session;
use super::{note, print, print_error};
use crate::args::{Apply, Files};

/// Who owns what this command line sets.
const MANAGER: &str = "minik8s-apply";

pub async fn create(session: &Session, files: &Files) -> anyhow::Result<ExitCode> {
    each(session, files, async |manifest| make(session, manifest, files.dry_run).await).await
}

pub async fn apply(session: &Session, files: &Apply) -> anyhow::Result<ExitCode> {
    each(session, &files.files, async |manifest| apply_one(session, manifest, files).await).await
}

/// Does something for each manifest; one that fails does not keep the others back.
async fn each(
    session: &Session,
    files: &Files,
    act: impl AsyncFn(&Manifest) -> Result<&'static str, ApiError>,
) -> anyhow::Result<ExitCode> {
    let manifests = manifests::load(session, &files.filename).await?;
    let mut code = ExitCode::SUCCESS;
    let suffix = if files.dry_run { " (dry run)" } else { "" };
    for manifest in &manifests {
        match act(manifest).await {
            Ok(done) => print(&format!("{} {done}{suffix}\n", manifest.title()))?,
            Err(error) => {
                code = ExitCode::FAILURE;
                let owned = error.is_apply_conflict();
                print_error(&anyhow::Error::new(error).context(manifest.place()));
                if owned {
                    note(
                        "take these fields out of the manifest to leave them to their manager, or take them over with \
                         --force-conflicts",
                    );
                }
            }
        }
    }
    Ok(code)
}

fn params(dry_run: bool) -> WriteParams {
    WriteParams { field_manager: MANAGER.to_owned(), dry_run, field_validation: FieldValidation::Strict }
}

async fn make(session: &Session, manifest: &Manifest, dry_run: bool) -> Result<&'static str, ApiError> {
    let payload = Payload::Json(manifest.document.value.to_string().into());
    let mut request = manifest.request(session, Operation::Create(payload, params(dry_run)));
    request.name = None;
    session.call(request).await.map(|_| "created")
}

async fn apply_one(session: &Session, manifest: &Manifest, files: &Apply) -> Result<&'static str, ApiError> {
    if manifest.name().is_empty() {
        return Err(ApiError::bad_request(
            "metadata.name: Required value: apply needs a name; create does not",
        ));
    }
    let before = match session.call(manifest.request(session, Operation::Get)).await {
        Ok(response) => revision(&response.body),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let body = manifest.document.value.to_string().into();
    let patch = Patch { format: PatchFormat::Apply, body, force: files.force_conflicts };
    let operation = Operation::Patch(patch, params(files.files.dry_run));
    let applied = session.call(manifest.request(session, operation)).await?;
    Ok(match (before, revision(&applied.body)) {
        (None, _) => "created",
        (before, after) if before == after && !files.files.dry_run => "unchanged",
        _ => "configured",
    })
}

fn revision(body: &ResponseBody) -> Option<u64> {
    match body {
        ResponseBody::Object { object, .. } => Some(object.revision()),
        _ => None,
    }
}
