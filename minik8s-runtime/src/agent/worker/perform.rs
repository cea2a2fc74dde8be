//! Doing what the state machine asks for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};

use super::Done;
use crate::agent::container_spec::{self, Facts, hostname, log_dir};
use crate::agent::context::Context;
use crate::agent::pod_fsm::{Action, Hook, ImageError, Outcome, Start, StartError, spec};
use crate::agent::probe::{Asked, Check, ask};
use crate::agent::volumes::{self, MountRequest, PodDir, Volumes};
use crate::agent::{env, image_pull};
use crate::runtime::{Container, ContainerState, HostPort, PodSandbox, RuntimeError};

/// Tokens by audience: the token, when it was issued and when it expires.
pub(super) type Tokens = Arc<Mutex<BTreeMap<String, (String, Timestamp, Timestamp)>>>;

/// What an action needs to know of its pod.
pub(super) struct Job {
    pub(super) ctx: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) dir: PodDir,
    pub(super) disk: Arc<tokio::sync::Mutex<()>>,
    pub(super) tokens: Tokens,
    pub(super) volumes: Arc<Volumes>,
    pub(super) netns: Option<PathBuf>,
    pub(super) addresses: Vec<IpAddr>,
}

/// The container that an action is about.
pub(super) struct Target {
    pub(super) spec: Arc<Spec>,
    pub(super) shares_target: bool,
}

/// Carries out `action`.
pub(super) async fn perform(job: Job, action: Action, target: Option<Target>, log: PathBuf) -> Done {
    let runtime = job.ctx.runtime.clone();
    let said = |result: Result<(), RuntimeError>| match result {
        Ok(()) | Err(RuntimeError::NotFound(_)) => Ok(()),
        Err(e) => Err(e.to_string()),
    };
    Done::Outcome(match action {
        Action::Prepare => return Done::Prepared(job.prepare().await),
        Action::Attach => return Done::Attached(job.attach().await),
        Action::EnsureImage { container } => {
            let result = match target {
                Some(target) => job.image(&target.spec).await,
                None => Err(ImageError::Pull("the container is gone from the pod".to_owned())),
            };
            Outcome::Image { container, result }
        }
        Action::Start(start) => {
            let result = match target {
                Some(target) => job.start(&start, &target, log).await,
                None => Err(StartError::Create("the container is gone from the pod".to_owned())),
            };
            Outcome::Started { container: start.container, id: start.id, result }
        }
        Action::Hook { id, hook, .. } => {
            let result = match target {
                Some(target) => job.hook(&id, hook, target).await,
                None => Ok(()),
            };
            Outcome::Hook { id, hook, result }
        }
        Action::Signal { id, signal } => {
            let result = said(runtime.kill(&id, signal).await);
            Outcome::Signalled { id, signal, result }
        }
        Action::Inspect { id } => {
            let result = runtime.inspect(&id).await.map(|c| c.map(Box::new)).map_err(|e| e.to_string());
            Outcome::Inspected { id, result, message: String::new() }
        }
        Action::Remove { id } => {
            let result = said(runtime.remove(&id).await);
            Outcome::Removed { id, result }
        }
        Action::Detach => {
            let uid = job.pod.metadata.uid.clone().unwrap_or_default();
            Outcome::Detached(said(job.ctx.network.detach(&uid).await))
        }
        Action::ReleaseVolumes => Outcome::Released(job.release(true).await),
        Action::Purge => Outcome::Purged(job.purge().await),
    })
}

/// The outcome of an action that broke off.
pub(super) fn failed(action: Action, why: &str) -> Outcome {
    let result = || Err(why.to_owned());
    match action {
        Action::Prepare => Outcome::Prepared(result()),
        Action::Attach => Outcome::Attached(Err(why.to_owned())),
        Action::EnsureImage { container } => {
            Outcome::Image { container, result: Err(ImageError::Pull(why.to_owned())) }
        }
        Action::Start(start) => Outcome::Started {
            container: start.container,
            id: start.id,
            result: Err(StartError::Create(why.to_owned())),
        },
        Action::Hook { id, hook, .. } => Outcome::Hook { id, hook, result: result() },
        Action::Signal { id, signal } => Outcome::Signalled { id, signal, result: result() },
        Action::Inspect { id } => {
            Outcome::Inspected { id, result: Err(why.to_owned()), message: String::new() }
        }
        Action::Remove { id } => Outcome::Removed { id, result: result() },
        Action::Detach => Outcome::Detached(result()),
        Action::ReleaseVolumes => Outcome::Released(result()),
        Action::Purge => Outcome::Purged(result()),
    }
}

/// Runs what blocks on the disk.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(f).await.map_err(|e| e.to_string())
}

impl Job {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn fs_group(&self) -> Option<u32> {
        let context = spec(&self.pod).security_context.as_ref()?;
        context.fs_group.and_then(|gid| u32::try_from(gid).ok())
    }

    /// What the pod's volumes should hold, from objects no older than `since`.
    async fn plans(&self, since: Timestamp) -> Result<BTreeMap<String, volumes::Plan>, String> {
        let ctx = &self.ctx;
        let objects = ctx.sources.resolve(self.namespace(), &volumes::wanted(&self.pod), since).await?;
        let mut claims = BTreeMap::new();
        for claim in volumes::claims(&self.pod) {
            let volume = ctx.sources.volume(self.namespace(), &claim, since).await?;
            claims.insert(claim, volume);
        }
        let tokens = self.tokens().await?;
        let place = ctx.place(self.addresses.clone());
        volumes::plan(&self.pod, &place, &objects, &tokens, &claims)
    }

    /// Tokens that are good for some time; a fifth of its life before its end a token is replaced.
    async fn tokens(&self) -> Result<volumes::Tokens, String> {
        let mut out = volumes::Tokens::new();
        for (audience, seconds) in volumes::token_requests(&self.pod) {
            let now = self.ctx.config.clock.now();
            let known = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&audience).cloned();
            let fresh = known.filter(|(_, issued, expires)| {
                let life = expires.duration_since(*issued);
                now < *issued + life * 4 / 5
            });
            let token = match fresh {
                Some((token, ..)) => token,
                None => {
                    let name = Some(audience.as_str()).filter(|a| !a.is_empty());
                    let (token, expires) = self.ctx.sources.token(&self.pod, name, seconds).await?;
                    let entry = (token.clone(), now, expires);
                    self.tokens
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(audience.clone(), entry);
                    token
                }
            };
            out.insert(audience, token);
        }
        Ok(out)
    }

    async fn prepare(self) -> Result<Volumes, String> {
        let plans = self.plans(self.ctx.config.clock.now()).await?;
        let _disk = self.disk.lock().await;
        let (dir, fs_group) = (self.dir.clone(), self.fs_group());
        blocking(move || volumes::set_up(&dir, &plans, fs_group)).await?
    }

    /// Writes files again that changed.
    pub(super) async fn refresh(self, since: Timestamp) {
        let plans = match self.plans(since).await {
            Ok(plans) => plans,
            Err(e) => {
                tracing::warn!(pod = ?self.pod.metadata.name, "its volumes stay as they are: {e}");
                return;
            }
        };
        let _disk = self.disk.lock().await;
        let (dir, fs_group, name) = (self.dir.clone(), self.fs_group(), self.pod.metadata.name.clone());
        let done = blocking(move || {
            for (volume, plan) in &plans {
                if let Err(e) = volumes::refresh(&dir, volume, plan, fs_group) {
                    tracing::warn!(pod = ?name, volume, "the volume could not be refreshed: {e}");
                }
            }
        });
        if let Err(e) = done.await {
            tracing::error!("refreshing volumes failed: {e}");
        }
    }

    async fn attach(self) -> Result<crate::runtime::Attachment, String> {
        let meta = &self.pod.metadata;
        let sandbox = PodSandbox {
            uid: meta.uid.clone().unwrap_or_default(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            ports: host_ports(&self.pod),
        };
        self.ctx.network.attach(&sandbox).await.map_err(|e| e.to_string())
    }

    async fn image(&self, container: &Spec) -> Result<(Arc<crate::runtime::Image>, bool), ImageError> {
        let names: Vec<String> =
            spec(&self.pod).image_pull_secrets.iter().flatten().map(|s| s.name.clone()).collect();
        let policy = image_pull::policy(container);
        let secrets = if names.is_empty() || policy == image_pull::PullPolicy::Never {
            Vec::new()
        } else {
            let now = self.ctx.config.clock.now();
            self.ctx.sources.secrets(self.namespace(), &names, now).await.map_err(ImageError::Pull)?
        };
        let reference = container.image.as_deref().unwrap_or_default();
        self.ctx.puller.ensure(reference, policy, &secrets).await
    }

    async fn start(
        &self,
        start: &Start,
        target: &Target,
        log: PathBuf,
    ) -> Result<(u32, Timestamp), StartError> {
        let result = self.try_start(start, target, log.clone()).await;
        let (Err(StartError::Create(why) | StartError::Start(why)), Some(pid)) = (&result, start.join_pid)
        else {
            return result;
        };
        // Its end may be news to everyone but the runtime.
        let runtime = &self.ctx.runtime;
        let is_it =
            |c: &Container| matches!(c.state, ContainerState::Running { pid: running, .. } if running == pid);
        match runtime.list().await {
            Ok(containers) if !containers.iter().any(is_it) => {
                tracing::debug!(container = start.container, pid, why, "the namespaces to join are gone");
                // It was made for those namespaces; the next attempt is under the same id and for others.
                runtime.remove(&start.id).await.map_err(|e| StartError::Create(e.to_string()))?;
                // The runtime has complained there.
                let _ = tokio::fs::remove_file(&log).await;
                Err(StartError::Vanished)
            }
            _ => result,
        }
    }

    async fn try_start(
        &self,
        start: &Start,
        target: &Target,
        log: PathBuf,
    ) -> Result<(u32, Timestamp), StartError> {
        let ctx = &self.ctx;
        let container = &target.spec;
        let now = ctx.config.clock.now();
        let objects = ctx.sources.resolve(self.namespace(), &env::wanted(container), now).await;
        let objects = objects.map_err(StartError::Config)?;
        let place = ctx.place(self.addresses.clone());
        let given = &ctx.config.service_env;
        let env =
            env::environment(&self.pod, container, &place, &objects, given).map_err(StartError::Config)?;
        let disk = self.disk.lock().await;
        let (mounts, words) = self.mounts(start, container.clone(), env.clone()).await?;
        drop(disk);
        if let Some(parent) = log.parent() {
            tokio::fs::create_dir_all(parent).await.map_err(|e| StartError::Create(e.to_string()))?;
        }
        let facts = Facts {
            start,
            shares_target: target.shares_target,
            netns: self.netns.clone().filter(|_| spec(&self.pod).host_network != Some(true)),
            env,
            mounts,
            node_name: &ctx.node_name,
            cluster_domain: &ctx.config.cluster_domain,
            log_path: log,
            termination_log: words,
            memory_capacity: ctx.machine.memory,
            pids_limit: ctx.config.pids_limit,
        };
        let made = container_spec::build(&self.pod, container, facts).map_err(StartError::Config)?;
        ctx.runtime.create(&made).await.map_err(|e| StartError::Create(e.to_string()))?;
        let started = ctx.runtime.start(&start.id).await;
        // The answer may have been lost although it runs, and the runtime knows best since when.
        let found = ctx.runtime.inspect(&start.id).await;
        match (started, found.map(|c| c.map(|c| c.state))) {
            (_, Ok(Some(ContainerState::Running { pid, started_at }))) => Ok((pid, started_at)),
            (Ok(pid), _) => Ok((pid, ctx.config.clock.now())),
            (Err(_), Ok(Some(ContainerState::Exited(exit)))) => Ok((0, exit.started_at)),
            (Err(e @ RuntimeError::StartContainer(_)), Ok(_)) => Err(StartError::Start(e.to_string())),
            (Err(e), _) => Err(StartError::Create(e.to_string())),
        }
    }

    async fn mounts(
        &self,
        start: &Start,
        container: Arc<Spec>,
        env: Vec<(String, String)>,
    ) -> Result<(Vec<crate::runtime::Mount>, PathBuf), StartError> {
        let (dir, pod, volumes) = (self.dir.clone(), self.pod.clone(), self.volumes.clone());
        let addresses = self.addresses.clone();
        let ctx = self.ctx.clone();
        let attempt = start.attempt;
        let made = blocking(move || {
            let name = hostname(&pod, &ctx.node_name, &ctx.config.cluster_domain);
            let hosts = std::fs::read_to_string(&ctx.config.hosts).unwrap_or_default();
            let text = |e: std::io::Error| StartError::Create(e.to_string());
            volumes::etc::write(&dir, &pod, &name, &addresses, &ctx.dns(), &hosts).map_err(text)?;
            let words = dir.make_termination_log(&container.name, attempt).map_err(text)?;
            let request = MountRequest {
                dir: &dir,
                container: &container,
                volumes: &volumes,
                env: &env,
                termination_log: &words,
            };
            let mounts = volumes::container_mounts(request).map_err(StartError::Config)?;
            Ok((mounts, words))
        });
        made.await.map_err(StartError::Create)?
    }

    async fn hook(&self, id: &str, hook: Hook, target: Target) -> Result<(), String> {
        let lifecycle = target.spec.lifecycle.as_ref();
        let handler = match hook {
            Hook::PostStart => lifecycle.and_then(|l| l.post_start.as_ref()),
            Hook::PreStop => lifecycle.and_then(|l| l.pre_stop.as_ref()),
        };
        let Some(check) = handler.and_then(Check::of_hook) else {
            return Ok(());
        };
        let loopback = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let host_network = spec(&self.pod).host_network == Some(true);
        let asked = Asked {
            runtime: self.ctx.runtime.clone(),
            id: id.to_owned(),
            container: target.spec.clone(),
            address: self.addresses.first().copied().or(host_network.then_some(loopback)),
        };
        ask(&asked, &check).await
    }

    async fn release(&self, keep_last_words: bool) -> Result<(), String> {
        let _disk = self.disk.lock().await;
        let dir = self.dir.clone();
        blocking(move || volumes::tear_down(&dir, keep_last_words)).await?.map_err(|e| e.to_string())
    }

    /// Everything else, and whatever a lost answer may have left behind.
    async fn purge(&self) -> Result<(), String> {
        let uid = self.pod.metadata.uid.clone().unwrap_or_default();
        let runtime = &self.ctx.runtime;
        for container in runtime.list().await.map_err(|e| e.to_string())? {
            if container.labels.pod_uid == uid {
                runtime.remove(&container.id).await.map_err(|e| e.to_string())?;
            }
        }
        // An orphan's class is not known.
        for class in ["/kubepods", "/kubepods/burstable", "/kubepods/besteffort"] {
            runtime.remove_cgroup(&format!("{class}/pod{uid}")).await.map_err(|e| e.to_string())?;
        }
        self.release(false).await?;
        let logs = log_dir(&self.ctx.config.logs_dir, &self.pod);
        match tokio::fs::remove_dir_all(&logs).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {e}", logs.display())),
            _ => Ok(()),
        }
    }
}

/// The node's ports that a pod asks for.
fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let spec = spec(pod);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
    ports
        .filter_map(|port| {
            Some(HostPort {
                host_port: number(port.host_port?)?,
                container_port: number(port.container_port)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                host_ip: port.host_ip.as_ref().and_then(|text| text.parse().ok()),
            })
        })
        .collect()
}
