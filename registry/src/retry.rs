//! Which server to try next, when, and when to give up: mirrors in order, then the host, then all again after a wait.
//!
//! Only what can be repeated without harm is pursued: GET, HEAD, PUT of a manifest, and a blob's upload as a whole (its
//! content decides its name). The last failure becomes the error, with what was tried and what to do.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::{Endpoint, Servers};
use crate::failure::{Failure, Retry};
use crate::inner::Inner;
use crate::limits::MIN_UPLOAD_RATE;
use crate::{Error, ErrorKind, Repository};

/// The tries of one operation.
pub(crate) struct Pursuit {
    what: String,
    repository: Repository,
    servers: Servers,
    endpoints: Vec<Arc<Endpoint>>,
    at: usize,
    round: u32,
    tries: u32,
    /// On [`crate::Clock::elapsed`]; moved on when the operation makes progress.
    started: Duration,
    deadline: Duration,
    /// What mirrors said, in case the host itself fails too.
    passed_over: Vec<String>,
}

impl Pursuit {
    pub(crate) fn new(
        inner: &Inner,
        what: String,
        repository: &Repository,
        servers: Servers,
    ) -> Result<Self, Error> {
        Ok(Self {
            endpoints: inner.endpoints(repository, &servers)?,
            what,
            repository: repository.clone(),
            servers,
            at: 0,
            round: 0,
            tries: 0,
            started: inner.clock.elapsed(),
            deadline: inner.options.deadline,
            passed_over: Vec::new(),
        })
    }

    /// More time, for a body of this length to go out.
    pub(crate) fn allow(&mut self, body_len: usize) {
        self.deadline += upload_time(body_len);
    }

    /// Whom to ask now.
    pub(crate) fn endpoint(&self) -> Arc<Endpoint> {
        // `at` is only moved while a further endpoint follows, and the host itself is always in the list.
        Arc::clone(&self.endpoints[self.at])
    }

    /// The operation got on: retries and deadline begin anew.
    pub(crate) fn progress(&mut self, inner: &Inner) {
        self.round = 0;
        self.tries = 0;
        self.started = inner.clock.elapsed();
    }

    /// Time that the caller spent elsewhere doesn't count.
    pub(crate) fn pause(&mut self, time: Duration) {
        self.started += time;
    }

    fn left(&self, inner: &Inner) -> Duration {
        (self.started + self.deadline).saturating_sub(inner.clock.elapsed())
    }

    /// Runs one try within what is left of the deadline.
    pub(crate) async fn in_time<T>(
        &self,
        inner: &Inner,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.left(inner), attempt).await {
            Ok(result) => result,
            Err(_) => Err(Failure::passing("no answer before the deadline")),
        }
    }

    /// Runs one try that asks the server, when that has no patience to ask for any more.
    pub(crate) async fn attempt<T>(
        &self,
        inner: &Inner,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let wait = inner.patience(&self.endpoint());
        if wait >= self.left(inner) {
            let seconds = wait.as_secs_f64();
            let message =
                format!("has asked for patience for another {seconds:.1} s, which is past the deadline");
            return Err(Failure::lasting(ErrorKind::RateLimited, message));
        }
        if !wait.is_zero() {
            inner.clock.sleep(wait).await;
        }
        self.in_time(inner, attempt).await
    }

    /// Takes note of a failed try: returns when the next is due, or the error when there is none.
    pub(crate) async fn failed(&mut self, inner: &Inner, failure: Failure) -> Result<(), Error> {
        self.tries += 1;
        let endpoint = self.endpoint();
        tracing::debug!(what = self.what, host = endpoint.name, failure = failure.message, "try failed");
        if let Retry::After(wait) = failure.retry {
            inner.heed(&endpoint, wait);
        }
        if self.at + 1 < self.endpoints.len() {
            // A mirror may lack an image or refuse it without being broken.
            if !matches!(failure.kind, ErrorKind::NotFound | ErrorKind::Unauthorized) {
                inner.rest(&endpoint);
            }
            self.passed_over.push(format!("mirror {}: {}", endpoint.name, failure.message));
            self.at += 1;
            return Ok(());
        }
        let least = match failure.retry {
            Retry::No => return Err(self.error(inner, failure, "")),
            Retry::Once if self.round > 0 => return Err(self.error(inner, failure, "")),
            Retry::Once | Retry::Yes => Duration::ZERO,
            Retry::After(wait) => wait,
        };
        if self.round >= inner.options.max_retries {
            return Err(self.error(inner, failure, ""));
        }
        let wait = self.backoff(inner).max(least);
        if wait >= self.left(inner) {
            let note = format!("; the next try, in {:.1} s, would be past the deadline", wait.as_secs_f64());
            return Err(self.error(inner, failure, &note));
        }
        inner.clock.sleep(wait).await;
        self.round += 1;
        self.at = 0;
        self.passed_over.clear();
        self.endpoints = inner.endpoints(&self.repository, &self.servers)?;
        Ok(())
    }

    /// Doubles from round to round; half of it is jitter, so that many clients don't come back together.
    fn backoff(&self, inner: &Inner) -> Duration {
        let doubled = inner.options.min_backoff.saturating_mul(2u32.saturating_pow(self.round));
        doubled.min(inner.options.max_backoff).mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// The error of this operation with a failure that the caller found.
    pub(crate) fn error(&self, inner: &Inner, failure: Failure, note: &str) -> Error {
        let host = &self.endpoint().name;
        let spent = inner.clock.elapsed().saturating_sub(self.started).as_secs_f64();
        let mut message = format!("{host} {}{note}", failure.message);
        if self.tries > 1 {
            message = format!("{message}; tried {} times in {spent:.1} s", self.tries);
        }
        for passed in &self.passed_over {
            message = format!("{message}; {passed}");
        }
        message = format!("{message}. {}", hint(failure.kind, host));
        Error { kind: failure.kind, what: self.what.clone(), message }
    }
}

/// Time allowed on top of the usual for a body to go out.
pub(crate) fn upload_time(body_len: usize) -> Duration {
    Duration::from_secs(u64::try_from(body_len).unwrap_or(u64::MAX) / MIN_UPLOAD_RATE)
}

/// What the user can do.
fn hint(kind: ErrorKind, host: &str) -> String {
    match kind {
        ErrorKind::NotFound => "Check the name, and whether it was pushed there".to_owned(),
        ErrorKind::Unauthorized => {
            format!("Check the credentials for {host} (docker login {host}) and their permissions")
        }
        ErrorKind::RateLimited => "Try again later, log in for a higher limit, or use a mirror".to_owned(),
        ErrorKind::Unavailable => format!("Check that {host} can be reached from here, or try again later"),
        ErrorKind::Corrupt => {
            "What the registry (or a proxy before it) sent can't be used; push the content again".to_owned()
        }
        ErrorKind::Invalid => "The registry doesn't take this request as it is".to_owned(),
    }
}
