//! Deterministic simulation: a cluster in which everything goes wrong, run thousands of times, each run repeatable.
//!
//! A [`Simulation`] runs the real [`ApiServer`] on a storage in memory, programs of your own (controllers, a scheduler)
//! and nodes that are not there, on one thread and in simulated time. Requests and answers are lost and late, watches lag
//! and break, the server restarts and forgets its history, programs die in the middle of what they do, nodes lose power.
//! All that follows from a seed. What must never happen is looked for in every single write
//! ([`Simulation::always`]); then the faults end, and what has to be so in the end is checked ([`Simulation::finally`]): that
//! the cluster came to rest, and that it rests, for an hour, without a write.
//!
//! ```
//! use std::sync::Arc;
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use minik8s_reconcile::sim::Simulation;
//! use minik8s_reconcile::{Action, Controller, Cx, reconcile_fn};
//!
//! // Gives each ConfigMap a key `answer`.
//! async fn reconcile(config: Arc<ConfigMap>, cx: Cx) -> minik8s_reconcile::reconciler::Result<Action> {
//!     let mut config = (*config).clone();
//!     config.data.get_or_insert_default().insert("answer".to_owned(), "42".to_owned());
//!     let namespace = config.metadata.namespace.clone().unwrap_or_default();
//!     cx.client().namespaced::<ConfigMap>(&namespace).update(&config).await?;
//!     Ok(Action::Done)
//! }
//!
//! Simulation::new("answers")
//!     .program("controller", |process| {
//!         let manager = process.manager().controller(Controller::new("answers", reconcile_fn(reconcile)));
//!         manager.run(process.stop)
//!     })
//!     .workload(|world| async move {
//!         let mut config = ConfigMap::default();
//!         config.metadata.name = Some("question".to_owned());
//!         world.client().namespaced("default").create(&config).await.expect("nobody else makes it");
//!     })
//!     .finally("all are answered", |state| {
//!         let asked = state.all::<ConfigMap>();
//!         let open = asked.iter().filter(|c| c.data.as_ref().is_none_or(|d| !d.contains_key("answer"))).count();
//!         if open == 0 { Ok(()) } else { Err(format!("{open} have no answer")) }
//!     })
//!     .check(0..20);
//! ```
//!
//! # Determinism
//! Two runs of a seed write the same bytes at the same times; [`Simulation::check`] runs some seeds twice to see that they
//! do. It is lost by whatever does not come from a [`Process`]: the machine's clock, other threads, hash maps, `select!`
//! without `biased`. Rules in CEL run on threads of their own, so kinds and policies that have some do not belong here yet.

mod chaos;
mod faults;
mod fleet;
mod gate;
mod history;
mod process;
pub mod properties;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use minik8s_api::Registry;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::faults::{Line, Weather};
use self::gate::{Gate, Patient};
use self::history::{History, Judge, Recorded};
use self::process::{Host, Program};
use crate::client::Client;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::rng::Rng;
use crate::server::ApiServer;
use crate::storage::Storage;

pub use self::faults::Faults;
pub use self::fleet::{Behaviour, Fleet, Power};
pub use self::history::{Change, Deed, State, Violation};
pub use self::process::Process;

/// For how long nothing has to be written for a cluster to be at rest: longer than any back-off.
const CALM: Duration = Duration::from_secs(6 * 60);
/// How long it has to go on being at rest.
const REST: Duration = Duration::from_secs(3600);

type Workload = Arc<dyn Fn(World) -> BoxFuture<'static, ()> + Send + Sync>;
type Always = Arc<dyn Fn() -> Judge + Send + Sync>;
type Finally = Arc<dyn Fn(&State) -> Result<(), String> + Send + Sync>;
type Setup = Arc<dyn Fn(crate::server::ApiServerBuilder) -> crate::server::ApiServerBuilder + Send + Sync>;

/// What is to be simulated. See the [module](self).
#[must_use = "call `check`"]
pub struct Simulation {
    name: String,
    server: Setup,
    programs: Vec<(String, Program)>,
    nodes: usize,
    capacity: serde_json::Value,
    script: fleet::Script,
    faults: Faults,
    workload: Workload,
    always: Vec<(String, Always)>,
    finally: Vec<(String, Finally)>,
    storm: Duration,
    patience: Duration,
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Simulation({})", self.name)
    }
}

impl Simulation {
    /// A simulation of a server and nothing else. `name` is that of the test that runs it, for what it says when it fails.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            server: Arc::new(|builder| builder),
            programs: Vec::new(),
            nodes: 0,
            capacity: json!({ "cpu": "8", "memory": "16Gi", "pods": "110" }),
            script: Arc::new(fleet::steady),
            faults: Faults::default(),
            workload: Arc::new(|_| async {}.boxed()),
            always: Vec::new(),
            finally: Vec::new(),
            storm: Duration::from_secs(120),
            patience: Duration::from_secs(3 * 3600),
        }
    }

    /// Sets up the server otherwise, as often as it starts.
    pub fn server(
        mut self,
        setup: impl Fn(crate::server::ApiServerBuilder) -> crate::server::ApiServerBuilder + Send + Sync + 'static,
    ) -> Self {
        self.server = Arc::new(setup);
        self
    }

    /// Runs a program too: `start` is its `main`, called in each of its lives. It runs until its process's `stop`.
    pub fn program<F>(mut self, name: &str, start: impl Fn(Process) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let program: Program = Arc::new(move |process| start(process).boxed());
        self.programs.push((name.to_owned(), program));
        self
    }

    /// That many nodes, `n1`, `n2` and so on; none by default.
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes = count;
        self
    }

    /// What each node has room for, as in a Node's `status.allocatable`. Default: 8 CPUs, 16 GiB, 110 pods.
    pub fn capacity(mut self, capacity: serde_json::Value) -> Self {
        self.capacity = capacity;
        self
    }

    /// What pods do on nodes. Default: they start, and later stop, within two seconds, and run for ever. The chance it is
    /// given is the same for the same pod, however often it is asked.
    pub fn pods(mut self, script: impl Fn(&Pod, &Rng) -> Behaviour + Send + Sync + 'static) -> Self {
        self.script = Arc::new(script);
        self
    }

    /// What goes wrong.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// For how long things go wrong, in simulated time, or longer if the workload takes longer. Default: two minutes.
    pub fn storm(mut self, length: Duration) -> Self {
        self.storm = length;
        self
    }

    /// How long it may take to come to rest after that, in simulated time. Default: three hours.
    pub fn patience(mut self, length: Duration) -> Self {
        self.patience = length;
        self
    }

    /// What users do meanwhile. Their requests always arrive.
    pub fn workload<F>(mut self, workload: impl Fn(World) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.workload = Arc::new(move |world| workload(world).boxed());
        self
    }

    /// What has to hold of every write. `judge` makes one judge a run, which is shown each write and all objects as they are
    /// after it; `Err` says what is wrong.
    pub fn always<J>(mut self, property: &str, judge: impl Fn() -> J + Send + Sync + 'static) -> Self
    where
        J: FnMut(&Change<'_>, &State) -> Result<(), String> + Send + 'static,
    {
        self.always.push((property.to_owned(), Arc::new(move || Box::new(judge()))));
        self
    }

    /// What has to hold in the end, when the cluster has come to rest.
    pub fn finally(
        mut self,
        property: &str,
        check: impl Fn(&State) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.finally.push((property.to_owned(), Arc::new(check)));
        self
    }

    /// Runs the seeds, on all processors, some of them twice.
    ///
    /// The environment may say otherwise: `SIM_SEED=7` runs that one, `SIM_SEEDS=10000` that many.
    ///
    /// # Panics
    /// A property does not hold: with what was found, the last writes, and how to run that seed again.
    pub fn check(&self, seeds: Range<u64>) -> Summary {
        let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seeds = match (asked("SIM_SEED"), asked("SIM_SEEDS")) {
            (Some(seed), _) => seed..seed + 1,
            (None, Some(count)) => seeds.start..seeds.start + count,
            (None, None) => seeds,
        };
        let (summary, failed) = self.explore(seeds);
        if let Some(run) = failed {
            panic!("{}", self.explain(&run));
        }
        summary
    }

    /// Runs seeds in their order until one fails: how many it took, and what was found. For tests of tests.
    pub fn seeds_until_violation(&self, seeds: Range<u64>) -> Option<(u64, Violation)> {
        let first = seeds.start;
        seeds.into_iter().find_map(|seed| self.run(seed).violation.map(|v| (seed - first + 1, v)))
    }

    /// Runs seeds side by side. The run that failed with the lowest seed, if one did.
    fn explore(&self, seeds: Range<u64>) -> (Summary, Option<Run>) {
        let next = AtomicU64::new(seeds.start);
        let failed = AtomicBool::new(false);
        let results: Mutex<(Summary, Option<Run>, BTreeMap<u64, u64>)> = Mutex::default();
        let worker = || {
            while !failed.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    break;
                }
                let mut run = self.run(seed);
                if seed.is_multiple_of(50) && run.violation.is_none() {
                    run.expect_same(&self.run(seed));
                }
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                let (summary, worst, shapes) = &mut *results;
                summary.add(&run);
                *shapes.entry(run.shape).or_default() += 1;
                if run.violation.is_some() {
                    failed.store(true, Ordering::Relaxed);
                    if worst.as_ref().is_none_or(|w| w.seed > run.seed) {
                        *worst = Some(run);
                    }
                }
            }
        };
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            for _ in 0..processors {
                scope.spawn(worker);
            }
        });
        let (mut summary, failed, shapes) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.distinct = shapes.len() as u64;
        (summary, failed)
    }

    fn explain(&self, run: &Run) -> String {
        let Some(violation) = &run.violation else { return String::new() };
        let at = violation.at.duration_since(chaos::beginning()).as_secs_f64();
        format!(
            "{name}: seed {seed} violates \"{property}\", {at:.3} s after the beginning, at revision {revision}:\n  {why}\n\
             the last writes:\n{tail}\n\
             to run it again: SIM_SEED={seed} cargo test {name}",
            name = self.name,
            seed = run.seed,
            property = violation.property,
            revision = violation.revision,
            why = violation.why,
            tail = run.tail.join("\n"),
        )
    }

    /// Runs one seed.
    ///
    /// # Panics
    /// Called from inside a tokio runtime.
    pub fn run(&self, seed: u64) -> Run {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime without IO");
        runtime.block_on(self.simulate(seed))
    }

    async fn simulate(&self, seed: u64) -> Run {
        let rng = Rng::from_seed(seed);
        let clock = Clock::tokio(chaos::beginning());
        let registry = Arc::new(Registry::builtin());
        let judges = self.always.iter().map(|(name, judge)| (name.clone(), judge())).collect();
        let history = History::new(registry, clock.clone(), judges);
        let storage: Arc<dyn Storage> = Arc::new(Recorded::new(history.clone()));
        let script = self.script.clone();
        let fleet = Fleet::new(self.nodes, self.capacity.clone(), script, rng.child("pods"));
        let servers = Servers { setup: self.server.clone(), storage: storage.clone(), clock: clock.clone() };
        let server = match servers.start(&rng.child("server 0")).await {
            Ok(server) => server,
            Err(error) => {
                history.violated("a server starts on nothing", error.to_string());
                return Run::of(seed, &history, &Weather::default(), &clock);
            }
        };
        let kinds = server.kinds().clone();
        let world = World {
            gate: Gate::new(server),
            servers,
            storage,
            fleet: fleet.clone(),
            history: history.clone(),
            weather: Weather::default(),
            faults: self.faults.clone(),
            clock: clock.clone(),
            rng: rng.child("world"),
            kinds: kinds.clone(),
        };
        world.weather.set(true);
        let shutdown = CancellationToken::new();
        let mut programs = self.programs.clone();
        if self.nodes > 0 {
            programs
                .push(("kubelet".to_owned(), Arc::new(move |process| fleet.clone().run(process).boxed())));
        }
        let mut hosts = Vec::new();
        let mut lines = Vec::new();
        for (name, program) in programs {
            let its = rng.child(&name);
            let mut faults = self.faults.clone();
            if name == "kubelet" {
                // Its memory is the pods': it dies with its node, not by itself.
                faults.crash = 0.0;
            }
            let line = Line::new(world.gate.clone(), faults, world.weather.clone(), its.child("line"));
            if name != "kubelet" {
                lines.push(line.clone());
            }
            let (kinds, clock, history) = (kinds.clone(), clock.clone(), history.clone());
            let host = Host { name, program, line, kinds, clock, rng: its, history };
            hosts.push(tokio::spawn(host.run(shutdown.clone())));
        }

        // The storm, and what users do in it.
        let mishaps = rng.child("mishaps");
        let workload = (self.workload)(world.clone());
        let workload = std::panic::AssertUnwindSafe(workload).catch_unwind();
        let (done, ()) = tokio::join!(workload, chaos::run(&world, &lines, &mishaps, self.storm));
        if let Err(panic) = done {
            history.violated("the workload goes through", text_of(&*panic));
        }

        // The calm.
        world.weather.set(false);
        world.fleet.heal();
        self.settle(&world).await;
        shutdown.cancel();
        for host in hosts {
            let _ = host.await;
        }
        Run::of(seed, &history, &world.weather, &clock)
    }

    /// Waits until the cluster is at rest; sees what it came to, and that it stays so.
    async fn settle(&self, world: &World) {
        let began = world.clock.now();
        loop {
            if world.history.violation().is_some() {
                return;
            }
            let now = world.clock.now();
            let (_, last) = world.history.restless();
            let calm_since = last.map_or(began, |last| last.max(began));
            if now.duration_since(calm_since) >= signed(CALM) {
                break;
            }
            if now.duration_since(began) >= signed(self.patience) {
                let why = format!("something is still being written after {:?}", self.patience);
                world.history.violated("it comes to rest", why);
                return;
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        for (property, check) in &self.finally {
            if let Err(why) = world.history.look(|state| check(state)) {
                world.history.violated(property, why);
                return;
            }
        }
        let (before, _) = world.history.restless();
        tokio::time::sleep(REST).await;
        let (after, _) = world.history.restless();
        if after > before {
            let why = format!("{} writes in an hour in which nothing happened", after - before);
            world.history.violated("it stays at rest", why);
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&t| t.to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}

/// Starts servers on one storage, one after the other.
#[derive(Clone)]
struct Servers {
    setup: Setup,
    storage: Arc<dyn Storage>,
    clock: Clock,
}

impl Servers {
    async fn start(&self, rng: &Rng) -> Result<ApiServer, ApiError> {
        let builder = ApiServer::builder().clock(self.clock.clone()).rng(rng.clone());
        let server = (self.setup)(builder).build(self.storage.clone());
        server.bootstrap().await?;
        Ok(server)
    }
}

/// A cluster under simulation, for those who use it and those who break it. Cheap to clone.
#[derive(Clone)]
pub struct World {
    gate: Gate,
    servers: Servers,
    storage: Arc<dyn Storage>,
    fleet: Fleet,
    history: History,
    weather: Weather,
    faults: Faults,
    clock: Clock,
    rng: Rng,
    kinds: crate::kinds::Kinds,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({:?})", self.clock)
    }
}

impl World {
    /// A client whose requests arrive: while the server is away, they wait.
    pub fn client(&self) -> Client {
        Client::new(Patient(self.gate.clone()), self.kinds.clone())
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Chance.
    pub fn rng(&self) -> &Rng {
        &self.rng
    }

    /// The nodes.
    pub fn nodes(&self) -> &Fleet {
        &self.fleet
    }

    /// Looks at all objects as they are in the storage now.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.history.look(look)
    }

    /// The pods that are as asked, by namespace and name.
    pub fn pods(&self, as_asked: impl Fn(&Pod) -> bool) -> Vec<Pod> {
        self.look(|state| {
            state.all::<Pod>().iter().filter(|pod| as_asked(pod)).map(|pod| (**pod).clone()).collect()
        })
    }

    /// Stops the server, and starts another on the same storage after `away`.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_server(&self, away: Duration) -> Result<(), ApiError> {
        self.gate.close();
        tokio::time::sleep(away).await;
        let server = self.servers.start(&self.rng.child(&format!("server {:?}", self.clock))).await?;
        self.gate.open(server);
        Ok(())
    }
}

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// The first thing that does not hold.
    pub violation: Option<Violation>,
    /// How many writes there were.
    pub writes: usize,
    /// How much went wrong.
    pub faults: u64,
    /// How long it took, in simulated time.
    pub length: Duration,
    /// A hash of every byte that was written, and when.
    pub fingerprint: u64,
    /// A hash of what was done to which kinds, in which order.
    pub shape: u64,
    /// The last writes, a line each.
    pub tail: Vec<String>,
}

impl Run {
    fn of(seed: u64, history: &History, weather: &Weather, clock: &Clock) -> Self {
        let (fingerprint, shape) = history.fingerprints();
        let length = clock.now().duration_since(chaos::beginning());
        Self {
            seed,
            violation: history.violation(),
            writes: history.writes(),
            faults: weather.strikes(),
            length: length.try_into().unwrap_or_default(),
            fingerprint,
            shape,
            tail: history.tail(chaos::beginning()),
        }
    }

    /// It is a violation not to do the same again.
    fn expect_same(&mut self, again: &Self) {
        if self.fingerprint != again.fingerprint {
            self.violation = Some(Violation {
                property: "two runs of a seed are the same".to_owned(),
                why: format!("{} writes at first, {} the second time, or others", self.writes, again.writes),
                revision: 0,
                at: Timestamp::from_second(0).unwrap_or_default(),
            });
        }
    }
}

/// What came of many seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// How many seeds ran.
    pub seeds: u64,
    /// How many of their histories differ in what was done to which kinds, in which order. Much fewer than seeds mean that the
    /// workload is too regular to find much.
    pub distinct: u64,
    /// How many writes there were in all.
    pub writes: u64,
    /// How much went wrong in all.
    pub faults: u64,
    /// The simulated time of all runs together.
    pub simulated: Duration,
}

impl Summary {
    fn add(&mut self, run: &Run) {
        self.seeds += 1;
        self.writes += run.writes as u64;
        self.faults += run.faults;
        self.simulated += run.length;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, distinct, writes, faults, simulated } = self;
        let hours = simulated.as_secs_f64() / 3600.0;
        write!(
            f,
            "{seeds} seeds, {distinct} distinct histories, {writes} writes, {faults} faults, {hours:.0} h simulated"
        )
    }
}

#[cfg(test)]
mod tests;
