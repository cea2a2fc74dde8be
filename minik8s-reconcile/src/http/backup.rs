//! `/minik8s/backup`: all objects, as they are at one revision.
//!
//! Whoever may `get` that path sees everything that is stored, secrets too. RBAC lets nobody but administrators do so.

use bytes::Bytes;
use http::{Response, StatusCode, header};

use super::{Body, Frontend};
use crate::error::ApiError;
use crate::storage::{Query, backup};

impl Frontend {
    pub(super) async fn backup(&self) -> Result<Response<Body>, ApiError> {
        let page = self.server.storage().list(&Query::default()).await?;
        let chunks = backup::chunks(page).map(|chunk| Ok(Bytes::from(chunk)));
        Ok(Response::builder()
            .status(StatusCode::OK)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(Body::stream(futures::stream::iter(chunks)))
            .expect("the parts are valid"))
    }
}
