//! Which shape and encoding of an answer a client wants.

use http::{HeaderMap, header};

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

/// The first alternative of `Accept` that can be served. An answer in JSON is better than none, so it never fails.
pub(super) fn accepted(headers: &HeaderMap) -> (Shape, Encoding) {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accept.split(',').find_map(alternative).unwrap_or_default()
}

fn alternative(text: &str) -> Option<(Shape, Encoding)> {
    let mut parts = text.split(';').map(str::trim);
    let encoding = match parts.next()? {
        "application/json" | "application/*" | "*/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let mut shape = Shape::Object;
    let mut v1 = true;
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("as", "Table")) => shape = Shape::Table,
            Some(("as", "PartialObjectMetadata" | "PartialObjectMetadataList")) => shape = Shape::Metadata,
            Some(("as", _)) => return None,
            Some(("v", version)) => v1 = version == "v1",
            _ => {}
        }
    }
    (v1 || shape == Shape::Object).then_some((shape, encoding))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &str) -> (Shape, Encoding) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().expect("a header"));
        accepted(&headers)
    }

    #[test]
    fn what_clients_ask_for() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(of(kubectl), (Shape::Table, Encoding::Json));
        assert_eq!(
            of("application/vnd.kubernetes.protobuf,application/json"),
            (Shape::Object, Encoding::Json)
        );
        assert_eq!(of("application/vnd.kubernetes.protobuf"), (Shape::Object, Encoding::Json));
        assert_eq!(of("application/yaml"), (Shape::Object, Encoding::Yaml));
        assert_eq!(
            of("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            (Shape::Metadata, Encoding::Json)
        );
    }
}
