//! A daemon of its own for each test, in a root of its own. Several test programs include this file.
#![allow(dead_code, reason = "each of them needs a part")]

use std::path::Path;

use spandrel_fixtures::peers::Spandrel;
use spandrel_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use tonic::transport::Channel;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_spandrel-snapshotter");

/// A folder for one daemon.
pub struct Place(Spandrel);

impl Place {
    /// A fresh one; `None` where this machine can't run the daemon.
    pub fn new() -> Option<Self> {
        Spandrel::new(Path::new(PROGRAM)).map(Self)
    }

    /// A client of the running daemon.
    pub async fn client(&self) -> SnapshotsClient<Channel> {
        client(&self.socket()).await
    }
}

impl std::ops::Deref for Place {
    type Target = Spandrel;

    fn deref(&self) -> &Spandrel {
        &self.0
    }
}

impl std::ops::DerefMut for Place {
    fn deref_mut(&mut self) -> &mut Spandrel {
        &mut self.0
    }
}

pub async fn client(socket: &Path) -> SnapshotsClient<Channel> {
    SnapshotsClient::new(spandrel_proto::connect(socket).await.expect("the daemon answers"))
}

/// An HTTP/1.1 GET over a unix socket: status, and body.
pub async fn get(socket: &Path, path: &str) -> (u16, String) {
    use http_body_util::{BodyExt as _, Empty};
    let stream = tokio::net::UnixStream::connect(socket).await.expect("connected");
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP");
    tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header("host", "localhost")
        .body(Empty::<bytes::Bytes>::new())
        .expect("a request");
    let response = sender.send_request(request).await.expect("a response");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
}
