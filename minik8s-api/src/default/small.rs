//! The small kinds: those with a line or two of defaults.

use k8s_openapi::api::core::v1::{Namespace, Secret};

use super::set;

/// The label that holds a namespace's own name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Labels a namespace with its name, so that selectors can name it.
pub fn namespace(namespace: &mut Namespace) {
    if let Some(name) = namespace.metadata.name.clone() {
        namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
    }
}

/// Gives a secret its type and moves `stringData` to where it is read from.
pub fn secret(secret: &mut Secret) {
    set(&mut secret.type_, "Opaque");
    if let Some(strings) = secret.string_data.take() {
        let data = secret.data.get_or_insert_default();
        data.extend(strings.into_iter().map(|(k, v)| (k, k8s_openapi::ByteString(v.into_bytes()))));
    }
}
