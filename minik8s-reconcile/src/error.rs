//! The error of every API call: a Kubernetes `Status`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};
use minik8s_api::patch::apply::Conflicts;
use minik8s_api::{FieldError, FieldErrors, Kind};

use crate::request::Notes;

/// Why a request failed, in the terms of the API
/// (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>).
///
/// `Display` gives the message that a user should read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    code: u16,
    reason: &'static str,
    message: String,
    details: Option<Box<StatusDetails>>,
    /// A token to go on listing with, all the same.
    continue_: Option<Box<str>>,
    notes: Option<Box<Notes>>,
}

/// Why a field cannot be applied: the reason of a cause.
const OWNED: &str = "FieldManagerConflict";

macro_rules! reasons {
    ($($(#[$doc:meta])* $is:ident, $reason:literal;)*) => {
        /// Questions to the reason.
        impl ApiError {
            $($(#[$doc])* pub fn $is(&self) -> bool { self.reason == $reason })*
        }

        /// The `&'static str` of a reason that came over the wire.
        fn intern(reason: &str) -> &'static str {
            match reason {
                $($reason => $reason,)*
                "BadRequest" => "BadRequest",
                "Invalid" => "Invalid",
                "Unauthorized" => "Unauthorized",
                "MethodNotAllowed" => "MethodNotAllowed",
                "NotAcceptable" => "NotAcceptable",
                "UnsupportedMediaType" => "UnsupportedMediaType",
                "RequestEntityTooLarge" => "RequestEntityTooLarge",
                "RequestURITooLong" => "RequestURITooLong",
                "TooManyRequests" => "TooManyRequests",
                "InternalError" => "InternalError",
                "InsufficientStorage" => "InsufficientStorage",
                _ => "",
            }
        }
    };
}

reasons! {
    /// There is no such object (404).
    is_not_found, "NotFound";
    /// An object of that name exists (409).
    is_already_exists, "AlreadyExists";
    /// The object changed meanwhile, or a precondition does not hold (409).
    is_conflict, "Conflict";
    /// The revision or continue token is older than what the server keeps (410): list again.
    is_expired, "Expired";
    /// Who asks may not do that (403).
    is_forbidden, "Forbidden";
    /// The server did not answer in time (504).
    is_timeout, "Timeout";
    /// The server cannot be reached or is shutting down (503).
    is_unavailable, "ServiceUnavailable";
}

impl ApiError {
    /// An error of any code and reason; prefer the named constructors.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_: None, notes: None }
    }

    /// 404 for the object `name`.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", kind.qualified())).about(kind, name)
    }

    /// 404 for a path that leads nowhere.
    pub fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409 for a create of a name that is taken.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", kind.qualified()))
            .about(kind, name)
    }

    /// 409 for a write whose condition does not hold; `why` says which.
    pub fn conflict(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// 422 with one cause for every field error.
    pub fn invalid(kind: &Kind, name: &str, errors: &FieldErrors) -> Self {
        Self::invalid_object(&kind.group, &kind.kind, name, errors)
    }

    /// 422 for the options of a request, such as `CreateOptions`, with one cause for every field error.
    pub fn invalid_options(options: &str, errors: &FieldErrors) -> Self {
        Self::invalid_object("meta.k8s.io", options, "", errors)
    }

    pub(crate) fn invalid_object(group: &str, kind: &str, name: &str, errors: &FieldErrors) -> Self {
        let subject = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let message = format!("{subject} \"{name}\" is invalid: {errors}");
        let cause = |e: &FieldError| StatusCause {
            field: Some(e.path.to_string()),
            message: Some(e.body()),
            reason: Some(e.fault.reason().to_owned()),
        };
        let mut error = Self::new(422, "Invalid", message);
        error.details = Some(Box::new(StatusDetails {
            group: Some(group.to_owned()).filter(|g| !g.is_empty()),
            kind: Some(kind.to_owned()),
            name: Some(name.to_owned()).filter(|n| !n.is_empty()),
            causes: Some(errors.0.iter().map(cause).collect()),
            ..StatusDetails::default()
        }));
        error
    }

    /// 409 for a configuration that would change what others own, with one cause for every such field.
    pub fn apply_conflict(conflicts: &Conflicts) -> Self {
        let cause = |conflict: &minik8s_api::patch::apply::Conflict| StatusCause {
            field: Some(conflict.path.to_string()),
            message: Some(format!("conflict with {}", conflict.owner)),
            reason: Some(OWNED.to_owned()),
        };
        let causes = Some(conflicts.0.iter().map(cause).collect());
        let details = StatusDetails { causes, ..StatusDetails::default() };
        Self { details: Some(Box::new(details)), ..Self::new(409, "Conflict", conflicts.to_string()) }
    }

    /// Whether it is that of [`Self::apply_conflict`]: others own fields that would change.
    pub fn is_apply_conflict(&self) -> bool {
        let causes = self.details.iter().filter_map(|d| d.causes.as_ref()).flatten();
        causes.into_iter().any(|cause| cause.reason.as_deref() == Some(OWNED))
    }

    /// 400: the request itself makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: nobody the server knows.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: this may not be done here; `why` says what stands against it.
    pub fn forbidden(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Self {
        Self::forbidden_resource(&kind.group, &kind.plural, name, why)
    }

    /// As [`Self::forbidden`], for a resource that need not exist.
    pub fn forbidden_resource(group: &str, plural: &str, name: &str, why: impl std::fmt::Display) -> Self {
        let dot = if group.is_empty() { "" } else { "." };
        let quoted = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        let message = format!("{plural}{dot}{group}{quoted} is forbidden: {why}");
        let mut error = Self::new(403, "Forbidden", message);
        error.details = Some(Box::new(StatusDetails {
            group: Some(group.to_owned()).filter(|g| !g.is_empty()),
            kind: Some(plural.to_owned()),
            name: Some(name.to_owned()).filter(|n| !n.is_empty()),
            ..StatusDetails::default()
        }));
        error
    }

    /// 405: the resource does not have that verb.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 410: what was asked for has been compacted away.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413: more bytes than the server takes.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 414: a path and query of more bytes than the server takes.
    pub fn uri_too_long(limit: usize) -> Self {
        let message = format!("Request URI too long: limit is {limit} bytes");
        Self::new(414, "RequestURITooLong", message)
    }

    /// 406: an answer in none of the media types that can be written, which are `supported`.
    pub fn not_acceptable(supported: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", supported.join(", "));
        Self::new(406, "NotAcceptable", message)
    }

    /// 415: a media type that cannot be read; `message` names it and what can.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 429: try again after that many seconds, or, with 0, when it seems fit.
    pub fn too_many_requests(message: impl Into<String>, retry_after_s: i32) -> Self {
        let mut error = Self::new(429, "TooManyRequests", message);
        let retry_after_seconds = Some(retry_after_s).filter(|s| *s > 0);
        error.details = Some(Box::new(StatusDetails { retry_after_seconds, ..Default::default() }));
        error
    }

    /// The same error, with one more cause: a word for programs and a sentence for people.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>) -> Self {
        let cause = StatusCause {
            field: None,
            message: Some(message.into()),
            reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
        };
        let details = self.details.get_or_insert_default();
        details.causes.get_or_insert_default().push(cause);
        self
    }

    /// The same error, under another code and reason.
    #[must_use]
    pub(crate) fn coded(mut self, code: u16, reason: &'static str) -> Self {
        (self.code, self.reason) = (code, reason);
        self
    }

    /// 500: a fault of the server.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {error}"))
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504: too late.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    /// The same error, with a token to go on listing with.
    #[must_use]
    pub fn with_continue(mut self, token: String) -> Self {
        self.continue_ = Some(token.into_boxed_str());
        self
    }

    /// The same error, after which to try again in that many seconds.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: i32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    /// A token to go on listing with after [`Self::is_expired`]: what comes shows a later revision than the pages
    /// before.
    pub fn continue_token(&self) -> Option<&str> {
        self.continue_.as_deref()
    }

    /// The same error, with what else there is to be said about the request.
    #[must_use]
    pub fn with_notes(mut self, notes: Notes) -> Self {
        if !notes.is_empty() {
            self.notes.get_or_insert_default().extend(notes);
        }
        self
    }

    /// What else there is to be said about the request that failed: warnings, and annotations for an audit log.
    pub fn notes(&self) -> Option<&Notes> {
        self.notes.as_deref()
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = Some(Box::new(StatusDetails {
            group: (!kind.group.is_empty()).then(|| kind.group.to_string()),
            kind: Some(kind.plural.to_string()),
            name: (!name.is_empty()).then(|| name.to_owned()),
            ..Default::default()
        }));
        self
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The reason in one word, such as `NotFound`; may be empty.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// Seconds after which to try again, if the server said.
    pub fn retry_after_s(&self) -> Option<i32> {
        self.details.as_ref().and_then(|d| d.retry_after_seconds)
    }

    /// The error as the body of a response.
    pub fn to_status(&self) -> Status {
        Status {
            code: Some(self.code.into()),
            details: self.details.as_deref().cloned(),
            message: Some(self.message.clone()),
            metadata: ListMeta {
                continue_: self.continue_.as_deref().map(ToOwned::to_owned),
                ..ListMeta::default()
            },
            reason: (!self.reason.is_empty()).then(|| self.reason.to_owned()),
            status: Some("Failure".to_owned()),
        }
    }

    /// The error that a response's body says it is.
    pub fn from_status(status: Status) -> Self {
        Self {
            code: status.code.and_then(|c| u16::try_from(c).ok()).unwrap_or(500),
            reason: intern(status.reason.as_deref().unwrap_or_default()),
            message: status.message.unwrap_or_else(|| "unknown error".to_owned()),
            details: status.details.map(Box::new),
            continue_: status.metadata.continue_.map(String::into_boxed_str),
            notes: None,
        }
    }
}
