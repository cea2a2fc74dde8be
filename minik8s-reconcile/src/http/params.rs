//! Query parameters.

use std::str::FromStr;

use serde::Deserialize;

use crate::error::ApiError;
use crate::request::{
    DeleteParams, FieldValidation, ListParams, Propagation, VersionMatch, WatchParams, WriteParams,
};

/// The parameters of a request.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// Whether it is there at all, if only with an empty value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// All values that it is given.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("{name}: Invalid value: \"{text}\": must be a number"))
            }),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false" | "0" | "False" | "f" | "F" | "FALSE") => Ok(false),
            Some("true" | "1" | "True" | "t" | "T" | "TRUE") => Ok(true),
            Some(other) => Err(ApiError::bad_request(format!(
                "{name}: Invalid value: \"{other}\": must be true or false"
            ))),
        }
    }

    fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    fn dry_run(&self) -> Result<bool, ApiError> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(ApiError::bad_request(format!(
                "dryRun: Unsupported value: \"{other}\": supported values: \"All\""
            ))),
        }
    }

    pub(super) fn list(&self) -> Result<ListParams, ApiError> {
        let version_match = match self.get("resourceVersionMatch") {
            None | Some("NotOlderThan") => VersionMatch::NotOlderThan,
            Some("Exact") => VersionMatch::Exact,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "resourceVersionMatch: Unsupported value: \"{other}\": supported values: \"Exact\", \
                     \"NotOlderThan\""
                )));
            }
        };
        Ok(ListParams {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            limit: self.number("limit")?.unwrap_or(0),
            continue_: self.text("continue"),
            resource_version: self.number("resourceVersion")?,
            version_match,
        })
    }

    pub(super) fn watch(&self) -> Result<WatchParams, ApiError> {
        Ok(WatchParams {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            resource_version: self.number("resourceVersion")?,
            bookmarks: self.flag("allowWatchBookmarks")?,
            send_initial_events: self.flag("sendInitialEvents")?,
            timeout_s: self.number("timeoutSeconds")?,
        })
    }

    /// Parameters of a write. A program that does not say who it is goes by its `user_agent`.
    pub(super) fn write(&self, user_agent: &str) -> Result<WriteParams, ApiError> {
        let field_validation = match self.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Warn\", \
                     \"Strict\""
                )));
            }
        };
        let field_manager = match self.get("fieldManager") {
            Some(name) => name.to_owned(),
            None => manager_of(user_agent),
        };
        Ok(WriteParams { field_manager, dry_run: self.dry_run()?, field_validation })
    }

    /// Parameters of a DELETE; what the body says, as JSON, comes before what the query says.
    pub(super) fn delete(&self, body: &[u8]) -> Result<DeleteParams, ApiError> {
        let options: DeleteOptions = match body.is_empty() {
            true => DeleteOptions::default(),
            false => serde_json::from_slice(body)
                .map_err(|e| ApiError::bad_request(format!("the body is not a DeleteOptions: {e}")))?,
        };
        let policy =
            options.propagation_policy.or_else(|| self.get("propagationPolicy").map(ToOwned::to_owned));
        let propagation = match policy.as_deref() {
            None if options.orphan_dependents == Some(true) => Some(Propagation::Orphan),
            None => None,
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "propagationPolicy: Unsupported value: \"{other}\": supported values: \"Background\", \
                     \"Foreground\", \"Orphan\""
                )));
            }
        };
        let preconditions = options.preconditions.unwrap_or_default();
        let resource_version = match preconditions.resource_version {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| {
                ApiError::bad_request(format!(
                    "preconditions.resourceVersion: Invalid value: \"{text}\": must be a number"
                ))
            })?),
        };
        Ok(DeleteParams {
            grace_period_s: match options.grace_period_seconds {
                Some(seconds) => Some(seconds),
                None => self.number("gracePeriodSeconds")?,
            },
            propagation,
            uid: preconditions.uid,
            resource_version,
            dry_run: options.dry_run.iter().flatten().any(|d| d == "All") || self.dry_run()?,
        })
    }
}

/// The name by which a program is known that gives none: that of its user agent, as far as the first `/`.
fn manager_of(user_agent: &str) -> String {
    const MAX: usize = 128;
    let mut name: String =
        user_agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    while name.len() > MAX {
        name.pop();
    }
    name
}

/// The body of a DELETE; clients send it without `kind`, too.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    preconditions: Option<Preconditions>,
    dry_run: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}
