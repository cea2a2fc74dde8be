//! Running programs.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A program to be run.
#[derive(Debug)]
pub struct Program {
    command: Command,
    input: Option<String>,
}

/// What a program did.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The program and its arguments.
    pub words: String,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
}

impl Program {
    /// `program` without arguments and with empty input.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Self { command, input: None }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it in that folder.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Gives the program something to read.
    #[must_use]
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = Some(text.into());
        self.command.stdin(Stdio::piped());
        self
    }

    /// Starts the program, with its output as pipes; it ends when the answer is dropped.
    ///
    /// # Errors
    /// There is no such program.
    pub fn start(mut self) -> anyhow::Result<Child> {
        self.command.spawn().with_context(|| format!("cannot run {}", self.words()))
    }

    /// Runs the program to its end, whatever its exit code.
    ///
    /// # Errors
    /// There is no such program, or it takes longer than two minutes.
    pub async fn run(mut self) -> anyhow::Result<Ran> {
        let words = self.words();
        let mut child = self.command.spawn().with_context(|| format!("cannot run {words}"))?;
        let (input, stdin) = (self.input, child.stdin.take());
        let feed = async {
            if let (Some(input), Some(mut stdin)) = (input, stdin) {
                // A program that does not want it all is no failure.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let Ok(output) = tokio::time::timeout(LIMIT, both).await else {
            bail!("{words} did not end within {LIMIT:?}");
        };
        let output = output?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ran {
            words,
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            code: output.status.code().unwrap_or(-1),
        })
    }

    /// Runs the program, which must succeed, and answers what it printed.
    ///
    /// # Errors
    /// As [`Self::run`], and an exit code other than 0.
    pub async fn ok(self) -> anyhow::Result<String> {
        let ran = self.run().await?;
        if ran.code != 0 {
            bail!("{} ended with {}: {}{}", ran.words, ran.code, ran.stdout, ran.stderr);
        }
        Ok(ran.stdout)
    }

    fn words(&self) -> String {
        let command = self.command.as_std();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
        let words = words.join(" ");
        match words.char_indices().nth(300) {
            Some((end, _)) => format!("{}…", &words[..end]),
            None => words,
        }
    }
}

impl Ran {
    /// What was printed, if the program failed with `code` and said each of `words`, in whatever case.
    ///
    /// # Errors
    /// Another code, or one of the words is missing.
    pub fn failed_with(&self, code: i32, words: &[&str]) -> anyhow::Result<&str> {
        let said = self.stderr.to_lowercase();
        if self.code != code {
            bail!("{} ended with {}, not {code}: {}{}", self.words, self.code, self.stdout, self.stderr);
        }
        if let Some(missing) = words.iter().find(|w| !said.contains(&w.to_lowercase())) {
            bail!("{} does not say \"{missing}\" but: {}", self.words, self.stderr);
        }
        Ok(&self.stderr)
    }
}
