//! Blobs into containerd's content store and out of it: small things whole, layers as they arrive.

use std::collections::HashMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use spandrel_proto::containerd::services::content::v1::content_client::ContentClient;
use spandrel_proto::containerd::services::content::v1::{
    InfoRequest, ReadContentRequest, ReadContentResponse, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use spandrel_registry::Digest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{Session, failed};
use crate::Error;
use crate::source::BlobStream;

/// Longest piece in one message, in bytes: containerd's limit is 16 MiB for a message, and its own client sends 1 MiB.
const MAX_PIECE: usize = 1 << 20;

/// Longest message that is taken, in bytes: containerd sends pieces of 1 MiB, and none above its own limit.
const MAX_MESSAGE: usize = 16 << 20;

impl Session {
    /// Writes a small thing. That it is there already is fine: it gets the labels then, and false is given.
    ///
    /// # Errors
    /// When containerd refuses.
    pub async fn write(
        &self,
        digest: &Digest,
        bytes: Vec<u8>,
        labels: HashMap<String, String>,
    ) -> Result<bool, Error> {
        let len = bytes.len() as u64;
        let Some(mut writer) = self.open(digest, len).await? else {
            self.label(digest, labels).await?;
            return Ok(false);
        };
        writer.restart().await?;
        for piece in bytes.chunks(MAX_PIECE) {
            writer.piece(piece.to_vec()).await?;
        }
        writer.commit(labels).await?;
        Ok(true)
    }

    /// Writes a blob of `len` bytes from what `content` opens; that isn't done, and false given, when it is there already.
    /// `arrived` hears of every piece.
    ///
    /// # Errors
    /// When the bytes can't be had, or containerd refuses; also when they have another digest.
    pub async fn write_blob<C: Future<Output = Result<Box<dyn BlobStream>, Error>>>(
        &self,
        digest: &Digest,
        len: u64,
        content: impl FnOnce() -> C,
        labels: HashMap<String, String>,
        mut arrived: impl FnMut(u64),
    ) -> Result<bool, Error> {
        let Some(mut writer) = self.open(digest, len).await? else {
            self.label(digest, labels).await?;
            return Ok(false);
        };
        writer.restart().await?;
        let mut stream = content().await?;
        while let Some(bytes) = stream.chunk().await? {
            for piece in bytes.chunks(MAX_PIECE) {
                writer.piece(piece.to_vec()).await?;
            }
            arrived(bytes.len() as u64);
        }
        writer.commit(labels).await?;
        Ok(true)
    }

    /// Length of `digest` in bytes; `None` when the content store hasn't got it.
    ///
    /// # Errors
    /// When containerd refuses.
    pub async fn content_len(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let request = InfoRequest { digest: digest.to_string() };
        match ContentClient::new(self.calls()).info(request).await {
            Ok(answer) => {
                let size = answer.into_inner().info.map(|info| info.size).unwrap_or_default();
                Ok(Some(u64::try_from(size).unwrap_or(0)))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed(format!("look for content {digest}"), &status)),
        }
    }

    /// The bytes `range` of `digest`, which the content store has.
    ///
    /// # Errors
    /// When containerd refuses.
    pub async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Box<dyn BlobStream>, Error> {
        let left = range.end.saturating_sub(range.start);
        let what = format!("read content {digest}");
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX); // no blob has 2^63 bytes
        let request = ReadContentRequest {
            digest: digest.to_string(),
            offset: signed(range.start),
            size: signed(left),
        };
        let mut client = ContentClient::new(self.calls()).max_decoding_message_size(MAX_MESSAGE);
        // To containerd a length of 0 is all that follows.
        let answers = match left {
            0 => None,
            _ => Some(client.read(request).await.map_err(|status| failed(&*what, &status))?.into_inner()),
        };
        Ok(Box::new(Reading { what, answers, left }))
    }

    /// Begins to write; `None` when it is there.
    async fn open(&self, digest: &Digest, len: u64) -> Result<Option<Writer>, Error> {
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
        let answers = ContentClient::new(self.calls()).write(ReceiverStream::new(stream)).await;
        let mut answers = match answers {
            Ok(answers) => answers.into_inner(),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(None),
            Err(status) => return Err(failed(writer.what, &status)),
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
    fn failed(&self, status: &Status) -> Error {
        failed(self.what.clone(), status)
    }

    async fn send(&self, request: WriteContentRequest) -> Result<(), Error> {
        // Only after containerd closed the stream; what it said is read by whoever waits for an answer.
        self.requests
            .send(request)
            .await
            .map_err(|_| self.failed(&Status::unavailable("it closed the stream")))
    }

    async fn ask(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse, Error> {
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
    async fn restart(&mut self) -> Result<(), Error> {
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

    async fn piece(&mut self, data: Vec<u8>) -> Result<(), Error> {
        let len = data.len();
        let request = self.request(WriteAction::Write, data);
        self.ask(request).await?;
        self.offset += i64::try_from(len).unwrap_or(0); // a piece has MAX_PIECE bytes at most
        Ok(())
    }

    /// Done: containerd compares length and digest.
    async fn commit(mut self, labels: HashMap<String, String>) -> Result<(), Error> {
        let mut request = self.request(WriteAction::Commit, Vec::new());
        request.labels = labels;
        self.ask(request).await.map(drop)
    }
}

/// A blob on its way out of the store.
struct Reading {
    what: String,
    answers: Option<Streaming<ReadContentResponse>>,
    /// Bytes that are still to come.
    left: u64,
}

#[async_trait]
impl BlobStream for Reading {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(answers) = self.answers.as_mut().filter(|_| self.left > 0) else { return Ok(None) };
        let wrong = |text: String| failed(&*self.what, &Status::data_loss(text));
        let Some(answer) = answers.message().await.map_err(|status| failed(&*self.what, &status))? else {
            return Err(wrong(format!("{} bytes are missing", self.left)));
        };
        let len = answer.data.len() as u64;
        self.left =
            self.left.checked_sub(len).ok_or_else(|| wrong("more bytes than asked for".to_owned()))?;
        Ok(Some(answer.data.into()))
    }
}
