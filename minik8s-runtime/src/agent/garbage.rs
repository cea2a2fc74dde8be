//! Removing what pods left behind that are no longer anyone's.

use std::collections::BTreeSet;
use std::path::Path;

use super::context::Context;
use super::volumes::{PodDir, tear_down};

/// Removes networks, directories and logs of pods that are not `alive`. Call it only when the server has said which
/// pods there are.
pub(crate) async fn collect(ctx: &Context, alive: &BTreeSet<String>) {
    match ctx.network.list().await {
        Ok(uids) => {
            for uid in uids.iter().filter(|uid| !alive.contains(*uid)) {
                tracing::info!(uid, "removing the network of a pod that is gone");
                if let Err(e) = ctx.network.detach(uid).await {
                    tracing::warn!(uid, "the network of a pod that is gone could not be removed: {e}");
                }
            }
        }
        Err(e) => tracing::warn!("cannot list pod networks: {e}"),
    }
    let (pods, logs, alive) = (ctx.config.pods_dir.clone(), ctx.config.logs_dir.clone(), alive.clone());
    let swept = tokio::task::spawn_blocking(move || {
        for uid in entries(&pods) {
            if !alive.contains(&uid)
                && let Err(e) = tear_down(&PodDir::new(&pods, &uid), false)
            {
                tracing::warn!(uid, "the directory of a pod that is gone could not be removed: {e}");
            }
        }
        for name in entries(&logs) {
            let Some(uid) = uid_of(&name).filter(|uid| !alive.contains(*uid)) else {
                continue;
            };
            if let Err(e) = std::fs::remove_dir_all(logs.join(&name)) {
                tracing::warn!(uid, "the logs of a pod that is gone could not be removed: {e}");
            }
        }
    });
    if let Err(e) = swept.await {
        tracing::error!("collecting garbage failed: {e}");
    }
}

/// The uid in `NAMESPACE_NAME_UID`.
fn uid_of(name: &str) -> Option<&str> {
    let mut parts = name.split('_');
    let (Some(_), Some(_), Some(uid), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    Some(uid).filter(|uid| !uid.is_empty())
}

fn entries(dir: &Path) -> Vec<String> {
    let list = std::fs::read_dir(dir).into_iter().flatten().flatten();
    list.filter_map(|e| e.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::uid_of;

    #[test]
    fn only_our_own_directories_have_a_uid() {
        assert_eq!(uid_of("ns_web_u1"), Some("u1"));
        assert_eq!(uid_of("web"), None);
        assert_eq!(uid_of("a_b_c_d"), None);
        assert_eq!(uid_of("a_b_"), None);
    }
}
