//! The life of a container: made, started, killed, removed.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::snapshots::{
    MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use containerd_client::services::v1::{
    Container as ProtoContainer, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    KillRequest, ListContainersRequest, StartRequest, WaitRequest,
};
use containerd_client::types::Mount;
use containerd_client::types::v1::{Process, Status as TaskStatus};
use futures::Stream;
use jiff::Timestamp;
use prost_types::Any;
use tonic::Code;

use super::folder::Folder;
use super::record::{self, Record, Stdin};
use super::rpc::{failed, found};
use super::{Containerd, Inner, images, log_driver, node};
use crate::runtime::{
    Container, ContainerEvent, ContainerRuntime, ContainerSpec, ExecSpec, Result, RuntimeError, Stats,
    Streams,
};
use crate::spec::{self, Facts, user};

/// What runs containers for containerd.
const RUNTIME: &str = "io.containerd.runc.v2";

/// The name by which containerd knows an OCI spec.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

const SIGKILL: i32 = 9;

/// How long a killed process may take to be gone: the kernel may have to write out its memory first.
const DEATH: Duration = Duration::from_secs(10);

#[async_trait]
impl ContainerRuntime for Containerd {
    async fn version(&self) -> Result<String> {
        let answer =
            self.inner.rpc.version().version(()).await.map_err(|status| failed("version", &status))?;
        Ok(format!("containerd://{}", answer.into_inner().version))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<()> {
        let refused = |error: &dyn std::fmt::Display| RuntimeError::CreateContainer(error.to_string());
        let name = images::full_name(&spec.image)?;
        let Some((digest, contents)) = self.inner.unpacked(&name).await? else {
            // An image may go while its container stays.
            return match self.inner.record(&spec.id).await? {
                Some(_) => Ok(()),
                None => Err(refused(&format!("image {} is not on this node", spec.image))),
            };
        };
        let image = contents.image(&name, &digest);
        let accounts = self.inner.accounts(&contents).await?;
        let privileged = spec.security.privileged;
        let facts = Facts {
            user: user::resolve(&spec.security, &image, &accounts).map_err(|error| refused(&error))?,
            cgroup_v2: self.inner.cgroups.is_v2(),
            capabilities: self.inner.capabilities,
            seccomp: self.inner.seccomp,
            devices: if privileged { node::devices().map_err(|error| refused(&error))? } else { Vec::new() },
            min_oom_score_adj: self.inner.min_oom_score_adj,
        };
        let oci = spec::render(spec, &image, &facts).map_err(|error| refused(&error))?;
        let oci = serde_json::to_vec(&oci).map_err(|error| refused(&error))?;
        let record = Record::new(spec, &image.id, &contents.snapshot, &self.inner.boot);

        let folder = self.inner.folder(&spec.id);
        let prepared = folder.create().and_then(|()| folder.link_log(&spec.log_path));
        prepared.map_err(|error| refused(&format!("log {}: {error}", spec.log_path.display())))?;
        let container = ProtoContainer {
            id: spec.id.clone(),
            labels: record.to_labels(),
            image: name,
            runtime: Some(Runtime { name: RUNTIME.to_owned(), options: None }),
            spec: Some(Any { type_url: SPEC_TYPE.to_owned(), value: oci }),
            snapshotter: self.inner.config.snapshotter.clone(),
            // Its own snapshot has its name. With this containerd will not collect it.
            snapshot_key: spec.id.clone(),
            ..ProtoContainer::default()
        };
        let mut containers = self.inner.rpc.containers();
        let request = CreateContainerRequest { container: Some(container) };
        // The filesystem is made meanwhile. Whatever becomes of that, the start sees to it.
        let (made, _) = tokio::join!(containers.create(request), self.inner.prepare(&record));
        match made {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => match failed("create container", &status) {
                RuntimeError::Other(why) => {
                    self.inner.discard(&spec.id).await;
                    Err(RuntimeError::CreateContainer(why))
                }
                // It may have been made: what belongs to it stays.
                error => Err(error),
            },
        }
    }

    async fn start(&self, id: &str) -> Result<u32> {
        let record = self.inner.must_have(id).await?;
        let folder = self.inner.folder(id);
        if folder.exit().is_some() {
            return Err(RuntimeError::StartContainer(format!("container {id} has exited")));
        }
        if folder.started().is_some() || record.boot != self.inner.boot {
            return match self.inner.task(id).await? {
                Some(task) if is_running(&task) => Ok(task.pid),
                // Between the note and the call that started it, somebody died: the task still waits.
                Some(task) if task.status() == TaskStatus::Created => {
                    self.inner.start_task(&folder, id).await
                }
                _ => Err(RuntimeError::StartContainer(format!("container {id} has exited"))),
            };
        }
        match self.inner.create_task(&record, &folder).await? {
            None => {}
            Some(task) if is_running(&task) => return Ok(task.pid),
            Some(task) if task.status() == TaskStatus::Created => {}
            Some(_) => return Err(RuntimeError::StartContainer(format!("container {id} has exited"))),
        }
        self.inner.start_task(&folder, id).await
    }

    async fn kill(&self, id: &str, signal: i32) -> Result<()> {
        if self.inner.signal(id, signal).await? {
            return Ok(());
        }
        self.inner.must_have(id).await.map(|_| ())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.inner.end_task(id).await?;
        let request = DeleteContainerRequest { id: id.to_owned() };
        found("delete container", self.inner.rpc.containers().delete(request).await)?;
        let snapshotter = self.inner.config.snapshotter.clone();
        let request = RemoveSnapshotRequest { snapshotter, key: id.to_owned() };
        found("remove snapshot", self.inner.rpc.snapshots().remove(request).await)?;
        self.inner
            .folder(id)
            .remove()
            .map_err(|error| RuntimeError::Other(format!("remove container {id}: {error}")))
    }

    async fn list(&self) -> Result<Vec<Container>> {
        // First the records: a container that is removed in between is then without a task, not a task without a record.
        let mut records = self.inner.records().await?;
        let tasks: BTreeMap<String, Process> =
            self.inner.tasks().await?.into_iter().map(|task| (task.id.clone(), task)).collect();
        records.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(records
            .into_iter()
            .map(|record| {
                let task = tasks.get(&record.id);
                self.inner.container(record, task)
            })
            .collect())
    }

    async fn inspect(&self, id: &str) -> Result<Option<Container>> {
        let Some(record) = self.inner.record(id).await? else {
            return Ok(None);
        };
        let task = self.inner.task(id).await?;
        Ok(Some(self.inner.container(record, task.as_ref())))
    }

    fn events(&self) -> Pin<Box<dyn Stream<Item = ContainerEvent> + Send>> {
        let mut receiver = self.inner.hub.follow();
        Box::pin(futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)))
    }

    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Streams> {
        self.inner.run_exec(id, spec).await
    }

    async fn attach(&self, id: &str) -> Result<Streams> {
        self.inner.connect_streams(id).await
    }

    async fn stats(&self, id: &str) -> Result<Stats> {
        let record = self.inner.must_have(id).await?;
        self.inner.cgroups.stats(&record.cgroup).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                RuntimeError::NotFound(format!("running process of container {id}"))
            }
            _ => RuntimeError::Other(format!("stats of container {id}: {error}")),
        })
    }

    async fn reopen_log(&self, id: &str) -> Result<()> {
        self.inner.reopen_log_file(id).await
    }

    async fn remove_cgroup(&self, parent: &str) -> Result<()> {
        self.inner
            .cgroups
            .remove(parent)
            .map_err(|error| RuntimeError::Other(format!("remove cgroup {parent}: {error}")))
    }
}

impl Inner {
    /// All of our containers.
    pub(super) async fn records(&self) -> Result<Vec<Record>> {
        let request = ListContainersRequest { filters: vec![record::filter()] };
        let answer = self.rpc.containers().list_stream(request).await;
        let mut stream = answer.map_err(|status| failed("list containers", &status))?.into_inner();
        let mut records = Vec::new();
        while let Some(message) =
            stream.message().await.map_err(|status| failed("list containers", &status))?
        {
            records.extend(message.container.and_then(Record::read));
        }
        Ok(records)
    }

    /// Makes the task, which has the process wait at its start; answers with the one that is there already, if any.
    async fn create_task(&self, record: &Record, folder: &Folder) -> Result<Option<Process>> {
        let id = &record.id;
        let log = log_uri(&self.config.log_program, folder.path());
        let broken = |error: std::io::Error| RuntimeError::StartContainer(format!("container {id}: {error}"));
        let mut request = CreateTaskRequest {
            container_id: id.clone(),
            rootfs: self.rootfs(record).await?,
            terminal: record.terminal,
            stdout: log.clone(),
            stderr: if record.terminal { String::new() } else { log },
            ..CreateTaskRequest::default()
        };
        let mut driver = None;
        if record.stdin != Stdin::None {
            let fifo = |name: &str| folder.make_fifo(name).map(|path| path.to_string_lossy().into_owned());
            request.stdin = fifo(log_driver::STDIN).map_err(broken)?;
            if !record.terminal {
                // With a log driver of its own the shim gives a process no standard input: offer it FIFOs instead.
                request.stdout = fifo(log_driver::STDOUT).map_err(broken)?;
                request.stderr = fifo(log_driver::STDERR).map_err(broken)?;
                driver = Some(spawn_log_driver(&self.config.log_program, folder.path()).map_err(broken)?);
            }
        }
        match self.rpc.tasks().create(request).await {
            Ok(_) => {
                // It ends with the container, whoever is there then to see it.
                drop(driver);
                Ok(None)
            }
            Err(status) if status.code() == Code::AlreadyExists => {
                end_log_driver(driver).await;
                self.task(id).await
            }
            Err(status) => {
                end_log_driver(driver).await;
                Err(start_failure("create task", &status))
            }
        }
    }

    async fn start_task(&self, folder: &Folder, id: &str) -> Result<u32> {
        let noted = folder.put_started(Timestamp::now());
        noted.map_err(|error| RuntimeError::StartContainer(format!("container {id}: {error}")))?;
        let request = StartRequest { container_id: id.to_owned(), exec_id: String::new() };
        match self.rpc.tasks().start(request).await {
            Ok(answer) => Ok(answer.into_inner().pid),
            Err(status) => {
                // It may have been started by a call whose answer was lost.
                if let Some(task) = self.task(id).await?.filter(is_running) {
                    return Ok(task.pid);
                }
                Err(start_failure("start task", &status))
            }
        }
    }

    /// The mounts of the container's own filesystem, which is made if it is not there.
    async fn rootfs(&self, record: &Record) -> Result<Vec<Mount>> {
        let snapshotter = self.config.snapshotter.clone();
        let request = MountsRequest { snapshotter, key: record.id.clone() };
        match found("mounts of snapshot", self.rpc.snapshots().mounts(request).await)? {
            Some(answer) => Ok(answer.mounts),
            None => self.prepare(record).await.map_err(|status| start_failure("prepare snapshot", &status)),
        }
    }

    async fn prepare(&self, record: &Record) -> Result<Vec<Mount>, tonic::Status> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.config.snapshotter.clone(),
            key: record.id.clone(),
            parent: record.snapshot.clone(),
            ..PrepareSnapshotRequest::default()
        };
        Ok(self.rpc.snapshots().prepare(request).await?.into_inner().mounts)
    }

    /// Removes what there is of a container that was refused.
    async fn discard(&self, id: &str) {
        let request =
            RemoveSnapshotRequest { snapshotter: self.config.snapshotter.clone(), key: id.to_owned() };
        if let Err(error) = found("remove snapshot", self.rpc.snapshots().remove(request).await) {
            tracing::warn!(container = %id, %error, "its filesystem was not removed");
        }
        if let Err(error) = self.folder(id).remove() {
            tracing::warn!(container = %id, %error, "its folder was not removed");
        }
    }

    /// Sends a signal. Says whether there was a process to send it to.
    pub(super) async fn signal(&self, id: &str, signal: i32) -> Result<bool> {
        let request = KillRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
            signal: signal.cast_unsigned(),
            all: signal == SIGKILL,
        };
        match self.rpc.tasks().kill(request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            // The word of runc for the moment between its end and containerd's knowing of it.
            Err(status) if status.message().contains("process already finished") => Ok(false),
            Err(status) => Err(failed(&format!("kill container {id}"), &status)),
        }
    }

    /// Kills and deletes a container's task, if it has one.
    async fn end_task(&self, id: &str) -> Result<()> {
        let Some(task) = self.task(id).await? else {
            return Ok(());
        };
        if task.status() != TaskStatus::Stopped {
            // First the wait: after the kill it may be too late to ask.
            let request = WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
            let mut tasks = self.rpc.tasks();
            let waiting = tasks.wait(request);
            let (waited, killed) =
                tokio::join!(tokio::time::timeout(DEATH, waiting), self.signal(id, SIGKILL));
            killed?;
            match waited {
                Err(_) => {
                    let message = format!("container {id} does not die");
                    return Err(RuntimeError::Other(message));
                }
                Ok(Err(status)) if status.code() != Code::NotFound => {
                    return Err(failed(&format!("wait for container {id}"), &status));
                }
                Ok(_) => {}
            }
        }
        self.delete_task(id).await
    }
}

fn is_running(task: &Process) -> bool {
    matches!(task.status(), TaskStatus::Running | TaskStatus::Paused | TaskStatus::Pausing)
}

/// containerd says that nothing could be started, or that it is not there to say so.
fn start_failure(what: &str, status: &tonic::Status) -> RuntimeError {
    match failed(what, status) {
        RuntimeError::Other(_) => RuntimeError::StartContainer(status.message().to_owned()),
        error => error,
    }
}

/// How the shim is told to start `PROGRAM log-driver FOLDER`: it makes arguments of the query's name and value.
fn log_uri(program: &Path, folder: &Path) -> String {
    format!(
        "binary://{}?{}={}",
        escape(&program.to_string_lossy()),
        log_driver::ARGUMENT,
        escape(&folder.to_string_lossy())
    )
}

/// Percent-encodes what means something in a URI.
fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// Starts a log driver that outlives us.
fn spawn_log_driver(program: &Path, folder: &Path) -> std::io::Result<tokio::process::Child> {
    tokio::process::Command::new(program)
        .arg(log_driver::ARGUMENT)
        .arg(folder)
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // What a terminal tells us is not meant for it.
        .process_group(0)
        .spawn()
}

/// Ends a log driver that there is no container for.
async fn end_log_driver(driver: Option<tokio::process::Child>) {
    if let Some(mut driver) = driver {
        // It has ended by itself, then.
        let _ = driver.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_uri() {
        let uri = log_uri(Path::new("/opt/a b/minik8s"), Path::new("/var/lib/x&y=z/c1"));
        assert_eq!(uri, "binary:///opt/a%20b/minik8s?log-driver=/var/lib/x%26y%3Dz/c1");
    }
}
