//! Query parameters.

use std::str::FromStr;

use minik8s_api::{FieldErrors, FieldPath, Kind};
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

    /// Whether nothing is to be changed; complains in `errors`.
    fn dry_run(&self, errors: &mut FieldErrors) -> bool {
        dry_run(self.all("dryRun").filter(|v| !v.is_empty()).map(ToOwned::to_owned).collect(), errors)
    }

    /// A resourceVersion, which is a number here, whatever clients are to think of it.
    fn version(&self) -> Result<Option<u64>, &str> {
        match self.get("resourceVersion") {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| text),
        }
    }

    /// The resourceVersion of a GET of one object.
    pub(super) fn read_version(&self) -> Result<Option<u64>, ApiError> {
        self.version().map_err(|text| ApiError::bad_request(not_a_version(text)))
    }

    pub(super) fn list(&self) -> Result<ListParams, ApiError> {
        let mut errors = FieldErrors::new();
        let version_match = self.get("resourceVersionMatch");
        let path = || FieldPath::new("resourceVersionMatch");
        if let Some(text) = version_match {
            if self.get("resourceVersion").is_none() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.forbidden(path(), why);
            }
            if self.get("continue").is_some() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                errors.forbidden(path(), why);
            }
            match text {
                "Exact" if self.get("resourceVersion") == Some("0") => {
                    let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                    errors.forbidden(path(), why);
                }
                "Exact" | "NotOlderThan" => {}
                other => errors.not_supported(path(), other, &["Exact", "NotOlderThan", ""]),
            }
        }
        if self.get("sendInitialEvents").is_some() {
            errors.forbidden(FieldPath::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
        }
        valid("ListOptions", &errors)?;
        Ok(ListParams {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            limit: self.limit()?,
            continue_: self.text("continue"),
            resource_version: self.version().map_err(|text| ApiError::bad_request(not_a_version(text)))?,
            version_match: match version_match {
                Some("Exact") => VersionMatch::Exact,
                Some("NotOlderThan") => VersionMatch::NotOlderThan,
                _ => VersionMatch::Unset,
            },
        })
    }

    /// At most how many; fewer than none is no limit.
    fn limit(&self) -> Result<u32, ApiError> {
        let limit: i64 = self.number("limit")?.unwrap_or(0);
        Ok(u32::try_from(limit.max(0)).unwrap_or(u32::MAX))
    }

    /// Parameters of a watch of objects of `kind`.
    pub(super) fn watch(&self, kind: &Kind) -> Result<WatchParams, ApiError> {
        let mut errors = FieldErrors::new();
        let version_match = self.get("resourceVersionMatch");
        let asks = self.get("sendInitialEvents").is_some();
        let path = || FieldPath::new("resourceVersionMatch");
        if asks && version_match != Some("NotOlderThan") {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.forbidden(path(), why);
        }
        if let Some(text) = version_match {
            if !asks {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.forbidden(path(), why);
            }
            if text != "NotOlderThan" {
                errors.not_supported(path(), text, &["NotOlderThan"]);
            }
            if self.get("continue").is_some() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                errors.forbidden(path(), why);
            }
        }
        valid("ListOptions", &errors)?;
        let resource_version = self.version().map_err(|text| {
            let mut errors = FieldErrors::new();
            errors.invalid(FieldPath::new("resourceVersion"), text, "must be a number");
            ApiError::invalid(kind, "", &errors)
        })?;
        let seconds: Option<i64> = self.number("timeoutSeconds")?;
        Ok(WatchParams {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            resource_version,
            bookmarks: self.flag("allowWatchBookmarks")?,
            send_initial_events: self.flag("sendInitialEvents")?,
            timeout_s: seconds.filter(|s| *s > 0).map(|s| u32::try_from(s).unwrap_or(u32::MAX)),
        })
    }

    /// Parameters of a write, called `options` when something is wrong with them: `CreateOptions`, ….
    pub(super) fn write(&self, user_agent: &str, options: &str) -> Result<WriteParams, ApiError> {
        let mut errors = FieldErrors::new();
        let field_validation = match self.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let path = FieldPath::new("fieldValidation");
                errors.not_supported(path, other, &["", "Ignore", "Strict", "Warn"]);
                FieldValidation::default()
            }
        };
        let dry_run = self.dry_run(&mut errors);
        valid(options, &errors)?;
        let field_manager = match self.get("fieldManager") {
            Some(name) => name.to_owned(),
            None => manager_of(user_agent),
        };
        Ok(WriteParams { field_manager, dry_run, field_validation })
    }

    /// Parameters of a DELETE; what the body says, as JSON, comes before what the query says.
    pub(super) fn delete(&self, body: &[u8]) -> Result<DeleteParams, ApiError> {
        let options: DeleteOptions = match body.is_empty() {
            true => DeleteOptions::default(),
            false => serde_json::from_slice(body)
                .map_err(|e| ApiError::bad_request(format!("the body is not a DeleteOptions: {e}")))?,
        };
        let mut errors = FieldErrors::new();
        let policy =
            options.propagation_policy.or_else(|| self.get("propagationPolicy").map(ToOwned::to_owned));
        let path = FieldPath::new("propagationPolicy");
        if policy.is_some() && options.orphan_dependents.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.invalid(path.clone(), &policy, why);
        }
        let propagation = match policy.as_deref() {
            None if options.orphan_dependents == Some(true) => Some(Propagation::Orphan),
            None => None,
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                errors.not_supported(path, other, &["Background", "Foreground", "Orphan", "nil"]);
                None
            }
        };
        let dry_run = dry_run(options.dry_run.unwrap_or_default(), &mut errors) | self.dry_run(&mut errors);
        valid("DeleteOptions", &errors)?;
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
            dry_run,
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

/// Whether these values of `dryRun` ask for one.
fn dry_run(values: Vec<String>, errors: &mut FieldErrors) -> bool {
    if values.iter().any(|v| v != "All") {
        errors.not_supported(FieldPath::new("dryRun"), &values, &["All"]);
    }
    !values.is_empty()
}

fn valid(options: &str, errors: &FieldErrors) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid_options(options, errors)) }
}

fn not_a_version(text: &str) -> String {
    format!("invalid resource version: resourceVersion: Invalid value: \"{text}\": must be a number")
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

#[cfg(test)]
mod tests;
