//! Uploads: blobs in one request where the registry takes that, in pieces where it doesn't, and manifests. Long blobs pass
//! through as they come ([`BlobContent`]), so that no more than a piece of one is held.
//!
//! A blob's upload is repeated as a whole when it fails: its content decides its name, so doing it twice does no harm,
//! and an unfinished session is the registry's to clear away. Mirrors are never written to.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::{Response, Url};

use crate::auth::{Grant, Scope};
use crate::client::{blob_call, manifest_call};
use crate::content::{BlobContent, Failed, Pushed, Watched};
use crate::endpoint::{Endpoint, Servers};
use crate::failure::{Failure, Retry};
use crate::inner::{Answer, Call, Inner};
use crate::limits::{MAX_ERROR_BODY, MAX_MANIFEST_LEN, UPLOAD_CHUNK};
use crate::redirect::location;
use crate::retry::Pursuit;
use crate::transport::Pool;
use crate::{Client, Digest, Error, ErrorKind, Repository, referrers};

impl Client {
    /// Uploads a blob unless it is there; `from` names another repository of the host that has it (mounted if allowed).
    ///
    /// # Errors
    /// All kinds; [`ErrorKind::Invalid`] when `bytes` haven't that digest or the registry refuses the upload.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        bytes: Bytes,
        from: Option<&Repository>,
    ) -> Result<(), Error> {
        let what = format!("push of blob {digest} to {repository}");
        if !digest.matches(&bytes) {
            return Err(Error::invalid(what, "the bytes to push have another digest"));
        }
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.push_any(what, repository, digest, &Upload { len, from: Source::Memory(bytes) }, from)
            .await
            .map(drop)
    }

    /// As [`Client::push_blob`] for a blob of `size` bytes that is not held in memory: `content` is read when its bytes are
    /// needed, and anew for every try. The registry checks the digest.
    ///
    /// Memory: what the connection holds, or one piece of 8 MiB where the registry takes no blob in one request.
    ///
    /// # Errors
    /// All kinds; [`ErrorKind::Invalid`] when `content` can't be read, or the registry finds another digest.
    pub async fn push_blob_from(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        content: &dyn BlobContent,
        from: Option<&Repository>,
    ) -> Result<Pushed, Error> {
        let what = format!("push of blob {digest} to {repository}");
        self.push_any(what, repository, digest, &Upload { len: size, from: Source::Content(content) }, from)
            .await
    }

    async fn push_any(
        &self,
        what: String,
        repository: &Repository,
        digest: &Digest,
        upload: &Upload<'_>,
        from: Option<&Repository>,
    ) -> Result<Pushed, Error> {
        let inner = &self.inner;
        let mut pursuit = Pursuit::new(inner, what.clone(), repository, Servers::Origin)?;
        pursuit.allow(usize::try_from(upload.len).unwrap_or(usize::MAX));
        let from = from.filter(|from| from.host == repository.host && from.name != repository.name);
        if let Some(from) = from {
            from.check().map_err(|message| Error::invalid(what.clone(), message))?;
        }
        loop {
            let endpoint = pursuit.endpoint();
            let attempt = inner.push_once(&endpoint, repository, digest, upload, from);
            match pursuit.attempt(inner, attempt).await {
                Ok(pushed) => return Ok(pushed),
                Err(failure) => pursuit.failed(inner, failure).await?,
            }
        }
    }

    /// Uploads a manifest under `part`, a tag or its digest. With a subject, and where the registry lacks the
    /// referrers API, the fallback tag's index is brought up to date.
    ///
    /// # Errors
    /// All kinds; [`ErrorKind::Invalid`] when `part` is a digest that `bytes` haven't, when they are more than 4 MiB, or
    /// when the registry refuses them (it does while a blob is missing).
    pub async fn push_manifest(
        &self,
        repository: &Repository,
        part: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, Error> {
        let digest = self.put_manifest(repository, part, media_type, bytes.clone(), HeaderMap::new()).await?;
        if let (Some((subject, descriptor)), false) =
            (referrers::of_manifest(media_type, &bytes, &digest.0), digest.1)
        {
            self.add_referrer(repository, &subject, descriptor).await?;
        }
        Ok(digest.0)
    }

    /// Uploads a manifest; yields its digest, and whether the registry took note of its subject.
    pub(crate) async fn put_manifest(
        &self,
        repository: &Repository,
        part: &str,
        media_type: &str,
        bytes: Bytes,
        extra: HeaderMap,
    ) -> Result<(Digest, bool), Error> {
        let mut call = manifest_call(Method::PUT, repository, part)?;
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if len > MAX_MANIFEST_LEN {
            let message =
                format!("its {len} bytes are more than the {MAX_MANIFEST_LEN} that registries take");
            return Err(Error::invalid(call.what, message));
        }
        let digest = match part.parse::<Digest>() {
            Ok(digest) if digest.matches(&bytes) => digest,
            Ok(_) => return Err(Error::invalid(call.what, "the manifest to push has another digest")),
            Err(_) => Digest::sha256(&bytes),
        };
        let media_type = HeaderValue::from_str(media_type)
            .map_err(|_| Error::invalid(call.what.clone(), "its media type can't be in a header"))?;
        call.headers = extra;
        call.headers.insert(header::CONTENT_TYPE, media_type);
        call.scope = Scope::Push;
        call.pool = Pool::Upload;
        call.body = Some(bytes);
        let check = |answer: &Answer| match answer.header("docker-content-digest") {
            // Another algorithm is no contradiction.
            Some(said) if said.starts_with(digest.algorithm()) && said != digest.as_str() => {
                Err(Failure::corrupt("took the manifest for one with another digest"))
            }
            _ => Ok(()),
        };
        let answer = self.inner.fetch(&call, &[], MAX_ERROR_BODY, Servers::Origin, &check).await?;
        Ok((digest.clone(), answer.headers.contains_key("oci-subject")))
    }
}

/// A blob to be sent.
struct Upload<'a> {
    /// Its length in bytes.
    len: u64,
    from: Source<'a>,
}

/// Where its bytes are.
enum Source<'a> {
    Memory(Bytes),
    Content(&'a dyn BlobContent),
}

/// A blob's bytes as they go out.
enum Pieces {
    Memory(Bytes),
    Content(Watched),
}

impl Pieces {
    /// The next bytes, as many as there are at hand; none behind the last.
    async fn next(&mut self) -> std::io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.split_to(bytes.len().min(UPLOAD_CHUNK))),
            Self::Content(watched) => loop {
                match watched.next().await? {
                    Some(piece) if piece.is_empty() => {}
                    piece => return Ok(piece.unwrap_or_default()),
                }
            },
        }
    }
}

impl Inner {
    async fn push_once(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        digest: &Digest,
        upload: &Upload<'_>,
        from: Option<&Repository>,
    ) -> Result<Pushed, Failure> {
        let mut call = blob_call(Method::HEAD, repository, digest);
        call.scope = Scope::Push;
        let url = self.url(endpoint, &call).await?;
        let response = self.follow(endpoint, &url, &call).await?.response;
        if response.status().is_success() {
            return Ok(Pushed::Exists);
        }
        if response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS {
            return Err(self.refuse(response).await);
        }
        // Anything else will show again below, with a reason: answers to HEAD have none.
        drop(response);
        let Some((session, at)) = self.open_session(endpoint, repository, digest, from).await? else {
            return Ok(Pushed::Mounted);
        };
        let response =
            self.upload_whole(endpoint, &at, &with_digest(&session, digest), &call, upload).await?;
        match response.status() {
            status if status.is_success() => Ok(Pushed::Sent),
            // Some want pieces, or have a proxy before them that lets no long body pass.
            StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::LENGTH_REQUIRED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::NOT_IMPLEMENTED => {
                let Some((session, at)) = self.open_session(endpoint, repository, digest, None).await? else {
                    return Ok(Pushed::Exists);
                };
                let session = self.upload_pieces(endpoint, &at, session, &call, upload).await?;
                let put = upload_call(&call, Method::PUT, Bytes::new());
                let response = self.upload(endpoint, &at, &with_digest(&session, digest), &put).await?;
                if response.status().is_success() {
                    Ok(Pushed::Sent)
                } else {
                    Err(self.refuse(response).await)
                }
            }
            _ => Err(self.refuse(response).await),
        }
    }

    /// Begins an upload: where to send the bytes, and the URL that said so; `None` when the blob was mounted.
    async fn open_session(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        digest: &Digest,
        from: Option<&Repository>,
    ) -> Result<Option<(Url, Url)>, Failure> {
        let mut call = blob_call(Method::POST, repository, digest);
        "blobs/uploads/".clone_into(&mut call.path);
        call.pool = Pool::Upload;
        // Without this some registries wait for a body.
        call.body = Some(Bytes::new());
        call.scope = Scope::Push;
        if let Some(from) = from {
            call.query =
                vec![("mount".to_owned(), digest.to_string()), ("from".to_owned(), from.name.clone())];
            call.scope = Scope::Mount { from: from.name.clone() };
        }
        let url = self.url(endpoint, &call).await?;
        // Where nobody lets us read the other repository, the token service may refuse altogether: then it is uploaded.
        let refused = match self.exchange(endpoint, &url, &call).await {
            Ok(response) => match response.status() {
                StatusCode::CREATED if from.is_some() => return Ok(None),
                StatusCode::ACCEPTED => return Ok(Some((session_url(endpoint, &url, &response)?, url))),
                status if status.is_client_error() && from.is_some() => None,
                _ => Some(self.refuse(response).await),
            },
            Err(failure) if failure.kind == ErrorKind::Unauthorized && from.is_some() => None,
            Err(failure) => Some(failure),
        };
        match refused {
            Some(failure) => Err(failure),
            None => Box::pin(self.open_session(endpoint, repository, digest, None)).await,
        }
    }

    /// Sends all of the blob in one request.
    async fn upload_whole(
        &self,
        endpoint: &Endpoint,
        at: &Url,
        session: &Url,
        call: &Call<'_>,
        upload: &Upload<'_>,
    ) -> Result<Response, Failure> {
        let content = match &upload.from {
            Source::Memory(bytes) => {
                return self
                    .upload(endpoint, at, session, &upload_call(call, Method::PUT, bytes.clone()))
                    .await;
            }
            Source::Content(content) => *content,
        };
        // Opening the session has just shown that the grant is good: the body can't be sent a second time to find out.
        let grant = if session.origin() == at.origin() {
            self.ready_grant(endpoint, call.repository, &call.scope).await?.map(|(grant, _)| grant)
        } else {
            None
        };
        let failed = Failed::default();
        let body = Watched::open(content, &failed).await?.into_body();
        let mut request = reqwest::Request::new(Method::PUT, session.clone());
        *request.headers_mut() = upload_call(call, Method::PUT, Bytes::new()).headers;
        request.headers_mut().insert(header::CONTENT_LENGTH, upload.len.into());
        if let Some(grant) = &grant {
            request.headers_mut().insert(header::AUTHORIZATION, grant.header.clone());
        }
        *request.body_mut() = Some(body);
        let sent = self.transport.send(Pool::Upload, request).await;
        if let Some(failure) = failed.take() {
            return Err(failure);
        }
        let mut response = sent?;
        if let Some(grant) = grant {
            self.check_grant(endpoint, call, &response, &grant)?;
            response.extensions_mut().insert(grant);
        }
        Ok(response)
    }

    /// A grant that was refused for a body is dropped, and the upload is begun anew with another.
    fn check_grant(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        response: &Response,
        grant: &Grant,
    ) -> Result<(), Failure> {
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(());
        }
        self.drop_grant(endpoint, call.repository, &call.scope, grant);
        Err(Failure {
            kind: ErrorKind::Unauthorized,
            message: format!("wanted other credentials while the blob was sent (sent {})", grant.who),
            retry: Retry::Once,
        })
    }

    /// Sends the blob piece by piece; yields where the session is closed.
    async fn upload_pieces(
        &self,
        endpoint: &Endpoint,
        at: &Url,
        mut session: Url,
        call: &Call<'_>,
        upload: &Upload<'_>,
    ) -> Result<Url, Failure> {
        let failed = Failed::default();
        let mut pieces = match &upload.from {
            Source::Memory(bytes) => Pieces::Memory(bytes.clone()),
            Source::Content(content) => Pieces::Content(Watched::open(*content, &failed).await?),
        };
        let (mut start, mut held) = (0u64, BytesMut::new());
        loop {
            let piece = match pieces.next().await {
                Ok(piece) => piece,
                Err(error) => {
                    return Err(failed.take().unwrap_or_else(|| Failure::passing(error.to_string())));
                }
            };
            let last = piece.is_empty();
            held.extend_from_slice(&piece);
            while held.len() >= UPLOAD_CHUNK || (last && !held.is_empty()) {
                let chunk = held.split_to(held.len().min(UPLOAD_CHUNK)).freeze();
                let end = start + u64::try_from(chunk.len()).unwrap_or(0);
                let mut patch = upload_call(call, Method::PATCH, chunk);
                let range = HeaderValue::from_str(&format!("{start}-{}", end - 1));
                patch
                    .headers
                    .insert(header::CONTENT_RANGE, range.map_err(|_| Failure::passing("has no range"))?);
                let response = self.upload(endpoint, at, &session, &patch).await?;
                if !response.status().is_success() {
                    return Err(self.refuse(response).await);
                }
                session = session_url(endpoint, &session, &response)?;
                start = end;
            }
            if last {
                return Ok(session);
            }
        }
    }

    /// Sends a part of an upload; with credentials only to the server that was asked for the session.
    async fn upload(
        &self,
        endpoint: &Endpoint,
        at: &Url,
        session: &Url,
        call: &Call<'_>,
    ) -> Result<Response, Failure> {
        if session.origin() == at.origin() {
            self.exchange(endpoint, session, call).await
        } else {
            self.send(session, call, None).await
        }
    }
}

fn upload_call<'a>(call: &Call<'a>, method: Method, body: Bytes) -> Call<'a> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Call {
        repository: call.repository,
        what: call.what.clone(),
        method,
        path: String::new(),
        query: Vec::new(),
        raw_query: None,
        headers,
        body: Some(body),
        scope: Scope::Push,
        pool: Pool::Upload,
    }
}

/// Where an upload goes on. Registries behind a proxy that ends TLS often write `http://` and their own name.
fn session_url(endpoint: &Endpoint, at: &Url, response: &Response) -> Result<Url, Failure> {
    let mut url = location(at, response)?;
    let own_host = url.host_str() == endpoint.root().host_str();
    if own_host && at.scheme() == "https" && url.scheme() == "http" && url.port().is_none() {
        // Both are special schemes, between which a change is always allowed.
        let _ = url.set_scheme("https");
        let _ = url.set_port(at.port());
    }
    Ok(url)
}

fn with_digest(session: &Url, digest: &Digest) -> Url {
    let mut url = session.clone();
    url.query_pairs_mut().append_pair("digest", digest.as_str());
    url
}
