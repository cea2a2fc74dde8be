//! Pulling through containerd's own CRI plugin: it knows registries, mirrors and credentials.

use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};

use super::rpc::Rpc;
use crate::runtime::{RegistryAuth, Result, RuntimeError};

/// `runtime.v1.PullImageRequest`
#[derive(Clone, PartialEq, Message)]
struct PullImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
    #[prost(message, optional, tag = "2")]
    auth: Option<AuthConfig>,
}

/// `runtime.v1.ImageSpec`
#[derive(Clone, PartialEq, Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

/// `runtime.v1.AuthConfig`
#[derive(Clone, PartialEq, Message)]
struct AuthConfig {
    #[prost(string, tag = "1")]
    username: String,
    #[prost(string, tag = "2")]
    password: String,
}

/// `runtime.v1.PullImageResponse`
#[derive(Clone, PartialEq, Message)]
struct PullImageResponse {
    #[prost(string, tag = "1")]
    image_ref: String,
}

/// Pulls and unpacks an image into namespace `k8s.io`, the only one that the plugin knows.
pub(super) async fn pull(rpc: &Rpc, reference: &str, auth: Option<&RegistryAuth>) -> Result<()> {
    let request = PullImageRequest {
        image: Some(ImageSpec { image: reference.to_owned() }),
        auth: auth
            .map(|auth| AuthConfig { username: auth.username.clone(), password: auth.password.clone() }),
    };
    let mut grpc = tonic::client::Grpc::new(rpc.channel());
    grpc.ready().await.map_err(|error| RuntimeError::Unavailable(format!("containerd: {error}")))?;
    let codec = tonic_prost::ProstCodec::<PullImageRequest, PullImageResponse>::default();
    let path = PathAndQuery::from_static("/runtime.v1.ImageService/PullImage");
    grpc.unary(Request::new(request), path, codec).await.map_err(|status| refusal(reference, &status))?;
    Ok(())
}

/// What a refused pull means. Registries answer the question for what does not exist and the question for what one may
/// not see in many ways; the cause is put in front of their own words.
fn refusal(reference: &str, status: &Status) -> RuntimeError {
    let said = status.message();
    let pull = |cause: &str| RuntimeError::ImagePull {
        image: reference.to_owned(),
        message: if cause.is_empty() { said.to_owned() } else { format!("{cause}: {said}") },
    };
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match status.code() {
        Code::Unavailable
            if has(&["connection error", "transport error", "error reading server preface"]) =>
        {
            RuntimeError::Unavailable(format!("containerd: {said}"))
        }
        Code::Unimplemented => pull("containerd's CRI plugin, which pulls images, is disabled"),
        Code::InvalidArgument if has(&["failed to parse image reference", "invalid reference format"]) => {
            RuntimeError::InvalidImageName(reference.to_owned())
        }
        _ if has(&[
            "401",
            "403",
            "authorization failed",
            "insufficient_scope",
            "no basic auth credentials",
        ]) =>
        {
            pull("unauthorized")
        }
        Code::NotFound => pull("not found"),
        _ => pull(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(code: Code, said: &str) -> String {
        refusal("r.test/a:1", &Status::new(code, said)).to_string()
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        assert_eq!(
            words(Code::NotFound, "failed to resolve reference \"r.test/a:1\": r.test/a:1: not found"),
            "failed to pull image \"r.test/a:1\": not found: failed to resolve reference \"r.test/a:1\": \
             r.test/a:1: not found"
        );
        assert!(words(Code::Unknown, "unexpected status: 401 Unauthorized").contains("unauthorized: "));
        assert_eq!(
            words(Code::InvalidArgument, "failed to parse image reference \"x\""),
            "invalid image name \"r.test/a:1\""
        );
        assert_eq!(
            words(Code::Unknown, "no space left"),
            "failed to pull image \"r.test/a:1\": no space left"
        );
        assert!(matches!(
            refusal("a", &Status::new(Code::Unavailable, "transport error")),
            RuntimeError::Unavailable(_)
        ));
    }
}
