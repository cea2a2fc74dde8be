//! `logs`.

use futures::AsyncReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};

use super::session::Session;
use crate::args::Logs;

pub async fn run(session: &Session, logs: &Logs) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(session.kube().clone(), session.namespace());
    let params = LogParams {
        container: logs.container.clone(),
        follow: logs.follow,
        previous: logs.previous,
        tail_lines: logs.tail,
        since_seconds: logs.since,
        timestamps: logs.timestamps,
        ..LogParams::default()
    };
    let mut stream = pods.log_stream(pod_name(&logs.pod), &params).await.map_err(api_error)?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        write(&buffer[..length])?;
    }
}

fn write(bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// `web` of `web`, `pod/web` and `pods/web`.
pub fn pod_name(word: &str) -> &str {
    ["pod/", "pods/", "po/"].iter().find_map(|p| word.strip_prefix(p)).unwrap_or(word)
}

/// The server's own words, where they are some.
pub fn api_error(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::anyhow!("{}", status.message),
        other => anyhow::Error::new(other),
    }
}
