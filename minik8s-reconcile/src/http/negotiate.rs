//! Which shape and encoding of an answer a client wants.

use http::{HeaderMap, header};
use minik8s_api::protobuf;

use crate::error::ApiError;
use crate::request::PatchFormat;

/// The shape of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    /// Objects as they are.
    #[default]
    Object,
    /// `meta.k8s.io/v1` Table: what `kubectl get` prints.
    Table,
    /// Metadata only.
    Metadata,
}

/// The encoding of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    #[default]
    Json,
    Yaml,
}

/// What answers can be written as.
const WRITTEN: &[&str] = &["application/json", "application/yaml"];

/// The alternative of `Accept` that the client likes best of those that can be served.
///
/// # Errors
/// 406, if there is none.
pub(super) fn accepted(headers: &HeaderMap) -> Result<(Shape, Encoding), ApiError> {
    best(headers, alternative).unwrap_or_else(|| Ok(Default::default()))
}

/// The alternative of `Accept` that the client likes best of those that `serve` knows; `None` without the header.
pub(super) fn best<T>(
    headers: &HeaderMap,
    serve: impl Fn(&str, &[(&str, &str)]) -> Option<T>,
) -> Option<Result<T, ApiError>> {
    let texts = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let mut alternatives: Vec<_> =
        texts.flat_map(|t| t.split(',')).map(str::trim).filter(|t| !t.is_empty()).map(parse).collect();
    if alternatives.is_empty() {
        return None;
    }
    alternatives.retain(|a| a.quality > 0);
    // Stable: among equals the first counts.
    alternatives.sort_by_key(|a| std::cmp::Reverse(a.quality));
    let found = alternatives.iter().find_map(|a| serve(a.media_type, &a.parameters));
    Some(found.ok_or_else(|| ApiError::not_acceptable(WRITTEN)))
}

/// One alternative of an `Accept` header.
struct Alternative<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    /// In thousandths.
    quality: u16,
}

fn parse(text: &str) -> Alternative<'_> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let mut quality = 1000;
    let mut parameters = Vec::new();
    for (name, value) in parts.filter_map(|p| p.split_once('=')) {
        let value = value.trim_matches('"');
        match name {
            "q" => {
                let q = value.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0);
                quality = (q * 1000.0) as u16;
            }
            _ => parameters.push((name, value)),
        }
    }
    Alternative { media_type, parameters, quality }
}

fn alternative(media_type: &str, parameters: &[(&str, &str)]) -> Option<(Shape, Encoding)> {
    let encoding = match media_type {
        "application/json" | "application/*" | "*/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let mut shape = Shape::Object;
    let mut v1 = true;
    for parameter in parameters {
        match parameter {
            ("as", "Table") => shape = Shape::Table,
            ("as", "PartialObjectMetadata" | "PartialObjectMetadataList") => shape = Shape::Metadata,
            ("as", _) => return None,
            ("v", version) => v1 = *version == "v1",
            _ => {}
        }
    }
    (v1 || shape == Shape::Object).then_some((shape, encoding))
}

/// How the body of a request is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Json,
    Yaml,
    Protobuf,
}

/// What bodies can be read as.
const READ: &[&str] = &["application/json", "application/yaml", protobuf::MEDIA_TYPE];
/// What patches can be read as.
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// How a request's body is encoded: JSON, if it does not say.
///
/// # Errors
/// 415 for what cannot be read.
pub(super) fn sent(headers: &HeaderMap) -> Result<Sent, ApiError> {
    match media_type(headers) {
        "application/json" | "" => Ok(Sent::Json),
        "application/yaml" => Ok(Sent::Yaml),
        protobuf::MEDIA_TYPE => Ok(Sent::Protobuf),
        _ => Err(unknown_format(READ)),
    }
}

/// The language of a patch.
///
/// # Errors
/// 415 for what is none.
pub(super) fn patch_format(headers: &HeaderMap) -> Result<PatchFormat, ApiError> {
    match media_type(headers) {
        "application/json-patch+json" => Ok(PatchFormat::Json),
        "application/merge-patch+json" => Ok(PatchFormat::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchFormat::StrategicMerge),
        "application/apply-patch+yaml" => Ok(PatchFormat::Apply),
        _ => Err(unknown_format(PATCHES)),
    }
}

fn unknown_format(readable: &[&str]) -> ApiError {
    ApiError::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        readable.join(", ")
    ))
}

/// The media type of a request's body, without parameters.
fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &str) -> (Shape, Encoding) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().expect("a header"));
        accepted(&headers).expect("acceptable")
    }

    #[test]
    fn preferences_and_refusals() {
        assert_eq!(of("application/yaml;q=0.5, application/json"), (Shape::Object, Encoding::Json));
        assert_eq!(of("application/json;q=0.2;v=v1,application/yaml;q=0.9"), (Shape::Object, Encoding::Yaml));
        assert_eq!(of("text/html,application/xhtml+xml,*/*;q=0.8"), (Shape::Object, Encoding::Json));
        assert_eq!(of("application/json;stream=watch"), (Shape::Object, Encoding::Json));
        assert_eq!(of("application/json; charset=utf-8"), (Shape::Object, Encoding::Json));
        for accept in ["application/vnd.kubernetes.protobuf", "text/html", "application/json;q=0"] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().expect("a header"));
            let error = accepted(&headers).expect_err(accept);
            assert_eq!((error.code(), error.reason()), (406, "NotAcceptable"));
        }
        assert_eq!(accepted(&HeaderMap::new()), Ok(Default::default()));
    }

    #[test]
    fn bodies() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, text.parse().expect("a header"));
            (sent(&headers), patch_format(&headers))
        };
        assert_eq!(of("application/json; charset=utf-8").0, Ok(Sent::Json));
        assert_eq!(of("application/vnd.kubernetes.protobuf").0, Ok(Sent::Protobuf));
        assert_eq!(of("application/merge-patch+json;charset=utf-8").1, Ok(PatchFormat::Merge));
        let (body, patch) = of("text/plain");
        assert_eq!(
            body.expect_err("no object").to_string(),
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
        assert_eq!(patch.expect_err("no patch").code(), 415);
    }

    #[test]
    fn what_clients_ask_for() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(of(kubectl), (Shape::Table, Encoding::Json));
        assert_eq!(
            of("application/vnd.kubernetes.protobuf,application/json"),
            (Shape::Object, Encoding::Json)
        );
        assert_eq!(of("application/yaml"), (Shape::Object, Encoding::Yaml));
        assert_eq!(
            of("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            (Shape::Metadata, Encoding::Json)
        );
    }
}
