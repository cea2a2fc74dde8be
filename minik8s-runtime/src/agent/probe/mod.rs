//! Asking containers how they are.

mod counter;
mod http;
mod tls;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::AsyncReadExt;

pub(crate) use counter::{Counter, Verdict};

use crate::runtime::{ContainerRuntime, ExecSpec};

/// More than this of what a command says is not kept.
const MOST: u64 = 10 << 10;

/// One way to ask.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    Exec(ExecAction),
    Http(HTTPGetAction),
    Tcp(TCPSocketAction),
    Grpc(GRPCAction),
    Sleep(i64),
}

impl Check {
    /// What a probe asks for.
    pub(crate) fn of_probe(probe: &Probe) -> Option<Self> {
        let exec = probe.exec.clone().map(Self::Exec);
        let http = || probe.http_get.clone().map(Self::Http);
        let tcp = || probe.tcp_socket.clone().map(Self::Tcp);
        exec.or_else(http).or_else(tcp).or_else(|| probe.grpc.clone().map(Self::Grpc))
    }

    /// What a hook does.
    pub(crate) fn of_hook(hook: &LifecycleHandler) -> Option<Self> {
        let exec = hook.exec.clone().map(Self::Exec);
        let http = || hook.http_get.clone().map(Self::Http);
        let tcp = || hook.tcp_socket.clone().map(Self::Tcp);
        exec.or_else(http).or_else(tcp).or_else(|| hook.sleep.as_ref().map(|s| Self::Sleep(s.seconds)))
    }
}

/// Whom to ask.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) runtime: Arc<dyn ContainerRuntime>,
    /// The container's id.
    pub(crate) id: String,
    pub(crate) container: Arc<Container>,
    /// The pod's address; `None` while it has none.
    pub(crate) address: Option<IpAddr>,
}

/// Asks once, for as long as it takes.
///
/// # Errors
/// What is not well, in the words of an `Unhealthy` event.
pub(crate) async fn ask(asked: &Asked, check: &Check) -> Result<(), String> {
    match check {
        Check::Exec(exec) => run(asked, exec.command.clone().unwrap_or_default()).await,
        Check::Http(get) => {
            let host = host(asked, get.host.as_deref())?;
            let port = port(&asked.container, &get.port)?;
            http::get(&host, port, get).await
        }
        Check::Tcp(socket) => {
            let host = host(asked, socket.host.as_deref())?;
            let port = port(&asked.container, &socket.port)?;
            let connected = tokio::net::TcpStream::connect((host.as_str(), port)).await;
            connected.map(drop).map_err(|e| format!("dial tcp {host}:{port}: {e}"))
        }
        Check::Grpc(grpc) => {
            let host = host(asked, None)?;
            let port = u16::try_from(grpc.port).map_err(|_| format!("invalid port {}", grpc.port))?;
            http::grpc_health(&host, port, grpc.service.as_deref().unwrap_or_default()).await
        }
        Check::Sleep(seconds) => {
            tokio::time::sleep(Duration::from_secs(u64::try_from(*seconds).unwrap_or(0))).await;
            Ok(())
        }
    }
}

async fn run(asked: &Asked, command: Vec<String>) -> Result<(), String> {
    let spec = ExecSpec { command, ..ExecSpec::default() };
    let streams = asked.runtime.exec(&asked.id, &spec).await.map_err(|e| e.to_string())?;
    let (stdout, stderr, exit) = (streams.stdout, streams.stderr, streams.exit);
    // Both must be read to their ends, or a talkative command blocks on a full pipe.
    let read = async |stream: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>| {
        let mut text = Vec::new();
        if let Some(mut stream) = stream {
            let _ = (&mut stream).take(MOST).read_to_end(&mut text).await;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
        text
    };
    let (code, out, err) = tokio::join!(exit, read(Some(stdout)), read(stderr));
    match code.map_err(|e| e.to_string())? {
        0 => Ok(()),
        code => {
            let mut text = String::from_utf8_lossy(&out).into_owned();
            text.push_str(&String::from_utf8_lossy(&err));
            let text = text.trim();
            Err(if text.is_empty() { format!("command exited with {code}") } else { text.to_owned() })
        }
    }
}

fn host(asked: &Asked, wanted: Option<&str>) -> Result<String, String> {
    match wanted.filter(|h| !h.is_empty()) {
        Some(host) => Ok(host.to_owned()),
        None => asked.address.map(|ip| ip.to_string()).ok_or_else(|| "the pod has no address".to_owned()),
    }
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => container
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_deref() == Some(text))
                .map(|p| p.container_port)
                .ok_or_else(|| format!("couldn't find port: {text}"))?,
        },
    };
    u16::try_from(number).ok().filter(|p| *p > 0).ok_or_else(|| format!("invalid port {number}"))
}

/// When a probe runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) initial_delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
}

impl Timing {
    pub(crate) fn of(probe: &Probe) -> Self {
        let seconds = |v: Option<i32>, default: u64, least: u64| {
            Duration::from_secs(v.and_then(|v| u64::try_from(v).ok()).unwrap_or(default).max(least))
        };
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds, 10, 1),
            timeout: seconds(probe.timeout_seconds, 1, 1),
        }
    }
}

/// Asks again and again; `tell` hears of every failure (`Err`) and of every threshold that is crossed. `waited` is
/// for how long the container has been up already.
pub(crate) async fn watch(
    asked: Asked,
    probe: Probe,
    waited: Duration,
    mut tell: impl FnMut(Result<Option<Verdict>, (Option<Verdict>, String)>),
) {
    let Some(check) = Check::of_probe(&probe) else {
        return;
    };
    let timing = Timing::of(&probe);
    let mut counter = Counter::of(&probe);
    tokio::time::sleep(timing.initial_delay.saturating_sub(waited)).await;
    let mut ticks = tokio::time::interval(timing.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = match tokio::time::timeout(timing.timeout, ask(&asked, &check)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("probe timed out after {}s", timing.timeout.as_secs())),
        };
        let verdict = counter.count(answer.is_ok());
        tell(match answer {
            Ok(()) => Ok(verdict),
            Err(message) => Err((verdict, message)),
        });
    }
}
