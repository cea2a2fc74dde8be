//! The manifest with which a machine joins: a Node, as it is to be.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Node, Taint};
use minik8s_api::quantity::Quantity;
use minik8s_api::{Registry, manifest};
use minik8s_runtime::agent::AgentConfig;

/// A Node that a machine is to be.
#[derive(Debug)]
pub struct Manifest {
    text: String,
    node: Node,
}

impl Manifest {
    /// Reads a file, or standard input for `-`.
    ///
    /// # Errors
    /// It does not hold one Node, or says what an agent cannot do; the error says where.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let (source, text) = if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            ("standard input".to_owned(), text)
        } else {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            (path.display().to_string(), text)
        };
        Self::parse(&source, text)
    }

    fn parse(source: &str, text: String) -> anyhow::Result<Self> {
        let mut documents = manifest::load(source, &text)?;
        let document = match (documents.pop(), documents.len()) {
            (Some(document), 0) => document,
            (_, more) => bail!("{source}: expected one Node, found {} objects", more + usize::from(more > 0)),
        };
        let place = format!("{source} (document 1, line {})", document.line);
        if (document.api_version(), document.kind()) != ("v1", "Node") {
            bail!("{place}: expected a Node of v1, found {} of {}", document.kind(), document.api_version());
        }
        let registry = Registry::builtin();
        let kind = registry.of::<Node>().context("Nodes are built in")?;
        let decoded = kind.decode_value(&document.value).with_context(|| place.clone())?;
        if let Some(unknown) = decoded.unknown.first() {
            bail!("{place}: unknown field \"{unknown}\"");
        }
        let node = decoded.object.downcast_ref::<Node>().context("a Node")?.clone();
        let mut checked = node.clone();
        if checked.metadata.name.is_none() {
            checked.metadata.name = Some("unnamed".to_owned());
        }
        let mut errors = minik8s_api::meta::validate(&checked.metadata, kind);
        errors.extend(kind.validate(&checked));
        if !errors.is_empty() {
            bail!("{place}: {errors}");
        }
        let manifest = Self { text, node };
        manifest.check().map_err(|error| error.context(place))?;
        Ok(manifest)
    }

    /// Refuses what an agent would have to leave undone.
    fn check(&self) -> anyhow::Result<()> {
        let spec = self.node.spec.clone().unwrap_or_default();
        if spec.unschedulable == Some(true) {
            bail!("spec.unschedulable: a node joins schedulable; use a taint, or cordon it afterwards");
        }
        if spec.provider_id.is_some() || spec.config_source.is_some() || spec.external_id.is_some() {
            bail!(
                "spec: a machine that joins says its taints; providerID, configSource and externalID are not its to say"
            );
        }
        for (resource, quantity) in self.capacity() {
            if !matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage" | "pods") {
                bail!(
                    "status.capacity[{resource}]: expected cpu, memory, ephemeral-storage or pods; other resources are \
                     found out by the agent"
                );
            }
            Quantity::parse(&quantity)
                .map_err(|e| anyhow::anyhow!("status.capacity[{resource}]: {quantity:?}: {e}"))?;
        }
        Ok(())
    }

    /// The text that it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The node's name, if it says.
    pub fn name(&self) -> Option<&str> {
        self.node.metadata.name.as_deref().filter(|n| !n.is_empty())
    }

    fn taints(&self) -> Vec<Taint> {
        self.node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default()
    }

    fn capacity(&self) -> BTreeMap<String, String> {
        let capacity = self.node.status.as_ref().and_then(|s| s.capacity.clone()).unwrap_or_default();
        capacity.into_iter().map(|(resource, quantity)| (resource, quantity.0)).collect()
    }

    /// Has the agent register the node as the manifest says.
    pub fn configure(&self, config: &mut AgentConfig) {
        config.labels = self.node.metadata.labels.clone().unwrap_or_default();
        config.annotations = self.node.metadata.annotations.clone().unwrap_or_default();
        config.taints = self.taints();
        let capacity = self.capacity();
        let quantity = |resource: &str| capacity.get(resource).and_then(|text| Quantity::parse(text).ok());
        let whole = |resource: &str| quantity(resource).and_then(|q| u64::try_from(q.value()).ok());
        config.cpu_milli =
            quantity("cpu").and_then(|q| u64::try_from(q.milli_value()).ok()).or(config.cpu_milli);
        config.memory = whole("memory").or(config.memory);
        config.storage = whole("ephemeral-storage").or(config.storage);
        config.max_pods = whole("pods").and_then(|n| u32::try_from(n).ok()).unwrap_or(config.max_pods);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Manifest> {
        Manifest::parse("node.yaml", text.to_owned())
    }

    #[test]
    fn a_node_is_as_its_manifest_says() {
        let manifest = parse(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: n2\n  labels: {disk: ssd}\n  annotations: {rack: '7'}\nspec:\n  \
             taints: [{key: a, effect: NoSchedule}]\nstatus:\n  capacity: {cpu: 1500m, memory: 1Gi, pods: 20}\n",
        )
        .expect("a node");
        let mut config = AgentConfig::default();
        manifest.configure(&mut config);
        assert_eq!(manifest.name(), Some("n2"));
        assert_eq!((config.cpu_milli, config.memory, config.max_pods), (Some(1500), Some(1 << 30), 20));
        assert_eq!((config.labels["disk"].as_str(), config.annotations["rack"].as_str()), ("ssd", "7"));
        assert_eq!(config.taints[0].key, "a");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let head = "apiVersion: v1\nkind: Node\n";
        for (text, words) in [
            ("", "expected one Node, found 0 objects"),
            ("apiVersion: v1\nkind: Pod\n", "expected a Node of v1, found Pod of v1"),
            (&format!("{head}metadata: {{name: n}}\n---\n{head}"), "expected one Node, found 2 objects"),
            (&format!("{head}metadata: {{name: Bad_Name}}\n"), "metadata.name: Invalid value: \"Bad_Name\""),
            (&format!("{head}spec: {{tains: []}}\n"), "unknown field \"spec.tains\""),
            (&format!("{head}spec: {{unschedulable: true}}\n"), "spec.unschedulable"),
            (&format!("{head}status: {{capacity: {{gpu: 1}}}}\n"), "status.capacity[gpu]: expected cpu"),
            (&format!("{head}status: {{capacity: {{cpu: many}}}}\n"), "many"),
        ] {
            let error = format!("{:#}", parse(text).expect_err(words));
            assert!(error.contains(words) && error.starts_with("node.yaml"), "{error}");
        }
    }
}
