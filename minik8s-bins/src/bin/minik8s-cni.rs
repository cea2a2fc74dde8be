//! The pod network of minik8s for any container runtime: a plugin of the Container Network Interface
//! (<https://www.cni.dev/docs/spec/>).

use std::io::{Read, Write};
use std::process::ExitCode;

use minik8s_net::cni::{CniError, code, plugin};

fn main() -> ExitCode {
    let (text, code) = match run() {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (serde_json::to_string(&error).unwrap_or_default(), ExitCode::FAILURE),
    };
    // Nobody is told where nobody listens.
    let _ = std::io::stdout().write_all(text.as_bytes());
    code
}

fn run() -> Result<String, CniError> {
    let io = |error: std::io::Error| CniError::new(code::IO, error.to_string());
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).map_err(io)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
    runtime.block_on(plugin::run(|name| std::env::var(name).ok(), &input))
}
