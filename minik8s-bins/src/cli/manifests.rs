//! Reading manifests from files, folders and standard input.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use minik8s_api::Kind;
use minik8s_api::manifest::{self, Document};
use minik8s_reconcile::ApiRequest;
use minik8s_reconcile::request::Operation;

use super::session::Session;

/// An object that a manifest describes.
pub struct Manifest {
    pub kind: Arc<Kind>,
    pub document: Document,
}

impl Manifest {
    /// The object's name; empty if the server is to make one up.
    pub fn name(&self) -> &str {
        self.document.value.pointer("/metadata/name").and_then(|n| n.as_str()).unwrap_or_default()
    }

    /// `pod/web`
    pub fn title(&self) -> String {
        let kind = &self.kind;
        let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
        format!("{}{group}/{}", kind.singular, self.name())
    }

    /// A request about the object itself.
    pub fn request(&self, session: &Session, operation: Operation) -> ApiRequest {
        let own = self.document.value.pointer("/metadata/namespace").and_then(|n| n.as_str());
        let namespace = own.unwrap_or_else(|| session.namespace());
        let request = session.client().request(self.kind.clone(), Some(namespace), operation);
        ApiRequest { name: Some(self.name().to_owned()), ..request }
    }

    /// Where it stands, for messages.
    pub fn place(&self) -> String {
        format!(
            "{} (document {}, line {})",
            self.document.source,
            self.document.index + 1,
            self.document.line
        )
    }
}

/// Reads everything, and checks that all of it can be sent, before any of it is.
pub async fn load(session: &Session, paths: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for (source, text) in texts(paths)? {
        for document in manifest::load(&source, &text)? {
            let field = |name: &str| document.value.get(name).and_then(|v| v.as_str()).unwrap_or_default();
            let (api_version, kind) = (field("apiVersion"), field("kind"));
            let Some(kind) = session.kind_of(api_version, kind).await? else {
                anyhow::bail!(
                    "{source}: document {}, line {}: no matches for kind \"{kind}\" in version \"{api_version}\"",
                    document.index + 1,
                    document.line
                );
            };
            manifests.push(Manifest { kind, document });
        }
    }
    if manifests.is_empty() {
        anyhow::bail!("no objects in {}", list(paths));
    }
    Ok(manifests)
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn texts(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            texts.push(("standard input".to_owned(), text));
        } else if path.is_dir() {
            let entries =
                std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
            let mut files = entries.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>()?;
            files.retain(|f| matches!(f.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json")));
            files.sort();
            if files.is_empty() {
                anyhow::bail!("no .yaml, .yml or .json files in {}", path.display());
            }
            for file in files {
                texts.push(read(&file)?);
            }
        } else {
            texts.push(read(path)?);
        }
    }
    Ok(texts)
}

fn read(path: &Path) -> anyhow::Result<(String, String)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((path.display().to_string(), text))
}
