//! Where a container is in its life, from what containerd and we know of it; and what happens when it ends.

use std::sync::Arc;
use std::time::Duration;

use containerd_client::services::v1::{DeleteTaskRequest, GetContainerRequest, GetRequest, ListTasksRequest};
use containerd_client::types::v1::{Process, Status as TaskStatus};
use jiff::Timestamp;
use tonic::Code;

use super::Inner;
use super::folder::Folder;
use super::record::Record;
use super::rpc::{failed, found};
use crate::runtime::{Container, ContainerState, Exit, Result, RuntimeError};

/// The exit code of a process that nobody saw end.
const LOST: i32 = 255;

/// How long containerd may take to clean up after a process: its shim gives the log driver ten seconds.
const DELETE: Duration = Duration::from_secs(15);

/// How often, and how far apart, deleting a task is tried.
const DELETE_TRIES: u32 = 10;
const RETRY: Duration = Duration::from_millis(50);

pub(super) fn timestamp(proto: Option<prost_types::Timestamp>) -> Timestamp {
    proto.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok()).unwrap_or_else(Timestamp::now)
}

/// Where a container is, by its task (if it has one), what we noted of it, and the boot that we are in.
fn state(
    record: &Record,
    task: Option<&Process>,
    folder: &Folder,
    boot: &str,
    oom: impl Fn() -> bool,
) -> ContainerState {
    if let Some(exit) = folder.exit() {
        return ContainerState::Exited(exit);
    }
    let started = folder.started();
    let Some(task) = task else {
        // Its task went without a word: with the node, or with its shim.
        let lost = started.is_some() || record.boot != boot;
        let at = started.unwrap_or(Timestamp::UNIX_EPOCH);
        return if lost {
            ContainerState::Exited(Exit { code: LOST, started_at: at, finished_at: at, oom_killed: false })
        } else {
            ContainerState::Created
        };
    };
    match task.status() {
        TaskStatus::Stopped => {
            let finished_at = timestamp(task.exited_at);
            let code = task.exit_status.cast_signed();
            let started_at = started.unwrap_or(finished_at);
            ContainerState::Exited(Exit { code, started_at, finished_at, oom_killed: code != 0 && oom() })
        }
        TaskStatus::Created | TaskStatus::Unknown => ContainerState::Created,
        TaskStatus::Running | TaskStatus::Paused | TaskStatus::Pausing => {
            ContainerState::Running { pid: task.pid, started_at: started.unwrap_or_else(Timestamp::now) }
        }
    }
}

impl Inner {
    pub(super) fn folder(&self, id: &str) -> Folder {
        Folder::of_container(&self.config.state_dir, id)
    }

    /// One of our containers.
    pub(super) async fn record(&self, id: &str) -> Result<Option<Record>> {
        let request = GetContainerRequest { id: id.to_owned() };
        let answer = found("get container", self.rpc.containers().get(request).await)?;
        Ok(answer.and_then(|answer| answer.container).and_then(Record::read))
    }

    /// One of our containers, which must be there.
    pub(super) async fn must_have(&self, id: &str) -> Result<Record> {
        self.record(id).await?.ok_or_else(|| RuntimeError::NotFound(format!("container {id}")))
    }

    pub(super) async fn task(&self, id: &str) -> Result<Option<Process>> {
        let request = GetRequest { container_id: id.to_owned(), exec_id: String::new() };
        let answer = found("get task", self.rpc.tasks().get(request).await)?;
        Ok(answer.and_then(|answer| answer.process))
    }

    pub(super) async fn tasks(&self) -> Result<Vec<Process>> {
        let answer = self.rpc.tasks().list(ListTasksRequest::default()).await;
        Ok(answer.map_err(|status| failed("list tasks", &status))?.into_inner().tasks)
    }

    /// A container as the agent sees it.
    pub(super) fn container(&self, record: Record, task: Option<&Process>) -> Container {
        let oom = || self.oom_killed(&record);
        let state = state(&record, task, &self.folder(&record.id), &self.boot, oom);
        Container {
            id: record.id,
            labels: record.labels,
            image: record.image,
            image_id: record.image_id,
            state,
        }
    }

    /// Notes how a container ended and clears away its task, once and for all; answers with what was noted first.
    pub(super) async fn settle(&self, record: &Record, code: i32, finished_at: Timestamp) -> Exit {
        let folder = self.folder(&record.id);
        let exit = folder.exit().unwrap_or_else(|| {
            let started_at = folder.started().unwrap_or(finished_at);
            // The kernel's count is gone with the cgroup, which goes with the task.
            let oom_killed = code != 0 && self.oom_killed(record);
            let exit = Exit { code, started_at, finished_at, oom_killed };
            if let Err(error) = folder.put_exit(&exit) {
                tracing::error!(container = %record.id, %error, "the end of a container could not be noted");
            }
            exit
        });
        // Then its shim, which takes more memory than many a container, is gone, and its log is complete.
        match tokio::time::timeout(DELETE, self.delete_task(&record.id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(container = %record.id, %error, "an ended task was not deleted"),
            Err(_) => tracing::warn!(container = %record.id, "an ended task was not deleted in time"),
        }
        exit
    }

    /// Settles all of our containers that have ended.
    pub(super) async fn settle_stopped(self: &Arc<Self>) -> Result<()> {
        let tasks = self.tasks().await?;
        let stopped = tasks.into_iter().filter(|task| task.status() == TaskStatus::Stopped);
        let settling = stopped.map(|task| async move {
            match self.record(&task.id).await {
                Ok(Some(record)) => {
                    self.settle(&record, task.exit_status.cast_signed(), timestamp(task.exited_at)).await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(container = %task.id, %error, "a stopped container was not settled")
                }
            }
        });
        futures::future::join_all(settling).await;
        Ok(())
    }

    /// Deletes a task that has ended; one that is gone is fine.
    pub(super) async fn delete_task(&self, id: &str) -> Result<()> {
        // Of two who delete it at the same time one loses the connection to its shim, which then lives for ever.
        let _alone = self.deleting.lock(id).await;
        let mut tries = 0;
        loop {
            let request = DeleteTaskRequest { container_id: id.to_owned() };
            let status = match self.rpc.tasks().delete(request).await {
                Ok(_) => return Ok(()),
                Err(status) if status.code() == Code::NotFound => return Ok(()),
                Err(status) => status,
            };
            // The shim may die of it, too.
            if self.task(id).await?.is_none() {
                return Ok(());
            }
            tries += 1;
            if tries == DELETE_TRIES {
                return Err(failed("delete task", &status));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn oom_killed(&self, record: &Record) -> bool {
        // Without its cgroup, or with a kernel that does not count, there is nothing to go by.
        self.cgroups.oom_kills(&record.cgroup).is_ok_and(|kills| kills > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(status: TaskStatus) -> Process {
        let mut task = Process { pid: 7, exit_status: 3, ..Process::default() };
        task.set_status(status);
        task.exited_at = Some(prost_types::Timestamp { seconds: 100, nanos: 0 });
        task
    }

    #[test]
    fn a_container_is_where_its_task_and_our_notes_say() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::of_container(root.path(), "c");
        folder.create().unwrap();
        let record = Record { boot: "now".into(), ..Record::default() };
        let see = |task: Option<&Process>, boot: &str| state(&record, task, &folder, boot, || true);
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let exited = |code, from, to, oom_killed| {
            ContainerState::Exited(Exit { code, started_at: at(from), finished_at: at(to), oom_killed })
        };

        assert_eq!(see(None, "now"), ContainerState::Created);
        assert_eq!(see(None, "next"), exited(255, 0, 0, false), "the node has been started again");
        assert_eq!(see(Some(&task(TaskStatus::Created)), "now"), ContainerState::Created);

        folder.put_started(at(50)).unwrap();
        let running = ContainerState::Running { pid: 7, started_at: at(50) };
        assert_eq!(see(Some(&task(TaskStatus::Running)), "now"), running);
        assert_eq!(see(Some(&task(TaskStatus::Stopped)), "now"), exited(3, 50, 100, true));
        assert_eq!(see(None, "now"), exited(255, 50, 50, false), "its shim has died");

        let exit = Exit { code: 9, started_at: at(50), finished_at: at(60), oom_killed: false };
        folder.put_exit(&exit).unwrap();
        assert_eq!(see(None, "next"), ContainerState::Exited(exit.clone()));
        assert_eq!(see(Some(&task(TaskStatus::Stopped)), "now"), ContainerState::Exited(exit));
    }
}
