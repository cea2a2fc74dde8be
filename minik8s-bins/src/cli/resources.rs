//! Which objects a user means.

use std::sync::Arc;

use minik8s_api::Kind;

use super::session::Session;

/// Objects of one kind; all of them, if no names are given.
pub struct Target {
    pub kind: Arc<Kind>,
    pub names: Vec<String>,
}

/// Reads `pods,nodes`, `pod a b`, `pod/a node/b` and `all`.
pub async fn parse(session: &Session, words: &[String]) -> anyhow::Result<Vec<Target>> {
    let (first, rest) = words.split_first().ok_or_else(|| anyhow::anyhow!("name a kind, such as pods"))?;
    if words.iter().any(|w| w.contains('/')) {
        let mut targets: Vec<Target> = Vec::new();
        for word in words {
            let Some((kind, name)) = word.split_once('/') else {
                anyhow::bail!("KIND/NAME and KIND NAME do not mix: \"{word}\" is none of the former");
            };
            let kind = session.kind(kind).await?;
            match targets.last_mut().filter(|t| Arc::ptr_eq(&t.kind, &kind)) {
                Some(target) => target.names.push(name.to_owned()),
                None => targets.push(Target { kind, names: vec![name.to_owned()] }),
            }
        }
        return Ok(targets);
    }
    let mut targets = Vec::new();
    for word in first.split(',').filter(|w| !w.is_empty()) {
        if word == "all" {
            session.learn().await?;
            let registry = session.registry();
            let all = registry.iter().filter(|k| k.categories.iter().any(|c| c == "all"));
            targets.extend(all.map(|kind| Target { kind: kind.clone(), names: rest.to_vec() }));
        } else {
            targets.push(Target { kind: session.kind(word).await?, names: rest.to_vec() });
        }
    }
    Ok(targets)
}
