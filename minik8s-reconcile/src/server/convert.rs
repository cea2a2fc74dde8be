//! Objects in the version of their kind that is asked for. Where a definition names a webhook for that, it is asked, for
//! many objects at once
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#webhook-conversion>).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{ServiceReference, WebhookClientConfig};
use minik8s_api::kind::Converter;
use minik8s_api::{Kind, Object, Unstructured};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiServer, call, encoding};
use crate::error::ApiError;
use crate::storage::Draft;
use crate::stored::Stored;

/// How long a webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects that are converted together.
const BATCH: usize = 500;

impl ApiServer {
    /// A stored object as one of `kind`.
    pub(super) async fn served(&self, kind: &Arc<Kind>, stored: &Stored) -> Result<Stored, ApiError> {
        if kind.converter.is_none() {
            return Ok(stored.served_as(kind)?);
        }
        let mut served = self.all_served(kind, std::slice::from_ref(stored)).await?;
        Ok(served.swap_remove(0))
    }

    /// Stored objects as those of `kind`, in their order.
    pub(super) async fn all_served(
        &self,
        kind: &Arc<Kind>,
        stored: &[Stored],
    ) -> Result<Vec<Stored>, ApiError> {
        let Some(converter) = &kind.converter else {
            return stored.iter().map(|s| s.served_as(kind).map_err(ApiError::from)).collect();
        };
        let wanted = kind.api_version();
        // What is to be converted, with its place, by the version in which it is stored.
        let mut foreign: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut served = Vec::with_capacity(stored.len());
        for (at, object) in stored.iter().enumerate() {
            let version = version_of(object)?;
            if version == wanted || object.is_served_as(kind) {
                served.push(Some(object.served_as(kind)?));
            } else {
                served.push(None);
                foreign.entry(version).or_default().push(at);
            }
        }
        for (version, places) in foreign {
            for places in places.chunks(BATCH) {
                let read =
                    |at: &usize| serde_json::from_slice(stored[*at].json()).map_err(ApiError::internal);
                let objects = places.iter().map(read).collect::<Result<Vec<Value>, _>>()?;
                let converted = self.convert(kind, converter, &version, &wanted, objects).await?;
                for (at, object) in places.iter().zip(converted) {
                    let json = text(object)?;
                    served[*at] = Some(stored[*at].served_from(kind, &json)?);
                }
            }
        }
        Ok(served.into_iter().flatten().collect())
    }

    /// The object as it is stored, lacking nothing but its revision. `managed` is the JSON of its `managedFields`.
    pub(super) async fn draft(
        &self,
        kind: &Kind,
        object: &mut dyn Object,
        managed: Option<&[u8]>,
    ) -> Result<Draft, ApiError> {
        let Some(converter) = kind.converter.as_ref().filter(|_| !kind.is_stored_form()) else {
            return encoding::draft(kind, object, managed);
        };
        encoding::strip(object);
        let (from, to) = (kind.api_version(), converter.stored.as_str());
        let mut converted = self.convert(kind, converter, &from, to, vec![object.to_value()]).await?;
        Ok(encoding::gapped(text(converted.swap_remove(0))?, managed))
    }

    /// An object of one version of a kind in another.
    pub(super) async fn in_version(
        &self,
        object: &dyn Object,
        from: &Kind,
        to: &Kind,
    ) -> Result<Value, ApiError> {
        let Some(converter) = &from.converter else {
            let stored = from.to_stored(object)?;
            let served = to.from_stored(&stored)?.unwrap_or(stored);
            return serde_json::from_slice(&served).map_err(ApiError::internal);
        };
        let (version, wanted) = (from.api_version(), to.api_version());
        let objects = vec![object.to_value()];
        let mut converted = self.convert(from, converter, &version, &wanted, objects).await?;
        Ok(converted.swap_remove(0))
    }

    /// Asks the webhook for objects in the version `to`.
    async fn convert(
        &self,
        kind: &Kind,
        converter: &Converter,
        from: &str,
        to: &str,
        objects: Vec<Value>,
    ) -> Result<Vec<Value>, ApiError> {
        let failed = |why: &str| {
            let what = format!("conversion webhook for {from}, Kind={} failed: {why}", kind.kind);
            ApiError::internal(what)
        };
        if !converter.webhook.conversion_review_versions.iter().any(|v| v == "v1") {
            let why = "it accepts no version of ConversionReview that this server speaks (v1)";
            return Err(failed(why));
        }
        let uid = self.rng.uid();
        let review = json!({ "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "request": { "uid": uid, "desiredAPIVersion": to, "objects": objects } });
        let client = client(converter);
        let answer = call::call(self, &client, TIMEOUT, review.to_string().into()).await;
        let answer = answer.map_err(|why| failed(&why))?;
        let converted = read(&answer, &uid, to, objects.len()).map_err(|why| failed(&why))?;
        let pairs = objects.iter().zip(converted);
        pairs.map(|(before, after)| kept(before, after).map_err(|why| failed(&why))).collect()
    }
}

/// The version in which an object is stored.
fn version_of(stored: &Stored) -> Result<String, ApiError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Header {
        api_version: String,
    }
    let header: Header = serde_json::from_slice(stored.json()).map_err(ApiError::internal)?;
    Ok(header.api_version)
}

/// The text of a tree, as objects of custom kinds are written.
fn text(object: Value) -> Result<Vec<u8>, ApiError> {
    let object = Unstructured::from_value(object, &mut Vec::new()).map_err(ApiError::internal)?;
    Ok(object.to_json())
}

fn client(converter: &Converter) -> WebhookClientConfig {
    let config = converter.webhook.client_config.clone().unwrap_or_default();
    WebhookClientConfig {
        ca_bundle: config.ca_bundle,
        service: config.service.map(|s| ServiceReference {
            name: s.name,
            namespace: s.namespace,
            path: s.path,
            port: s.port,
        }),
        url: config.url,
    }
}

#[derive(Deserialize)]
struct Review {
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    result: Outcome,
    converted_objects: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outcome {
    status: Option<String>,
    message: Option<String>,
}

/// The objects that a webhook answers with.
fn read(answer: &[u8], uid: &str, to: &str, count: usize) -> Result<Vec<Value>, String> {
    let review: Review =
        serde_json::from_slice(answer).map_err(|e| format!("its answer cannot be read: {e}"))?;
    let response = review.response.ok_or("no response provided")?;
    if response.uid != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
    }
    if response.result.status.as_deref() != Some("Success") {
        return Err(response.result.message.unwrap_or_else(|| "it does not say why".to_owned()));
    }
    let objects = response.converted_objects.unwrap_or_default();
    if objects.len() != count {
        return Err(format!("expected {count} converted objects, got {}", objects.len()));
    }
    let wrong = |o: &&Value| o.get("apiVersion").and_then(Value::as_str) != Some(to);
    match objects.iter().position(|o| wrong(&o)) {
        Some(at) => Err(format!("converted object {at} is not of version {to}")),
        None => Ok(objects),
    }
}

/// The converted object, of whose metadata a webhook may change labels and annotations alone.
fn kept(before: &Value, mut after: Value) -> Result<Value, String> {
    let (old, new) = (&before["metadata"], after["metadata"].clone());
    for field in ["name", "namespace", "uid"] {
        if old[field] != new[field] {
            return Err(format!(
                "invalid metadata in converted object: metadata.{field} must not be changed"
            ));
        }
    }
    let mut metadata = old.clone();
    if let Some(metadata) = metadata.as_object_mut() {
        for field in ["labels", "annotations"] {
            match new.get(field) {
                Some(value) if !value.is_null() => drop(metadata.insert(field.to_owned(), value.clone())),
                _ => drop(metadata.remove(field)),
            }
        }
    }
    after["metadata"] = metadata;
    Ok(after)
}

#[cfg(all(test, feature = "tls"))]
mod tests;
