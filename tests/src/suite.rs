//! Running cases.

use std::io::Write;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::{Cluster, NodeState, Scene};

/// How many cases run at once: most of their time they wait.
const AT_ONCE: u32 = 6;
/// How long a case may take, unless the environment says so otherwise: `CASE_SECONDS=3600`.
const LIMIT: Duration = Duration::from_secs(240);

type Outcome = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;
type Body = Box<dyn FnOnce(Scene) -> Outcome + Send>;

struct Case {
    name: &'static str,
    alone: bool,
    body: Body,
}

/// A list of cases that share a cluster.
pub struct Suite {
    cases: Vec<Case>,
    cluster: &'static [&'static str],
    stays: &'static [&'static str],
}

struct Options {
    filters: Vec<String>,
    list: bool,
    keep: bool,
    cluster: Option<String>,
}

impl Suite {
    /// A suite without cases.
    #[expect(clippy::new_without_default, reason = "a suite without cases is only the beginning of one")]
    pub fn new() -> Self {
        Self { cases: Vec::new(), cluster: &[], stays: &[] }
    }

    /// Brings its cluster up with these options of `cargo xtask cluster-up`, instead of one node.
    #[must_use]
    pub fn cluster(mut self, options: &'static [&'static str]) -> Self {
        self.cluster = options;
        self
    }

    /// What begins with one of these may be on the node afterwards and not before, as lines of a [`NodeState`].
    #[must_use]
    pub fn stays(mut self, beginnings: &'static [&'static str]) -> Self {
        self.stays = beginnings;
        self
    }

    /// Adds a case.
    #[must_use]
    pub fn case<F, T>(self, name: &'static str, body: F) -> Self
    where
        F: FnOnce(Scene) -> T + Send + 'static,
        T: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.add(name, false, body)
    }

    /// Adds a case during which no other one runs.
    #[must_use]
    pub fn alone<F, T>(self, name: &'static str, body: F) -> Self
    where
        F: FnOnce(Scene) -> T + Send + 'static,
        T: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.add(name, true, body)
    }

    fn add<F, T>(mut self, name: &'static str, alone: bool, body: F) -> Self
    where
        F: FnOnce(Scene) -> T + Send + 'static,
        T: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.cases.push(Case { name, alone, body: Box::new(|scene| Box::pin(body(scene))) });
        self
    }

    /// Runs the cases that the command line asks for.
    pub fn run(self) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
            let options = options(std::env::args().skip(1))?;
            runtime.block_on(self.run_with(options))
        });
        match done {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                say(&format!("error: {error:#}"));
                ExitCode::FAILURE
            }
        }
    }

    async fn run_with(self, options: Options) -> anyhow::Result<bool> {
        let wanted =
            |name: &str| options.filters.is_empty() || options.filters.iter().any(|f| name.contains(f));
        let cases: Vec<Case> = self.cases.into_iter().filter(|c| wanted(c.name)).collect();
        if options.list {
            cases.iter().for_each(|c| say(&format!("{}: test", c.name)));
            return Ok(true);
        }
        if cases.is_empty() {
            say("no cases");
            return Ok(true);
        }
        let began = Instant::now();
        let mut cluster = match &options.cluster {
            Some(name) => Cluster::existing(name)?,
            None => tokio::task::spawn_blocking(|| Cluster::up(1, self.cluster)).await??,
        };
        if options.keep {
            cluster.keep();
        }
        let cluster = Arc::new(cluster);
        say(&format!("cluster {} is up ({:.1} s), {} cases", cluster.name(), seconds(began), cases.len()));
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let result = tokio::select! {
            result = run_all(&cluster, cases, self.stays) => result,
            _ = terminate.recv() => Err(anyhow::anyhow!("stopped by SIGTERM")),
            _ = interrupt.recv() => Err(anyhow::anyhow!("stopped by SIGINT")),
        };
        // Takes the cluster down, which cases that were broken off may still hold.
        let mut cluster = cluster;
        let deadline = Instant::now() + Duration::from_secs(5);
        let last = loop {
            match Arc::try_unwrap(cluster) {
                Ok(last) => break Some(last),
                Err(shared) if Instant::now() < deadline => cluster = shared,
                Err(_) => break None,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        tokio::task::spawn_blocking(move || drop(last)).await?;
        let (passed, failed) = result?;
        say(&format!("{passed} passed, {failed} failed ({:.1} s)", seconds(began)));
        Ok(failed == 0)
    }
}

/// How many passed and failed.
async fn run_all(cluster: &Arc<Cluster>, cases: Vec<Case>, stays: &[&str]) -> anyhow::Result<(usize, usize)> {
    let kube = cluster.client().await?;
    let before = NodeState::of(cluster).await?;
    let places = Semaphore::new(AT_ONCE as usize);
    let running: FuturesUnordered<_> = (1..)
        .zip(cases)
        .map(|(number, case)| {
            let (places, cluster, kube) = (&places, cluster.clone(), kube.clone());
            async move {
                let _place = places.acquire_many(if case.alone { AT_ONCE } else { 1 }).await?;
                let began = Instant::now();
                let namespace = format!("case-{number}");
                let outcome = run_one(cluster, kube, namespace, case.body).await;
                match &outcome {
                    Ok(()) => say(&format!("case {} ... ok ({:.1} s)", case.name, seconds(began))),
                    Err(error) => {
                        say(&format!("case {} ... FAILED ({:.1} s)\n{error:#}", case.name, seconds(began)))
                    }
                }
                anyhow::Ok(outcome.is_ok())
            }
        })
        .collect();
    let outcomes: Vec<anyhow::Result<bool>> = running.collect().await;
    let outcomes = outcomes.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let mut passed = outcomes.iter().filter(|passed| **passed).count();
    let mut failed = outcomes.len() - passed;
    match NodeState::back_to(&before, cluster, "n1", stays).await {
        Ok(()) => passed += 1,
        Err(error) => {
            failed += 1;
            say(&format!("case the node is as it was before ... FAILED\n{error:#}"));
        }
    }
    if failed > 0 {
        for log in ["minik8s-server", "minik8s-node"] {
            say(&format!("---- {log}\n{}", cluster.log_tail(log, 40)));
        }
    }
    Ok((passed, failed))
}

async fn run_one(
    cluster: Arc<Cluster>,
    kube: kube::Client,
    namespace: String,
    body: Body,
) -> anyhow::Result<()> {
    let scene = Scene::set(cluster, kube, namespace).await?;
    let mut task = tokio::spawn(body(scene.clone()));
    let asked = std::env::var("CASE_SECONDS").ok().and_then(|text| text.parse().ok());
    let limit = asked.map_or(LIMIT, Duration::from_secs);
    let outcome = match tokio::time::timeout(limit, &mut task).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => Err(anyhow::Error::new(panic)),
        Err(_) => {
            task.abort();
            bail!("it takes longer than {limit:?}\n---- pods\n{}", scene.picture().await)
        }
    };
    let picture = if outcome.is_err() { scene.picture().await } else { String::new() };
    let struck = scene.strike().await;
    outcome.with_context(|| format!("---- pods\n{picture}----"))?;
    struck
}

/// What the command line says; it may have what cargo says to the usual test programs.
fn options(args: impl Iterator<Item = String>) -> anyhow::Result<Options> {
    let mut options = Options { filters: Vec::new(), list: false, keep: false, cluster: None };
    let mut args = args;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => options.list = true,
            "--keep" => options.keep = true,
            "--cluster" => options.cluster = Some(args.next().context("--cluster wants a name")?),
            "--nocapture" | "--show-output" | "-q" | "--quiet" => {}
            "--test-threads" | "--format" => drop(args.next()),
            other if other.starts_with('-') => bail!("unknown option {other}"),
            _ => options.filters.push(arg),
        }
    }
    Ok(options)
}

fn seconds(since: Instant) -> f32 {
    since.elapsed().as_secs_f32()
}

/// Prints a line for the person who runs the tests.
pub(crate) fn say(text: &str) {
    // Nobody is left to be told if this fails.
    let _ = writeln!(std::io::stdout(), "{text}");
}
