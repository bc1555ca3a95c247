//! Writing into containerd's content store: small things whole, layers as they arrive.

use std::collections::HashMap;

use spandrel_proto::containerd::services::content::v1::content_client::ContentClient;
use spandrel_proto::containerd::services::content::v1::{
    InfoRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use spandrel_registry::{Body, Digest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::PullError;
use super::session::Session;

/// Longest piece in one message, in bytes: containerd's limit is 16 MiB for a message, and its own client sends 1 MiB.
const MAX_PIECE: usize = 1 << 20;

impl Session {
    /// Writes a small thing; that it is there already is fine, and it gets the labels then.
    pub async fn write(
        &self,
        digest: &Digest,
        bytes: Vec<u8>,
        labels: HashMap<String, String>,
    ) -> Result<(), PullError> {
        let len = bytes.len() as u64;
        match self.open(digest, len).await? {
            None => return self.label(digest, labels).await,
            Some(mut writer) => {
                writer.restart().await?;
                for piece in bytes.chunks(MAX_PIECE) {
                    writer.piece(piece.to_vec()).await?;
                }
                writer.commit(labels.clone()).await?;
            }
        }
        Ok(())
    }

    /// Writes a layer's blob from `body`, which yields its `len` bytes; `arrived` hears of every piece.
    pub async fn write_layer(
        &self,
        digest: &Digest,
        len: u64,
        mut body: Body,
        labels: HashMap<String, String>,
        mut arrived: impl FnMut(u64),
    ) -> Result<(), PullError> {
        let Some(mut writer) = self.open(digest, len).await? else {
            return self.label(digest, labels).await;
        };
        writer.restart().await?;
        while let Some(bytes) = body.chunk().await.map_err(PullError::Registry)? {
            for piece in bytes.chunks(MAX_PIECE) {
                writer.piece(piece.to_vec()).await?;
            }
            arrived(bytes.len() as u64);
        }
        writer.commit(labels).await
    }

    /// Whether the content store has `digest`.
    pub async fn has(&self, digest: &Digest) -> Result<bool, PullError> {
        let request = InfoRequest { digest: digest.to_string() };
        match ContentClient::new(self.calls.clone()).info(request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(PullError::call(format!("look for content {digest}"), &status)),
        }
    }

    /// Begins to write; `None` when it is there.
    async fn open(&self, digest: &Digest, len: u64) -> Result<Option<Writer>, PullError> {
        let what = format!("write content {digest}");
        // As many as one piece under way and one in the making.
        let (requests, stream) = mpsc::channel(2);
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: format!("spandrel-{digest}"),
            total: i64::try_from(len).unwrap_or(i64::MAX), // no blob has 2^63 bytes
            expected: digest.to_string(),
            ..WriteContentRequest::default()
        };
        let mut writer =
            Writer { what, digest: digest.to_string(), len, offset: 0, had: 0, requests, answers: None };
        writer.send(first.clone()).await?;
        let answers = ContentClient::new(self.calls.clone()).write(ReceiverStream::new(stream)).await;
        let mut answers = match answers {
            Ok(answers) => answers.into_inner(),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(None),
            Err(status) => return Err(PullError::call(writer.what, &status)),
        };
        match answers.message().await {
            Ok(Some(answer)) => {
                writer.had = answer.offset;
                writer.answers = Some(answers);
                Ok(Some(writer))
            }
            Ok(None) => Err(writer.failed(&Status::unknown("the answer is missing"))),
            Err(status) if status.code() == Code::AlreadyExists => Ok(None),
            Err(status) => Err(writer.failed(&status)),
        }
    }
}

/// A blob on its way into the store.
struct Writer {
    what: String,
    digest: String,
    len: u64,
    /// Where the next piece goes.
    offset: i64,
    /// How many bytes a former try left.
    had: i64,
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Option<Streaming<WriteContentResponse>>,
}

impl Writer {
    fn failed(&self, status: &Status) -> PullError {
        PullError::call(self.what.clone(), status)
    }

    async fn send(&self, request: WriteContentRequest) -> Result<(), PullError> {
        // Only after containerd closed the stream; what it said is read by whoever waits for an answer.
        self.requests
            .send(request)
            .await
            .map_err(|_| self.failed(&Status::unavailable("it closed the stream")))
    }

    async fn ask(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse, PullError> {
        let sent = self.send(request).await;
        let answer = match &mut self.answers {
            Some(answers) => answers.message().await,
            None => Ok(None),
        };
        match (answer, sent) {
            (Ok(Some(answer)), _) => Ok(answer),
            (Err(status), _) => Err(self.failed(&status)),
            (Ok(None), Err(error)) => Err(error),
            (Ok(None), Ok(())) => Err(self.failed(&Status::unavailable("it closed the stream"))),
        }
    }

    /// Throws away what a former try left: its bytes were never checked.
    async fn restart(&mut self) -> Result<(), PullError> {
        if self.had == 0 {
            return Ok(());
        }
        // containerd truncates when a piece is written at an offset below what it has.
        let request = self.request(WriteAction::Write, Vec::new());
        let answer = self.ask(request).await?;
        self.had = answer.offset;
        Ok(())
    }

    fn request(&self, action: WriteAction, data: Vec<u8>) -> WriteContentRequest {
        WriteContentRequest {
            action: action.into(),
            total: i64::try_from(self.len).unwrap_or(i64::MAX),
            expected: self.digest.clone(),
            offset: self.offset,
            data,
            ..WriteContentRequest::default()
        }
    }

    async fn piece(&mut self, data: Vec<u8>) -> Result<(), PullError> {
        let len = data.len();
        let request = self.request(WriteAction::Write, data);
        self.ask(request).await?;
        self.offset += i64::try_from(len).unwrap_or(0); // a piece has MAX_PIECE bytes at most
        Ok(())
    }

    /// Done: containerd compares length and digest.
    async fn commit(mut self, labels: HashMap<String, String>) -> Result<(), PullError> {
        let mut request = self.request(WriteAction::Commit, Vec::new());
        request.labels = labels;
        self.ask(request).await.map(drop)
    }
}
