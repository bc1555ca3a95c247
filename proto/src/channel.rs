//! A gRPC channel over a unix socket.

use std::io;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// The socket could not be connected.
#[derive(Debug)]
pub struct ConnectError {
    /// Path of the socket, as it was asked for.
    pub path: PathBuf,
    /// What connecting said.
    pub source: tonic::transport::Error,
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot connect to {}", self.path.display())?;
        // The cause (no such file, refused) is two levels down in tonic's error.
        let mut source = std::error::Error::source(&self.source);
        while let Some(inner) = source {
            write!(f, ": {inner}")?;
            source = inner.source();
        }
        Ok(())
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Connects to the gRPC server that listens on the unix socket `path`.
///
/// # Errors
/// When the socket isn't there or refuses.
pub async fn connect(path: &Path) -> Result<Channel, ConnectError> {
    let socket = path.to_path_buf();
    // The authority is what grpc-go sends on unix sockets; the address itself is never resolved.
    Endpoint::from_static("http://localhost")
        .connect_with_connector(service_fn(move |_| {
            let socket = socket.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        }))
        .await
        .map_err(|source| ConnectError { path: path.to_path_buf(), source })
}
