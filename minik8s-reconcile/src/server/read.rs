//! GET, of one and of many.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use minik8s_api::Kind;
use minik8s_api::selector::{FieldSelector, Selector};
use serde::{Deserialize, Serialize};

use super::ApiServer;
use super::key::Scope;
use crate::error::ApiError;
use crate::request::{ApiResponse, ListParams, ObjectList, ResponseBody, VersionMatch};
use crate::storage::Query;
use crate::stored::Stored;

/// Which objects a request is about, beyond their place.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    labels: Selector,
    fields: FieldSelector,
}

impl Filter {
    pub(super) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let labels = Selector::parse(labels)
            .map_err(|e| ApiError::bad_request(format!("unable to parse requirement: {e}")))?;
        let fields = FieldSelector::parse(fields).map_err(|e| ApiError::bad_request(e.to_string()))?;
        for requirement in fields.requirements() {
            if !kind.is_selectable(&requirement.path) {
                return Err(ApiError::bad_request(format!(
                    "field label not supported: {} (a {} can be selected by {})",
                    requirement.path,
                    kind.kind,
                    kind.selectable_paths().join(", ")
                )));
            }
        }
        Ok(Self { labels, fields })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub(super) fn matches(&self, kind: &Kind, stored: &Stored) -> bool {
        if self.is_everything() {
            return true;
        }
        let facts = stored.facts(kind);
        self.labels.matches(&facts.labels)
            && self.fields.matches(|path| facts.field(path).map(ToOwned::to_owned))
    }
}

/// The revision of a token that takes what there is now.
const ANY_REVISION: i64 = -1;

/// Where a list goes on: opaque to clients.
#[derive(Serialize, Deserialize)]
struct ContinueToken {
    /// [`ANY_REVISION`] for whatever there is now.
    #[serde(rename = "rv")]
    revision: i64,
    /// The last key of the page before.
    #[serde(rename = "start")]
    after: String,
}

impl ContinueToken {
    fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a number and a string"))
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or_else(|| ApiError::bad_request("continue key is not valid"))
    }
}

impl ApiServer {
    pub(super) async fn get(&self, scope: &Scope, name: &str) -> Result<ApiResponse, ApiError> {
        let object = self.served(&scope.kind, &self.read(scope, name).await?).await?;
        super::node::admit_reading(scope, &object)?;
        Ok(ResponseBody::Object { object, created: false }.into())
    }

    /// The object `name` as it is stored, or 404.
    pub(super) async fn read(&self, scope: &Scope, name: &str) -> Result<Stored, ApiError> {
        let found = self.storage.get(&scope.key(name)?).await?;
        found.ok_or_else(|| ApiError::not_found(&scope.kind, name))
    }

    pub(super) async fn list(&self, scope: &Scope, params: &ListParams) -> Result<ApiResponse, ApiError> {
        let filter = Filter::parse(&scope.kind, &params.label_selector, &params.field_selector)?;
        let mut query = Query::prefix(scope.prefix());
        if params.continue_.is_empty() {
            match (params.version_match, params.resource_version) {
                (VersionMatch::Exact, None | Some(0)) => {
                    return Err(ApiError::bad_request(
                        "resourceVersionMatch Exact is forbidden unless resourceVersion is provided and not 0",
                    ));
                }
                (VersionMatch::Exact, Some(revision)) => query.at = Some(revision),
                // As it was before one could say what is meant.
                (VersionMatch::Unset, Some(revision)) if revision > 0 && params.limit > 0 => {
                    query.at = Some(revision);
                }
                (VersionMatch::NotOlderThan | VersionMatch::Unset, Some(revision)) => {
                    let current = self.storage.revision().await?;
                    if revision > current {
                        return Err(
                            crate::storage::StorageError::Future { requested: revision, current }.into()
                        );
                    }
                }
                (VersionMatch::NotOlderThan | VersionMatch::Unset, None) => {}
            }
        } else {
            let token = ContinueToken::decode(&params.continue_)?;
            if !token.after.starts_with(&query.prefix) {
                return Err(ApiError::bad_request("continue key is not valid for this collection"));
            }
            if params.resource_version.is_some_and(|v| v > 0) {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            // A token that is to go on in spite of everything has no revision.
            query.at = u64::try_from(token.revision).ok();
            query.after = Some(token.after);
        }
        // A filter may pass few of many, so only an unfiltered page can be cut by the storage.
        if filter.is_everything() {
            query.limit = params.limit as usize;
        }
        let page = self.storage.list(&query).await.map_err(|e| match ApiError::from(e) {
            e if e.is_expired() && !params.continue_.is_empty() => {
                let after = query.after.clone().unwrap_or_default();
                ApiError::expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start \
                     a new list without the continue parameter, or use the continue token in this response to \
                     retrieve the remainder of the results. Continuing with the provided token results in an \
                     inconsistent list - objects that were created, modified, or deleted between the time the \
                     first chunk was returned and now may show up in the list.",
                )
                .with_continue(ContinueToken { revision: ANY_REVISION, after }.encode())
            }
            e => e,
        })?;
        let limit = if params.limit == 0 { usize::MAX } else { params.limit as usize };
        let mut list = ObjectList {
            items: Vec::new(),
            revision: page.revision,
            continue_: String::new(),
            remaining: None,
        };
        let mut last = None;
        let mut more = page.remaining > 0;
        let (keys, stored): (Vec<_>, Vec<_>) = page.items.into_iter().unzip();
        let served = self.all_served(&scope.kind, &stored).await?;
        for (key, object) in keys.into_iter().zip(served) {
            if !filter.matches(&scope.kind, &object) {
                continue;
            }
            if list.items.len() == limit {
                more = true;
                break;
            }
            last = Some(key);
            list.items.push(object);
        }
        if let (true, Some(after)) = (more, last) {
            let revision = i64::try_from(page.revision).unwrap_or(i64::MAX);
            list.continue_ = ContinueToken { revision, after: after.to_string() }.encode();
            list.remaining = filter.is_everything().then_some(page.remaining);
        }
        Ok(ResponseBody::List(list).into())
    }
}

#[cfg(test)]
mod tests;
