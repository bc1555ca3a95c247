//! The bytes of a blob's range as they arrive, continued where they break off.
//!
//! The server's claims are checked before its bytes are passed on: status, `Content-Range` and length must be those of
//! the range. A server that answers with the whole blob is put up with when the range begins early enough.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::Response;

use crate::client::blob_call;
use crate::endpoint::{Endpoint, Servers};
use crate::failure::Failure;
use crate::inner::Inner;
use crate::limits::{MAX_SKIPPED, MIN_PROGRESS};
use crate::retry::Pursuit;
use crate::{Digest, Error, ErrorKind, Repository, range};

/// A body in progress. A range's body yields exactly the bytes of the range, or an error.
pub struct Body {
    inner: Arc<Inner>,
    repository: Repository,
    digest: Digest,
    what: String,
    /// What is still to come.
    range: Range<u64>,
    /// Whether the blob ends where the range does.
    whole: bool,
    pursuit: Pursuit,
    source: Option<Source>,
    /// Who sent bytes so far.
    served_by: Vec<Arc<Endpoint>>,
    /// Bytes since retries and deadline last began anew.
    progress: u64,
    /// When the caller last got control, on [`crate::Clock::elapsed`].
    left_at: Option<Duration>,
}

/// An answer that is being read.
struct Source {
    response: Response,
    /// Bytes before the range that still have to be passed over.
    skip: u64,
    /// Whether the answer ends with the range, so that more is an error.
    exact: bool,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("what", &self.what).field("range", &self.range).finish_non_exhaustive()
    }
}

impl Body {
    /// Asks for the range (of which `whole` says that it is all of the blob), and returns when the bytes are about to come.
    pub(crate) async fn open(
        inner: Arc<Inner>,
        repository: &Repository,
        digest: &Digest,
        range: Range<u64>,
        whole: bool,
    ) -> Result<Self, Error> {
        let what = if whole {
            format!("GET blob {digest} of {repository}")
        } else {
            format!("GET bytes {}..{} of blob {digest} of {repository}", range.start, range.end)
        };
        let pursuit = Pursuit::new(&inner, what.clone(), repository, Servers::All)?;
        let mut body = Self {
            inner,
            repository: repository.clone(),
            digest: digest.clone(),
            what,
            range,
            whole,
            pursuit,
            source: None,
            served_by: Vec::new(),
            progress: 0,
            left_at: None,
        };
        if !body.range.is_empty() {
            body.connect().await?;
        }
        Ok(body)
    }

    /// The next piece, or `None` when all bytes that were asked for have come. The future can be dropped and a new one
    /// made: no byte is lost.
    ///
    /// # Errors
    /// When the connection breaks, the body ends early or runs over, and no retry helped.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let now = self.inner.clock.elapsed();
        if let Some(left_at) = self.left_at {
            self.pursuit.pause(now.saturating_sub(left_at));
        }
        // Also for a caller that drops the future: what it waited in vain isn't counted against the next call.
        self.left_at = Some(now);
        let result = self.next().await;
        self.left_at = Some(self.inner.clock.elapsed());
        result
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Some(source) = &mut self.source else {
                if self.range.is_empty() {
                    return Ok(None);
                }
                self.connect().await?;
                continue;
            };
            if self.range.is_empty() && !source.exact {
                self.source = None; // the rest of a whole blob, which nobody wants
                continue;
            }
            let read = async { source.response.chunk().await.map_err(Failure::of_reqwest) };
            let failure = match self.pursuit.in_time(&self.inner, read).await {
                Ok(Some(bytes)) => match self.take(bytes) {
                    Ok(Some(bytes)) => return Ok(Some(bytes)),
                    Ok(None) => continue,
                    // There is nothing left to ask another server for, and what came is in doubt.
                    Err(failure) if self.range.is_empty() => {
                        self.source = None;
                        return Err(self.pursuit.error(&self.inner, failure, ""));
                    }
                    Err(failure) => failure,
                },
                Ok(None) if self.range.is_empty() => {
                    self.source = None;
                    continue;
                }
                Ok(None) => {
                    let missing = self.range.end - self.range.start;
                    Failure::passing(format!("ended the body {missing} bytes early"))
                }
                // All bytes have come; how the connection ends is nobody's concern.
                Err(_) if self.range.is_empty() => {
                    self.source = None;
                    continue;
                }
                Err(failure) => failure,
            };
            self.source = None;
            self.pursuit.failed(&self.inner, failure).await?;
        }
    }

    /// What of a received piece belongs to the range.
    fn take(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>, Failure> {
        let Some(source) = &mut self.source else { return Ok(None) };
        let len = |bytes: &Bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let skip = usize::try_from(source.skip).unwrap_or(usize::MAX).min(bytes.len());
        let _ = bytes.split_to(skip);
        source.skip -= u64::try_from(skip).unwrap_or(0);
        let wanted = self.range.end - self.range.start;
        if len(&bytes) > wanted {
            if source.exact {
                return Err(Failure::corrupt("sent more bytes than the range has"));
            }
            bytes.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        self.range.start += len(&bytes);
        self.progress += len(&bytes);
        if self.progress >= MIN_PROGRESS {
            self.progress = 0;
            self.pursuit.progress(&self.inner);
        }
        Ok(Some(bytes))
    }

    /// Everything, up to `limit` bytes.
    ///
    /// # Errors
    /// As [`Body::chunk`]; [`crate::ErrorKind::Corrupt`] when there is more.
    pub async fn collect(mut self, limit: u64) -> Result<Bytes, Error> {
        let len = self.range.end.saturating_sub(self.range.start);
        if len > limit {
            let message = format!("it has {len} bytes, more than the {limit} that are allowed for it");
            return Err(Error { kind: ErrorKind::Corrupt, what: self.what, message });
        }
        let mut all = BytesMut::with_capacity(usize::try_from(len.min(MIN_PROGRESS)).unwrap_or(0));
        while let Some(bytes) = self.chunk().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// Finds a server that begins to send what is still to come.
    async fn connect(&mut self) -> Result<(), Error> {
        loop {
            let endpoint = self.pursuit.endpoint();
            let attempt = self.inner.range_once(&endpoint, self);
            match self.pursuit.attempt(&self.inner, attempt).await {
                Ok(source) => {
                    self.source = Some(source);
                    self.served_by.push(endpoint);
                    return Ok(());
                }
                Err(failure) => self.pursuit.failed(&self.inner, failure).await?,
            }
        }
    }
}

impl Inner {
    async fn range_once(&self, endpoint: &Endpoint, body: &Body) -> Result<Source, Failure> {
        let mut call = blob_call(Method::GET, &body.repository, &body.digest);
        call.what.clone_from(&body.what);
        let all = body.whole && body.range.start == 0;
        if !all {
            let value = HeaderValue::from_str(&range::header(&body.range));
            let value = value.map_err(|_| Failure::corrupt("was asked for a range that is no header"))?;
            call.headers.insert(header::RANGE, value);
        }
        let response = self.blob_response(endpoint, &call, &body.digest).await?;
        if !response.status().is_success() {
            return Err(self.refuse(response).await);
        }
        match check_head(response.status(), response.headers(), &body.range, body.whole) {
            Ok((skip, exact)) => Ok(Source { response, skip, exact }),
            Err(failure) => {
                self.forget_place(endpoint, &body.repository, &body.digest);
                Err(failure)
            }
        }
    }

    /// Reads all of a blob that has `size` bytes, and checks it. What was wrong is asked for once more, elsewhere if there
    /// is an elsewhere.
    pub(crate) async fn whole_blob(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<Bytes, Error> {
        let mut first = true;
        loop {
            let mut body = Body::open(Arc::clone(self), repository, digest, 0..size, true).await?;
            let mut all = BytesMut::new();
            while let Some(bytes) = body.chunk().await? {
                all.extend_from_slice(&bytes);
            }
            if digest.matches(&all) {
                return Ok(all.freeze());
            }
            if !first {
                let failure = Failure::corrupt(format!("sent {size} bytes that have another digest"));
                return Err(body.pursuit.error(self, failure, ""));
            }
            first = false;
            for endpoint in &body.served_by {
                self.forget_place(endpoint, repository, digest);
                if endpoint.mirror {
                    self.rest(endpoint);
                }
            }
        }
    }
}

/// Checks what an answer says of its bytes against the range asked for; yields how many bytes come before the range, and
/// whether the answer ends with it.
fn check_head(
    status: StatusCode,
    headers: &HeaderMap,
    wanted: &Range<u64>,
    whole: bool,
) -> Result<(u64, bool), Failure> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let len = text(header::CONTENT_LENGTH).and_then(|value| value.parse::<u64>().ok());
    match status {
        StatusCode::PARTIAL_CONTENT => {
            let said = text(header::CONTENT_RANGE).unwrap_or_default();
            let Some(got) = range::parse(said).and_then(|said| said.range) else {
                return Err(Failure::corrupt("sent a part without saying which (Content-Range)"));
            };
            if got != *wanted {
                return Err(Failure::corrupt(format!("sent bytes {}..{} instead", got.start, got.end)));
            }
            let wanted_len = wanted.end - wanted.start;
            if let Some(len) = len.filter(|len| *len != wanted_len) {
                return Err(Failure::corrupt(format!("announced {len} bytes for a range of {wanted_len}")));
            }
            Ok((0, true))
        }
        StatusCode::OK => {
            if let Some(len) = len.filter(|len| *len < wanted.end || (whole && *len > wanted.end)) {
                return Err(Failure::corrupt(format!("has a blob of {len} bytes, not {}", wanted.end)));
            }
            if wanted.start > MAX_SKIPPED {
                return Err(Failure::lasting(
                    ErrorKind::Invalid,
                    format!("ignores range requests, and {} bytes are too many to pass over", wanted.start),
                ));
            }
            Ok((wanted.start, whole))
        }
        other => Err(Failure::corrupt(format!("answered {other}, which holds no bytes of a blob"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().expect("a name"), v.parse().expect("a value"))).collect()
    }

    #[test]
    fn heads_of_answers_are_checked() {
        for (status, pairs, want) in [
            (206, vec![("content-range", "bytes 10-19/100"), ("content-length", "10")], Some((0, true))),
            (206, vec![("content-range", "bytes 10-19/*")], Some((0, true))),
            (206, vec![("content-range", "bytes 10-20/100")], None),
            (206, vec![("content-range", "bytes 11-19/100")], None),
            (206, vec![("content-range", "bytes 10-19/100"), ("content-length", "11")], None),
            (206, vec![("content-type", "multipart/byteranges; boundary=x")], None),
            (206, vec![], None),
            (200, vec![("content-length", "100")], Some((10, false))),
            (200, vec![], Some((10, false))),
            (200, vec![("content-length", "19")], None),
            (204, vec![], None),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let got = check_head(status, &headers(&pairs), &(10..20), false);
            assert_eq!(got.ok(), want, "{status} {pairs:?}");
        }
    }

    #[test]
    fn a_whole_blob_is_as_long_as_it_should_be() {
        for (len, want) in [("19", None), ("20", Some((0, true))), ("21", None)] {
            let headers = headers(&[("content-length", len)]);
            assert_eq!(check_head(StatusCode::OK, &headers, &(0..20), true).ok(), want, "{len}");
        }
    }

    #[test]
    fn a_whole_blob_is_not_read_through_for_its_end() {
        let range = MAX_SKIPPED + 1..MAX_SKIPPED + 2;
        let failure = check_head(StatusCode::OK, &HeaderMap::new(), &range, false).expect_err("too far");
        assert_eq!(failure.kind, ErrorKind::Invalid);
    }
}
