//! What operators look at, over HTTP on a TCP address or a unix socket: `/metrics` (OpenMetrics), `/healthz`, `/layers`
//! and `/filesystem` (JSON). It reads, and changes nothing.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};

use crate::Error;
use crate::config::Listen;
use crate::filesystem::Chosen;
use crate::layer::Layers;
use crate::listen::{self, Socket};
use crate::metrics::Metrics;

/// Connections at a time: a scraper or two and a few people.
const MAX_CONNECTIONS: usize = 64;

/// Longest time that a client may take to send its request, and that it may stay without one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a connection that couldn't be accepted (no descriptor is left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How far the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// It isn't serving yet.
    Starting = 0,
    /// It serves.
    Serving = 1,
    /// It has stopped serving.
    Stopping = 2,
}

/// What is shown.
pub struct Admin {
    metrics: Arc<Metrics>,
    layers: Arc<dyn Layers>,
    chosen: Chosen,
    phase: AtomicU8,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl Admin {
    /// Shows these; the daemon is starting.
    pub fn new(metrics: Arc<Metrics>, layers: Arc<dyn Layers>, chosen: Chosen) -> Arc<Self> {
        Arc::new(Self { metrics, layers, chosen, phase: AtomicU8::new(Phase::Starting as u8) })
    }

    /// From now on the daemon is in `phase`.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Listens on `address` and serves until the runtime ends. The socket's name goes when what is returned is dropped.
    ///
    /// # Errors
    /// When the address can't be had.
    pub async fn serve(self: &Arc<Self>, address: &Listen) -> Result<Option<Socket>, Error> {
        match address {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address)
                    .await
                    .map_err(|error| Error::Internal(format!("metrics.address {address}: {error}")))?;
                tracing::info!(address = ?listener.local_addr().ok(), "serving metrics");
                tokio::spawn(Arc::clone(self).accept(TcpListenerStream::new(listener)));
                Ok(None)
            }
            Listen::Unix(path) => {
                let (listener, socket) = listen::unix(path)?;
                tracing::info!(address = %path.display(), "serving metrics");
                tokio::spawn(Arc::clone(self).accept(UnixListenerStream::new(listener)));
                Ok(Some(socket))
            }
        }
    }

    async fn accept<T>(self: Arc<Self>, mut connections: impl Stream<Item = io::Result<T>> + Unpin)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Some(connection) = connections.next().await {
            let connection = match connection {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "a connection for metrics could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Never closed.
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let this = Arc::clone(&self);
            tokio::spawn(async move {
                let answer = service_fn(|request| {
                    let this = Arc::clone(&this);
                    async move { Ok::<_, Infallible>(this.answer(&request).await) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(connection), answer)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection for metrics broke");
                }
                drop(place);
            });
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned());
        }
        match request.uri().path() {
            "/metrics" => text(StatusCode::OK, OPENMETRICS, self.metrics.encode()),
            "/healthz" => match self.phase.load(Ordering::Relaxed) {
                phase if phase == Phase::Serving as u8 => text(StatusCode::OK, PLAIN, "ok\n".to_owned()),
                phase if phase == Phase::Starting as u8 => {
                    text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "starting\n".to_owned())
                }
                _ => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "stopping\n".to_owned()),
            },
            "/layers" => json(&self.layers.report().await),
            "/filesystem" => json(&self.chosen),
            _ => text(
                StatusCode::NOT_FOUND,
                PLAIN,
                "there are /metrics, /healthz, /layers and /filesystem\n".to_owned(),
            ),
        }
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// As the OpenMetrics specification writes it.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn json(what: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string_pretty(what) {
        Ok(json) => text(StatusCode::OK, JSON, json + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
