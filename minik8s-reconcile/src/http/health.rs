//! `/healthz`, `/livez` and `/readyz`: whether the server is well.

use http::{Response, StatusCode};

use super::body::Body;
use super::params::Query;
use super::{Frontend, respond_with, text};
use crate::error::ApiError;

/// What is looked at. A server that is told to stop is alive but not ready.
fn checks(endpoint: &str) -> &'static [&'static str] {
    match endpoint {
        "readyz" => &["ping", "storage", "shutdown"],
        _ => &["ping", "storage"],
    }
}

impl Frontend {
    /// Answers for all checks, or for the one named.
    pub(super) async fn health(
        &self,
        endpoint: &str,
        check: Option<&str>,
        query: Option<&str>,
    ) -> Result<Response<Body>, ApiError> {
        let query = Query::parse(query);
        let all = checks(endpoint);
        if check.is_some_and(|name| !all.contains(&name)) {
            return Err(ApiError::no_such_resource());
        }
        let excluded: Vec<&str> = query.all("exclude").collect();
        let mut report = String::new();
        let mut well = true;
        for name in all.iter().filter(|name| check.is_none_or(|check| check == **name)) {
            let line = if check.is_none() && excluded.contains(name) {
                format!("[+]{name} excluded: ok\n")
            } else if self.passes(name).await {
                format!("[+]{name} ok\n")
            } else {
                well = false;
                format!("[-]{name} failed: reason withheld\n")
            };
            report.push_str(&line);
        }
        let unknown: Vec<&str> = excluded.into_iter().filter(|name| !all.contains(name)).collect();
        if !unknown.is_empty() {
            let names = unknown.join("\",\"");
            report.push_str(&format!(
                "warn: some health checks cannot be excluded: no matches for \"{names}\"\n"
            ));
        }
        if !well {
            report.push_str(&format!("{endpoint} check failed\n"));
            let code = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(respond_with(code, "text/plain; charset=utf-8", report));
        }
        // Whoever says `verbose`, with whatever value, means it.
        if query.has("verbose") {
            report.push_str(&format!("{endpoint} check passed\n"));
            return Ok(text(report));
        }
        Ok(text("ok"))
    }

    async fn passes(&self, check: &str) -> bool {
        match check {
            "storage" => self.server.storage().revision().await.is_ok(),
            "shutdown" => !self.closing.is_cancelled(),
            _ => true,
        }
    }
}
