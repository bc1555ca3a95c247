//! A daemon of its own for each test, in a root of its own. Several test programs include this file.
#![allow(dead_code, reason = "each of them needs a part")]

use std::path::{Path, PathBuf};
use std::process::Command;

use spandrel_fixtures::process::{Process, Ready};
use spandrel_fixtures::require;
use spandrel_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use tempfile::TempDir;
use tonic::transport::Channel;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_spandrel-snapshotter");

/// A folder for one daemon.
pub struct Place {
    pub dir: TempDir,
    /// More lines of its configuration, behind `[containerd]`.
    pub config: String,
}

impl Place {
    /// A fresh one; `None` where this machine can't run the daemon.
    pub fn new() -> Option<Self> {
        if !require::root() || !require::fuse() || !require::erofs() {
            return None;
        }
        Some(Self { dir: require::plain_disk()?, config: "address = \"\"\n".to_owned() })
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("run/snapshotter.sock")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.dir.path().join("run/admin.sock")
    }

    /// The command that runs the daemon here.
    pub fn command(&self) -> Command {
        let config = self.dir.path().join("config.toml");
        let text = format!(
            "[metrics]\naddress = {:?}\n[containerd]\n{}",
            self.admin_socket().to_str().expect("UTF-8"),
            self.config
        );
        std::fs::write(&config, text).expect("the configuration is written");
        let mut command = Command::new(PROGRAM);
        command
            .arg("--config")
            .arg(config)
            .arg("--root")
            .arg(self.root())
            .arg("--address")
            .arg(self.socket());
        command
    }

    /// Starts the daemon and waits until it serves.
    pub fn start(&self) -> Process {
        let log = self.dir.path().join("daemon.log");
        // The log of a former daemon says that it was ready.
        std::fs::write(&log, "").expect("an empty log");
        Process::start_logging_to(
            "daemon",
            &mut self.command(),
            &log,
            &Ready::Line("serving snapshots".to_owned()),
        )
    }

    /// A client of the running daemon.
    pub async fn client(&self) -> SnapshotsClient<Channel> {
        client(&self.socket()).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The device stays mounted when a daemon ends. Mounts on mounts come last in the table.
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let points: Vec<&Path> = table
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(Path::new)
            .filter(|point| point.starts_with(self.dir.path()))
            .collect();
        for point in points.iter().rev() {
            let _ = rustix::mount::unmount(*point, rustix::mount::UnmountFlags::DETACH);
        }
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
