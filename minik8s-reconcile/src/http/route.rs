//! What a path means.

use percent_encoding::percent_decode_str;

use crate::error::ApiError;

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/`
    Root,
    /// `/healthz`, `/livez`, `/readyz`, and the name of one check below them.
    Health(String, Option<String>),
    /// `/version`
    Version,
    /// `/minik8s/backup`
    Backup,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`: (group, version)
    Resources(String, String),
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3`
    OpenApiV3Index,
    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/VERSION`
    OpenApiV3(String, String),
    /// `/.well-known/openid-configuration`
    OpenIdConfiguration,
    /// `/openid/v1/jwks`
    KeySet,
    /// An object or a collection.
    Resource(Place),
}

/// Where an object or a collection is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: Option<String>,
    pub(super) plural: String,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
    /// What follows the subresource, as in `nodes/n1/proxy/stats`.
    pub(super) rest: String,
}

impl Route {
    pub(super) fn parse(path: &str) -> Result<Self, ApiError> {
        let segments = path
            .trim_matches('/')
            .split('/')
            .map(|s| percent_decode_str(s).decode_utf8().map(|s| s.into_owned()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| ApiError::bad_request("the path is not UTF-8"))?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let owned = |s: &str| s.to_owned();
        Ok(match segments.as_slice() {
            [""] => Self::Root,
            [endpoint @ ("healthz" | "livez" | "readyz")] => Self::Health(owned(endpoint), None),
            [endpoint @ ("healthz" | "livez" | "readyz"), check] => {
                Self::Health(owned(endpoint), Some(owned(check)))
            }
            ["version"] => Self::Version,
            ["minik8s", "backup"] => Self::Backup,
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group(owned(group)),
            ["api", version] => Self::Resources(String::new(), owned(version)),
            ["apis", group, version] => Self::Resources(owned(group), owned(version)),
            ["openapi", "v2"] => Self::OpenApiV2,
            ["openapi", "v3"] => Self::OpenApiV3Index,
            ["openapi", "v3", "api", version] => Self::OpenApiV3(String::new(), owned(version)),
            ["openapi", "v3", "apis", group, version] => Self::OpenApiV3(owned(group), owned(version)),
            [".well-known", "openid-configuration"] => Self::OpenIdConfiguration,
            ["openid", "v1", "jwks"] => Self::KeySet,
            ["api", version, rest @ ..] => Self::Resource(place("", version, rest)?),
            ["apis", group, version, rest @ ..] => Self::Resource(place(group, version, rest)?),
            _ => return Err(ApiError::no_such_resource()),
        })
    }
}

fn place(group: &str, version: &str, rest: &[&str]) -> Result<Place, ApiError> {
    let (namespace, rest) = match rest {
        // These are about the namespace object itself.
        ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        rest => (None, rest),
    };
    if namespace == Some("") || rest.iter().any(|s| s.is_empty()) {
        return Err(ApiError::no_such_resource());
    }
    let (plural, rest) = rest.split_first().ok_or_else(ApiError::no_such_resource)?;
    let mut rest = rest.iter();
    Ok(Place {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: namespace.map(ToOwned::to_owned),
        plural: (*plural).to_owned(),
        name: rest.next().map(|&s| s.to_owned()),
        subresource: rest.next().map(|&s| s.to_owned()),
        rest: rest.copied().collect::<Vec<_>>().join("/"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> (String, Option<String>, String, Option<String>, Option<String>) {
        match Route::parse(path) {
            Ok(Route::Resource(p)) => (p.group, p.namespace, p.plural, p.name, p.subresource),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths_of_objects() {
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(resource("/api/v1/pods"), (String::new(), None, "pods".into(), None, None));
        assert_eq!(
            resource("/api/v1/namespaces/a/pods/b/log"),
            (String::new(), some("a"), "pods".into(), some("b"), some("log"))
        );
        assert_eq!(
            resource("/api/v1/namespaces/a"),
            (String::new(), None, "namespaces".into(), some("a"), None)
        );
        assert_eq!(
            resource("/api/v1/namespaces/a/finalize"),
            (String::new(), None, "namespaces".into(), some("a"), some("finalize"))
        );
        assert_eq!(
            resource("/apis/apps/v1/namespaces/a%20b/deployments/"),
            ("apps".into(), some("a b"), "deployments".into(), None, None)
        );
    }

    #[test]
    fn paths_that_lead_nowhere() {
        for path in ["/foo", "/api/v1/namespaces//pods", "/openapi/v4"] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
    }
}
