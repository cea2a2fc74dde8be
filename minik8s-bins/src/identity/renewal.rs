//! Certificates that are renewed before they end.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use minik8s_reconcile::http::tls::Identity;
use minik8s_reconcile::pki::{Authority, Credentials, Subject};
use tokio_util::sync::CancellationToken;

/// The longest sleep: the machine's clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(600);
/// A renewal that failed is tried again after that, and later and later.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Where the next certificate comes from.
#[async_trait]
pub trait Source: Send + Sync {
    /// Whose it is, for the log.
    fn what(&self) -> &'static str;
    /// A new key with a new certificate.
    async fn renew(&self) -> anyhow::Result<Credentials>;
}

/// Certificates that are issued in this process.
pub struct Own {
    pub what: &'static str,
    pub authority: Arc<Authority>,
    pub subject: Subject,
}

impl Own {
    /// What is shown first.
    pub fn issue(&self) -> anyhow::Result<Arc<Identity>> {
        Ok(Identity::new(&self.authority.issue(&self.subject, Timestamp::now())?)?)
    }
}

#[async_trait]
impl Source for Own {
    fn what(&self) -> &'static str {
        self.what
    }

    async fn renew(&self) -> anyhow::Result<Credentials> {
        Ok(self.authority.issue(&self.subject, Timestamp::now())?)
    }
}

/// Has `identity` show what `source` brings, whenever the time for that has come, until `stop`.
pub async fn keep(source: &dyn Source, identity: &Identity, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let left = identity.validity().renewal().duration_since(Timestamp::now());
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(left.min(LOOK)) => {}
                }
            }
            _ => now(source, identity, stop).await,
        }
    }
}

/// Has `identity` show what `source` brings, as soon as it brings something.
pub async fn now(source: &dyn Source, identity: &Identity, stop: &CancellationToken) {
    let what = source.what();
    let mut pause = FIRST_RETRY;
    let renewing = async {
        loop {
            let renewed = match source.renew().await {
                Ok(credentials) => identity.replace(&credentials).map_err(anyhow::Error::from),
                Err(error) => Err(error),
            };
            let until = identity.validity().until;
            match renewed {
                Ok(()) => return tracing::info!(%until, "{what} certificate is new"),
                Err(error) => {
                    tracing::warn!(%until, error = format!("{error:#}"), "cannot renew {what} certificate");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_RETRY);
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = renewing => {}
    }
}
