//! A connection to a server.

use std::sync::Arc;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use minik8s_api::{Kind, Registry, crd};
use minik8s_reconcile::request::ListParams;
use minik8s_reconcile::{ApiError, ApiRequest, ApiResponse, Client};

use crate::args::Connection;

/// A connection to a server, and the namespace that is meant when none is named.
pub struct Session {
    kube: kube::Client,
    client: Client,
    namespace: String,
}

impl Session {
    /// Finds the server.
    pub async fn connect(connection: &Connection) -> anyhow::Result<Self> {
        let config = config(connection).await?;
        let namespace = connection.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let kube = kube::Client::try_from(config)?;
        let client = Client::remote(kube.clone(), Arc::new(Registry::builtin())).field_manager("minik8s");
        Ok(Self { kube, client, namespace })
    }

    pub fn kube(&self) -> &kube::Client {
        &self.kube
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn registry(&self) -> Arc<Registry> {
        self.client.registry()
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Sends a request and prints the server's warnings.
    pub async fn call(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        let response = self.client.call(request).await?;
        for warning in &response.warnings {
            super::note(&format!("warning: {warning}"));
        }
        Ok(response)
    }

    /// The kind that a user calls `word`.
    pub async fn kind(&self, word: &str) -> anyhow::Result<Arc<Kind>> {
        if let Some(kind) = self.registry().find(word) {
            return Ok(kind.clone());
        }
        self.learn().await?;
        let registry = self.registry();
        registry.find(word).cloned().ok_or_else(|| {
            let close = registry.iter().filter(|k| k.plural.starts_with(&word[..word.len().min(3)]));
            let close: Vec<_> = close.map(|k| k.plural.to_string()).take(5).collect();
            if close.is_empty() {
                anyhow::anyhow!("the server does not have a resource type \"{word}\"")
            } else {
                anyhow::anyhow!(
                    "the server does not have a resource type \"{word}\"; did you mean {}?",
                    close.join(", ")
                )
            }
        })
    }

    /// The kind that a manifest names.
    pub async fn kind_of(&self, api_version: &str, kind: &str) -> anyhow::Result<Option<Arc<Kind>>> {
        if let Some(kind) = self.registry().by_kind(api_version, kind) {
            return Ok(Some(kind.clone()));
        }
        self.learn().await?;
        Ok(self.registry().by_kind(api_version, kind).cloned())
    }

    /// Learns the cluster's own kinds, which this program does not bring along. Who may not see their definitions does
    /// without.
    pub async fn learn(&self) -> anyhow::Result<()> {
        let definitions =
            match self.client.all::<CustomResourceDefinition>().list(&ListParams::default()).await {
                Ok(definitions) => definitions,
                Err(error) if error.is_forbidden() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
        let mut registry = (*self.registry()).clone();
        for kind in definitions.items.iter().filter_map(|definition| crd::kinds(definition).ok()).flatten() {
            registry.register(kind);
        }
        self.client.kinds().replace(registry);
        Ok(())
    }

    /// GETs a path, as one of `accept`.
    pub async fn get(&self, path: &str, accept: &str) -> Result<Response<Body>, ApiError> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(http::header::ACCEPT, accept)
            .body(Body::empty())
            .map_err(|e| ApiError::bad_request(e.to_string()))?;
        let response = self.kube.send(request).await.map_err(unreachable)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status();
        let bytes = response.into_body().collect().await.map_err(unreachable)?.to_bytes();
        Err(match serde_json::from_slice::<Status>(&bytes) {
            Ok(status) => ApiError::from_status(status),
            Err(_) => ApiError::new(code.as_u16(), "", format!("the server answered {code}")),
        })
    }
}

async fn config(connection: &Connection) -> anyhow::Result<kube::Config> {
    let options = KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
    let config = match &connection.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .map_err(|e| anyhow::anyhow!("cannot read the kubeconfig {}: {e}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &options).await?
        }
        None => kube::Config::from_kubeconfig(&options).await.map_err(|e| {
            anyhow::anyhow!("no usable kubeconfig: {e}\nset KUBECONFIG or give --kubeconfig FILE")
        })?,
    };
    Ok(config)
}

/// What it means that no answer came.
pub fn unreachable(error: impl std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("the server cannot be reached: {error}; is it running?"))
}
