//! What the state machine asks for, and the answers.

use std::sync::Arc;

use jiff::Timestamp;

use crate::runtime::{Attachment, Container, Image};

/// Something to do for the pod. Each one is in progress from when it is handed out until its [`Outcome`] comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make the pod's directories and volumes.
    Prepare,
    /// Give the pod its network.
    Attach,
    /// See to it that the container's image is here, as its pull policy says.
    EnsureImage {
        /// The container's name.
        container: String,
    },
    /// Make and start a container.
    Start(Box<Start>),
    /// Run a hook of a running container.
    Hook {
        /// The container's name.
        container: String,
        /// The container's id.
        id: String,
        /// Which hook.
        hook: Hook,
    },
    /// Send a signal to a container.
    Signal {
        /// The container's id.
        id: String,
        /// The signal's number.
        signal: i32,
    },
    /// Look whether a container still runs.
    Inspect {
        /// The container's id.
        id: String,
    },
    /// Remove an ended container.
    Remove {
        /// The container's id.
        id: String,
    },
    /// Take the pod's network away.
    Detach,
    /// Unmount and remove the pod's volumes.
    ReleaseVolumes,
    /// Remove what is left of the pod on this node: directory, cgroup.
    Purge,
}

/// A container to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The container's name.
    pub(crate) container: String,
    /// Its number, from 0.
    pub(crate) attempt: u32,
    /// Its id.
    pub(crate) id: String,
    /// A running process of the pod whose namespaces to join; none for the first.
    pub(crate) join_pid: Option<u32>,
    /// The image to run.
    pub(crate) image: Arc<Image>,
    /// What [`super::backoff::CrashBackoff`] wants remembered, in seconds.
    pub(crate) backoff_s: u32,
}

/// A hook of a container's lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// After the start.
    PostStart,
    /// Before the end.
    PreStop,
}

/// Why an image is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageError {
    /// It could not be fetched.
    Pull(String),
    /// It is not here and may not be fetched.
    NeverPull(String),
    /// Its name is not one.
    InvalidName(String),
}

/// Why a container does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartError {
    /// Something that its spec refers to is missing.
    Config(String),
    /// The runtime could not make it.
    Create(String),
    /// Its program could not be started.
    Start(String),
    /// The process of [`Start::join_pid`] has ended; the container is not made.
    Vanished,
}

/// What came of an [`Action`].
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Of [`Action::Prepare`].
    Prepared(Result<(), String>),
    /// Of [`Action::Attach`].
    Attached(Result<Attachment, String>),
    /// Of [`Action::EnsureImage`].
    Image {
        /// The container's name.
        container: String,
        /// The image, and whether it was fetched for this.
        result: Result<(Arc<Image>, bool), ImageError>,
    },
    /// Of [`Action::Start`]: the process, and since when.
    Started {
        /// The container's name.
        container: String,
        /// The container's id.
        id: String,
        /// The process and its start.
        result: Result<(u32, Timestamp), StartError>,
    },
    /// Of [`Action::Hook`].
    Hook {
        /// The container's id.
        id: String,
        /// Which hook.
        hook: Hook,
        /// Whether it succeeded.
        result: Result<(), String>,
    },
    /// Of [`Action::Signal`].
    Signalled {
        /// The container's id.
        id: String,
        /// The signal's number.
        signal: i32,
        /// Whether it was sent.
        result: Result<(), String>,
    },
    /// Of [`Action::Inspect`], with the container's last words.
    Inspected {
        /// The container's id.
        id: String,
        /// What the runtime knows of it.
        result: Result<Option<Box<Container>>, String>,
        /// Its termination message, if it has ended.
        message: String,
    },
    /// Of [`Action::Remove`].
    Removed {
        /// The container's id.
        id: String,
        /// Whether it is gone.
        result: Result<(), String>,
    },
    /// Of [`Action::Detach`].
    Detached(Result<(), String>),
    /// Of [`Action::ReleaseVolumes`].
    Released(Result<(), String>),
    /// Of [`Action::Purge`].
    Purged(Result<(), String>),
}

/// Something worth telling a user, for the pod's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// Whether it is bad news.
    pub(crate) warning: bool,
    /// One word.
    pub(crate) reason: &'static str,
    /// A sentence.
    pub(crate) message: String,
    /// The container that it is about.
    pub(crate) container: Option<String>,
}
