//! What refers to a manifest: the referrers API, and the tag that stands in for it where a registry lacks it.
//!
//! Source: OCI distribution specification 1.1, "Listing Referrers" and "Referrers Tag Schema". The tag's index is kept by
//! its writers: two at once can undo each other, and no registry offers a lock. A writer therefore says what it read
//! (`If-Match`, for registries that heed it), and reads again afterwards.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::task::JoinSet;

use crate::auth::Scope;
use crate::client::{bare_type, manifest_call};
use crate::endpoint::Servers;
use crate::failure::Failure;
use crate::inner::{Answer, Call};
use crate::limits::{MAX_INDEX_TRIES, MAX_MANIFEST_LEN, MAX_REFERRER_PAGES, MAX_REFERRERS, MAX_UNTYPED};
use crate::manifest::{Annotations, Descriptor, Index};
use crate::transport::{Pool, lock};
use crate::{Client, Digest, Error, ErrorKind, Repository, link, media_type};

/// Answers by which registries say that they don't know the referrers API (404 by the specification; others were seen).
const LACKING: [StatusCode; 4] = [
    StatusCode::NOT_FOUND,
    StatusCode::BAD_REQUEST,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::NOT_IMPLEMENTED,
];

impl Client {
    /// What refers to `subject`, with the given artifact type (config media type for old ones): referrers API, else
    /// the fallback tag. An empty type means all. Both are asked for at once where it isn't known that the host has the
    /// API: neither waits for the other.
    ///
    /// # Errors
    /// All kinds; nothing that refers is no error but an empty list.
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, Error> {
        let (mut found, filtered) = self.api_and_tag(repository, subject, artifact_type).await?;
        if !filtered && !artifact_type.is_empty() {
            self.learn_types(repository, &mut found).await?;
            found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(artifact_type));
        }
        Ok(found)
    }

    /// What the API says, else the tag; and whether all of it was filtered by the registry.
    async fn api_and_tag(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<(Vec<Descriptor>, bool), Error> {
        let with_api = lock(&self.inner.with_referrers).contains(&repository.host);
        let mut api = pin!(self.referrers_api(repository, subject, artifact_type));
        let mut tag = pin!(self.fallback_index(repository, subject));
        let mut of_tag = None;
        let of_api = loop {
            tokio::select! {
                biased;
                answer = &mut api => break answer?,
                answer = &mut tag, if !with_api && of_tag.is_none() => of_tag = Some(answer),
            }
        };
        if let Some(found) = of_api {
            lock(&self.inner.with_referrers).insert(repository.host.clone());
            return Ok(found);
        }
        lock(&self.inner.with_referrers).remove(&repository.host);
        let of_tag = match of_tag {
            Some(answer) => answer,
            None => tag.await,
        };
        Ok((of_tag?.map_or(Vec::new(), |(index, _)| index.manifests), false))
    }

    /// The API's answer, and whether all of it was filtered by the registry; `None` where it lacks the API.
    async fn referrers_api(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Option<(Vec<Descriptor>, bool)>, Error> {
        let what = format!("GET referrers of {subject} of {repository}");
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(media_type::OCI_INDEX));
        let mut call = Call {
            repository,
            what: what.clone(),
            method: Method::GET,
            path: format!("referrers/{subject}"),
            query: Vec::new(),
            raw_query: None,
            headers,
            body: None,
            scope: Scope::Pull,
            pool: Pool::Api,
        };
        if !artifact_type.is_empty() {
            call.query.push(("artifactType".to_owned(), artifact_type.to_owned()));
        }
        let mut found = Vec::new();
        let mut all_filtered = true;
        let mut servers = Servers::All;
        for page in 0..MAX_REFERRER_PAGES {
            let accept: &[StatusCode] = if page == 0 { &LACKING } else { &[] };
            let answer = self.inner.fetch(&call, accept, MAX_MANIFEST_LEN, servers, &|_| Ok(())).await?;
            let typed = answer.header("content-type").map(bare_type);
            if page == 0 && (!answer.status.is_success() || typed.as_deref() != Some(media_type::OCI_INDEX)) {
                return Ok(None);
            }
            let index = parse_index(&answer.bytes, &what)?;
            all_filtered &= answer
                .header("oci-filters-applied")
                .is_some_and(|applied| applied.split(',').any(|filter| filter.trim() == "artifactType"));
            found.extend(index.manifests);
            if found.len() > MAX_REFERRERS {
                let message = format!("it has more than {MAX_REFERRERS} referrers");
                return Err(Error { kind: ErrorKind::Corrupt, what, message });
            }
            match next_query(&answer) {
                // The mark of a place in a list means something to the server that gave it, and to no other.
                Some(query) => (call.raw_query, servers) = (Some(query), Servers::Only(answer.endpoint)),
                None => return Ok(Some((found, all_filtered))),
            }
        }
        let message = format!("its referrers have more than {MAX_REFERRER_PAGES} pages");
        Err(Error { kind: ErrorKind::Corrupt, what, message })
    }

    /// The fallback tag's index and its `ETag`, or `None` where there is none. Asked of the host itself: a mirror may
    /// have an old one.
    async fn fallback_index(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Option<(Index, Option<HeaderValue>)>, Error> {
        let call = manifest_call(Method::GET, repository, &fallback_tag(subject))?;
        let check = |_: &Answer| Ok::<(), Failure>(());
        let answer = self
            .inner
            .fetch(&call, &[StatusCode::NOT_FOUND], MAX_MANIFEST_LEN, Servers::Origin, &check)
            .await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let index = parse_index(&answer.bytes, &call.what)?;
        if index.manifests.len() > MAX_REFERRERS {
            let message = format!("it has more than {MAX_REFERRERS} entries");
            return Err(Error { kind: ErrorKind::Corrupt, what: call.what, message });
        }
        Ok(Some((index, answer.headers.get(header::ETAG).cloned())))
    }

    /// Where a descriptor doesn't say its artifact's type, the manifest does.
    async fn learn_types(&self, repository: &Repository, found: &mut [Descriptor]) -> Result<(), Error> {
        let untyped = found.iter().enumerate().filter(|(_, descriptor)| descriptor.artifact_type.is_none());
        let mut asked = JoinSet::new();
        for (position, descriptor) in untyped.take(MAX_UNTYPED) {
            let (this, repository, digest) = (self.clone(), repository.clone(), descriptor.digest.clone());
            asked.spawn(async move { (position, this.manifest(&repository, digest.as_str()).await) });
        }
        while let Some(done) = asked.join_next().await {
            // Nobody aborts these tasks while this waits for them.
            let (position, got) = done.expect("getting a manifest doesn't panic");
            match got {
                Ok(got) => found[position].artifact_type = artifact_type_of(&got.bytes),
                // An entry whose manifest was deleted refers to nothing any more.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds an entry to the fallback tag's index.
    pub(crate) async fn add_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        descriptor: Descriptor,
    ) -> Result<(), Error> {
        let tag = fallback_tag(subject);
        let what = format!("update of the referrers index {tag} of {repository}");
        let _writer = self.inner.index_writer.lock().await;
        for round in 0..=MAX_INDEX_TRIES {
            let old = self.fallback_index(repository, subject).await?;
            if old
                .as_ref()
                .is_some_and(|(index, _)| index.manifests.iter().any(|d| d.digest == descriptor.digest))
            {
                return Ok(());
            }
            if round > 0 {
                // Somebody else writes it too: not in step with them.
                let wait = Duration::from_millis(50).mul_f64(f64::from(round) * (0.5 + fastrand::f64()));
                self.inner.clock.sleep(wait).await;
            }
            let (mut index, etag) = old.unwrap_or_else(|| (empty_index(), None));
            index.manifests.push(descriptor.clone());
            let bytes = serde_json::to_vec(&index)
                .map_err(|error| Error::invalid(what.clone(), error.to_string()))?;
            let mut condition = HeaderMap::new();
            if let Some(etag) = etag {
                condition.insert(header::IF_MATCH, etag);
            }
            let put =
                self.put_manifest(repository, &tag, media_type::OCI_INDEX, Bytes::from(bytes), condition);
            match put.await {
                Ok(_) => {}
                // 412: it isn't what we read any more.
                Err(error) if error.kind == ErrorKind::Invalid && error.message.contains("412") => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error {
            kind: ErrorKind::Unavailable,
            what,
            message: format!("others wrote it at the same time, {MAX_INDEX_TRIES} times. Push it again"),
        })
    }
}

/// The tag under which a registry without the API keeps a subject's referrers.
fn fallback_tag(subject: &Digest) -> String {
    // At most 32 and 64 characters, so that a SHA-512 digest fits a tag.
    let hex = subject.hex();
    format!("{}-{}", subject.algorithm(), hex.get(..64).unwrap_or(hex))
}

/// What the next page is asked with. Only the query of the link is used: it leads nowhere but to the same list. And the
/// filter stays as we wrote it, since its `+` means a space where a registry forgot to encode it.
fn next_query(answer: &Answer) -> Option<String> {
    let links = answer.headers.get_all(header::LINK).iter();
    let target = links.filter_map(|value| value.to_str().ok()).find_map(link::next)?;
    let next = answer.url.join(target).ok()?;
    let is_filter = |pair: &&str| pair.starts_with("artifactType=");
    let ours = answer.url.query().and_then(|query| query.split('&').find(is_filter));
    let pairs = next.query()?.split('&').map(|pair| ours.filter(|_| is_filter(&pair)).unwrap_or(pair));
    Some(pairs.collect::<Vec<_>>().join("&"))
}

fn parse_index(bytes: &[u8], what: &str) -> Result<Index, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error {
        kind: ErrorKind::Corrupt,
        what: what.to_owned(),
        message: format!("the answer is no index: {error}"),
    })
}

fn empty_index() -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests: Vec::new(),
        subject: None,
        annotations: Annotations::new(),
        extra: serde_json::Map::new(),
    }
}

/// The parts of any manifest that a referrers list is made of.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referring {
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Annotations,
}

fn artifact_type_of(bytes: &[u8]) -> Option<String> {
    let read: Referring = serde_json::from_slice(bytes).ok()?;
    let of_config = read.config.map(|config| config.media_type);
    read.artifact_type.filter(|text| !text.is_empty()).or(of_config)
}

/// The subject of a manifest, and the entry under which the manifest is listed there.
pub(crate) fn of_manifest(media_type: &str, bytes: &[u8], digest: &Digest) -> Option<(Digest, Descriptor)> {
    let read: Referring = serde_json::from_slice(bytes).ok()?;
    let subject = read.subject?.digest;
    let descriptor = Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.clone(),
        size: u64::try_from(bytes.len()).ok()?,
        urls: Vec::new(),
        annotations: read.annotations,
        data: None,
        platform: None,
        artifact_type: artifact_type_of(bytes),
        extra: serde_json::Map::new(),
    };
    Some((subject, descriptor))
}
