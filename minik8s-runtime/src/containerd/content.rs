//! Blobs in containerd's content store.

use std::collections::HashMap;
use std::io::SeekFrom;
use std::path::PathBuf;

use containerd_client::services::v1::{
    AbortRequest, Info, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use prost_types::FieldMask;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::rpc::{Rpc, failed, unique};
use crate::runtime::{Result, RuntimeError};

/// The size of the pieces in which a blob is sent.
const PIECE: usize = 1 << 20;

/// `sha256:…` of these bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// A whole blob; `None` if it is not there.
pub(super) async fn read(rpc: &Rpc, digest: &str) -> Result<Option<Vec<u8>>> {
    let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
    let mut pieces = match rpc.content().read(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) if status.code() == Code::NotFound => return Ok(None),
        Err(status) => return Err(failed("read content", &status)),
    };
    let mut blob = Vec::new();
    loop {
        match pieces.message().await {
            Ok(Some(piece)) => blob.extend_from_slice(&piece.data),
            Ok(None) => return Ok(Some(blob)),
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(failed("read content", &status)),
        }
    }
}

/// Where the bytes of a blob are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Bytes(Vec<u8>),
    /// A part of a file.
    File {
        path: PathBuf,
        offset: u64,
        size: u64,
    },
}

impl Source {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }

    async fn open(self) -> std::io::Result<Box<dyn AsyncRead + Send + Unpin>> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes)),
            Self::File { path, offset, size } => {
                let mut file = tokio::fs::File::open(path).await?;
                file.seek(SeekFrom::Start(offset)).await?;
                Box::new(file.take(size))
            }
        })
    }
}

/// Stores a blob under its digest, with these labels. One that is there already gets the labels as well.
pub(super) async fn write(
    rpc: &Rpc,
    digest: &str,
    source: Source,
    labels: HashMap<String, String>,
) -> Result<()> {
    let reference = unique("minik8s-import");
    let (sender, mut receiver) = mpsc::channel(2);
    let head = WriteContentRequest {
        r#ref: reference.clone(),
        total: source.size().cast_signed(),
        expected: digest.to_owned(),
        labels: labels.clone(),
        ..WriteContentRequest::default()
    };
    let requests = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut client = rpc.content();
    let call = async {
        let mut answers = client.write(requests).await?.into_inner();
        last(&mut answers).await
    };
    let (fed, answered) = tokio::join!(feed(source, head, sender), call);
    let failure = match (fed, answered) {
        (Err(error), _) => RuntimeError::Other(format!("read {digest}: {error}")),
        (Ok(()), Ok(Some(answer))) if answer.action() == WriteAction::Commit => return Ok(()),
        (Ok(()), Ok(_)) => RuntimeError::Other(format!("write content {digest}: not committed")),
        (Ok(()), Err(status)) if status.code() == Code::AlreadyExists => {
            abort(rpc, reference).await;
            return label(rpc, digest, labels).await;
        }
        (Ok(()), Err(status)) => failed(&format!("write content {digest}"), &status),
    };
    abort(rpc, reference).await;
    Err(failure)
}

/// Sends the pieces of a blob and, if all of it could be read, the word to commit it.
async fn feed(
    source: Source,
    head: WriteContentRequest,
    to: mpsc::Sender<WriteContentRequest>,
) -> std::io::Result<()> {
    let mut from = source.open().await?;
    let mut offset = 0;
    loop {
        let mut data = Vec::with_capacity(PIECE);
        while data.len() < PIECE && from.read_buf(&mut data).await? > 0 {}
        let length = data.len();
        let action = if length == 0 { WriteAction::Commit } else { WriteAction::Write };
        let request = WriteContentRequest { action: action.into(), offset, data, ..head.clone() };
        // Nobody takes it any more: containerd has answered, and its answer says why.
        if to.send(request).await.is_err() || length == 0 {
            return Ok(());
        }
        offset += length.cast_signed() as i64;
    }
}

async fn last(
    answers: &mut tonic::Streaming<WriteContentResponse>,
) -> Result<Option<WriteContentResponse>, Status> {
    let mut last = None;
    while let Some(answer) = answers.message().await? {
        last = Some(answer);
    }
    Ok(last)
}

/// Gives up an unfinished blob. It would be collected in time; this is sooner.
async fn abort(rpc: &Rpc, reference: String) {
    if let Err(status) = rpc.content().abort(AbortRequest { r#ref: reference }).await {
        tracing::debug!(%status, "an unfinished blob was not given up");
    }
}

/// Sets labels of a blob; others stay.
pub(super) async fn label(rpc: &Rpc, digest: &str, labels: HashMap<String, String>) -> Result<()> {
    if labels.is_empty() {
        return Ok(());
    }
    let paths = labels.keys().map(|name| format!("labels.{name}")).collect();
    let info = Info { digest: digest.to_owned(), labels, ..Info::default() };
    let request = UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
    rpc.content().update(request).await.map_err(|status| failed("label content", &status))?;
    Ok(())
}
