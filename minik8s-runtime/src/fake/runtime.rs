//! The containers of a [`Fake`].

use std::io::Write as _;
use std::pin::Pin;

use async_trait::async_trait;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::{Fake, Held, Op, Output, State, process};
use crate::runtime::{
    Container, ContainerEvent, ContainerRuntime, ContainerSpec, ContainerState, ExecSpec, Exit, Result,
    RuntimeError, Stats, Streams,
};

const SIGKILL: i32 = 9;

#[async_trait]
impl ContainerRuntime for Fake {
    async fn version(&self) -> Result<String> {
        self.call(Op::Version, "").await?.answer(Ok("fake://1".to_owned()))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<()> {
        let after = self.call(Op::Create, &spec.id).await?;
        let done = self.lock().create(spec);
        after.answer(done)
    }

    async fn start(&self, id: &str) -> Result<u32> {
        let after = self.call(Op::Start, id).await?;
        let pid = self.lock().start(id);
        after.answer(pid)
    }

    async fn kill(&self, id: &str, signal: i32) -> Result<()> {
        let after = self.call(Op::Kill, id).await?;
        let done = self.lock().kill(id, signal);
        after.answer(done)
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let after = self.call(Op::Remove, id).await?;
        let mut state = self.lock();
        state.end(id, 128 + SIGKILL, false);
        state.containers.remove(id);
        drop(state);
        after.answer(Ok(()))
    }

    async fn list(&self) -> Result<Vec<Container>> {
        let after = self.call(Op::List, "").await?;
        after.answer(Ok(self.containers()))
    }

    async fn inspect(&self, id: &str) -> Result<Option<Container>> {
        let after = self.call(Op::Inspect, id).await?;
        let found = self.lock().containers.get(id).map(Held::container);
        after.answer(Ok(found))
    }

    fn events(&self) -> Pin<Box<dyn Stream<Item = ContainerEvent> + Send>> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        self.lock().subscribers.push(sender);
        let first = futures::stream::iter([ContainerEvent::Resync]);
        Box::pin(first.chain(futures::stream::poll_fn(move |cx| receiver.poll_recv(cx))))
    }

    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Streams> {
        let after = self.call(Op::Exec, id).await?;
        let script = {
            let state = self.lock();
            state.running(id)?;
            state.exec.clone()
        };
        after.answer(Ok(process::run(spec, script(id, spec))))
    }

    async fn attach(&self, id: &str) -> Result<Streams> {
        let after = self.call(Op::Attach, id).await?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let (tty, stdin) = {
            let mut state = self.lock();
            state.running(id)?;
            let held = state.containers.get_mut(id).ok_or_else(|| not_found(id))?;
            held.attached.push(sender);
            (held.spec.tty, held.spec.stdin)
        };
        let (node, of) = (self.clone(), id.to_owned());
        let code = async move {
            match node.lock().containers.get(&of).map(|held| held.state.clone()) {
                Some(ContainerState::Exited(Exit { code, .. })) => Ok(code),
                _ => Err(not_found(&of)),
            }
        };
        after.answer(Ok(process::attach(tty, stdin, receiver, code)))
    }

    async fn stats(&self, id: &str) -> Result<Stats> {
        let after = self.call(Op::Stats, id).await?;
        let stats = {
            let state = self.lock();
            state.running(id).map(|held| held.stats)
        };
        after.answer(stats)
    }

    async fn reopen_log(&self, id: &str) -> Result<()> {
        let after = self.call(Op::ReopenLog, id).await?;
        let known = self.lock().running(id).map(|_| ());
        after.answer(known)
    }

    async fn remove_cgroup(&self, parent: &str) -> Result<()> {
        self.call(Op::RemoveCgroup, parent).await?.answer(Ok(()))
    }
}

impl Fake {
    /// A running container writes one line: into its log, where its folder exists, and to whoever is attached.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] without such a running container; [`RuntimeError::Other`] if its log cannot be
    /// written.
    pub fn print(&self, id: &str, output: Output, line: &str) -> Result<()> {
        let mut state = self.lock();
        let now = (state.clock)();
        state.running(id)?;
        let held = state.containers.get_mut(id).ok_or_else(|| not_found(id))?;
        let bytes = format!("{line}\n").into_bytes();
        held.attached.retain(|attached| attached.send((output, bytes.clone())).is_ok());
        let path = held.spec.log_path.clone();
        if path.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && folder.is_dir()) {
            let stream = if output == Output::Stdout { "stdout" } else { "stderr" };
            std::fs::File::options()
                .append(true)
                .create(true)
                .open(&path)
                .and_then(|mut file| writeln!(file, "{now:.9} {stream} F {line}"))
                .map_err(|error| RuntimeError::Other(format!("{}: {error}", path.display())))?;
        }
        Ok(())
    }
}

fn not_found(id: &str) -> RuntimeError {
    RuntimeError::NotFound(format!("container {id}"))
}

impl State {
    fn running(&self, id: &str) -> Result<&Held> {
        let held = self.containers.get(id).ok_or_else(|| not_found(id))?;
        match held.state {
            ContainerState::Running { .. } => Ok(held),
            _ => Err(RuntimeError::NotFound(format!("running process of container {id}"))),
        }
    }

    fn create(&mut self, spec: &ContainerSpec) -> Result<()> {
        if self.containers.contains_key(&spec.id) {
            return Ok(());
        }
        let image = self
            .images
            .get(&spec.image)
            .ok_or_else(|| RuntimeError::CreateContainer(format!("image {} not found", spec.image)))?;
        let held = Held {
            spec: spec.clone(),
            image_id: image.id.clone(),
            state: ContainerState::Created,
            stats: Stats::default(),
            attached: Vec::new(),
        };
        self.containers.insert(spec.id.clone(), held);
        Ok(())
    }

    fn start(&mut self, id: &str) -> Result<u32> {
        let started_at = (self.clock)();
        let held = self.containers.get_mut(id).ok_or_else(|| not_found(id))?;
        match held.state {
            ContainerState::Running { pid, .. } => return Ok(pid),
            ContainerState::Exited(_) => {
                return Err(RuntimeError::StartContainer(format!("container {id} has exited")));
            }
            ContainerState::Created => {}
        }
        let program = self.programs.get(&held.spec.image).cloned().unwrap_or_default();
        if let Some(why) = program.fails_to_start {
            return Err(RuntimeError::StartContainer(why));
        }
        let pid = self.next_pid;
        self.next_pid += 1;
        held.state = ContainerState::Running { pid, started_at };
        if let Some(code) = program.exits {
            self.end(id, code, false);
        }
        Ok(pid)
    }

    fn kill(&mut self, id: &str, signal: i32) -> Result<()> {
        let held = self.containers.get(id).ok_or_else(|| not_found(id))?;
        if signal == SIGKILL {
            self.end(id, 128 + SIGKILL, false);
        } else if let Some(code) = self.programs.get(&held.spec.image).cloned().unwrap_or_default().on_signal
        {
            self.end(id, code, false);
        }
        Ok(())
    }
}
