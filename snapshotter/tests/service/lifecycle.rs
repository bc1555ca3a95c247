//! Start, stop, kill, and start again.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use spandrel_fixtures::process::{Process, Ready};
use spandrel_proto::containerd::services::snapshots::v1 as api;

use super::daemon::Place;

/// Longest that the daemon may take to end; it takes a fraction of a second.
const END: Duration = Duration::from_secs(30);

fn prepare(key: &str, parent: &str) -> api::PrepareSnapshotRequest {
    api::PrepareSnapshotRequest { key: key.into(), parent: parent.into(), ..Default::default() }
}

async fn names(place: &Place) -> Vec<String> {
    let mut client = place.client().await;
    let mut stream = client.list(api::ListSnapshotsRequest::default()).await.expect("a list").into_inner();
    let mut names = Vec::new();
    while let Some(message) = stream.message().await.expect("a message") {
        names.extend(message.info.into_iter().map(|info| info.name));
    }
    names
}

#[tokio::test]
async fn a_signal_stops_it_and_the_next_start_carries_on() {
    let Some(place) = Place::new() else { return };
    for (signal, before) in
        [(Signal::TERM, vec![]), (Signal::INT, vec!["key-1"]), (Signal::KILL, vec!["key-1", "key-2"])]
    {
        let mut daemon = place.start();
        assert_eq!(names(&place).await, before);
        let key = format!("key-{}", before.len() + 1);
        place.client().await.prepare(prepare(&key, "")).await.expect("prepared");
        daemon.signal(signal);
        let status = daemon.wait(END).expect("it ends");
        assert_eq!(status.success(), signal != Signal::KILL, "{status}");
        assert_eq!(
            place.socket().exists(),
            signal == Signal::KILL,
            "the socket's name goes with a clean end"
        );
    }
    let _daemon = place.start();
    assert_eq!(names(&place).await, ["key-1", "key-2", "key-3"]);
    let mounts = api::MountsRequest { key: "key-3".into(), ..Default::default() };
    let mounts = place.client().await.mounts(mounts).await.expect("mounts").into_inner().mounts;
    assert!(std::path::Path::new(&mounts[0].source).is_dir(), "{mounts:?}");
}

#[tokio::test]
async fn a_call_that_waits_does_not_hold_up_the_end() {
    let Some(place) = Place::new() else { return };
    let mut daemon = place.start();
    // An open connection, and one that sends nothing.
    let _client = place.client().await;
    let _silent = std::os::unix::net::UnixStream::connect(place.socket()).expect("connected");
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(END).expect("it ends").success());
}

#[test]
fn a_second_daemon_is_refused_and_harms_nothing() {
    let Some(place) = Place::new() else { return };
    let mut daemon = place.start();
    let other_socket = place.dir.path().join("run/other.sock");
    let output = place.command().arg("--address").arg(&other_socket).output();
    // The flag is given twice: so the command line is wrong, not the root.
    assert_eq!(output.expect("it runs").status.code(), Some(2));
    let mut second = Command::new(super::daemon::PROGRAM);
    second.arg("--root").arg(place.root()).arg("--address").arg(&other_socket);
    let output = second.output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("another process has it"), "{error}");
    assert!(!other_socket.exists());
    // Another root, the same socket.
    let mut third = Command::new(super::daemon::PROGRAM);
    third.arg("--root").arg(place.dir.path().join("root-3")).arg("--address").arg(place.socket());
    let output = third.output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("another process answers there"), "{error}");
    assert!(daemon.exited().is_none());
    std::os::unix::net::UnixStream::connect(place.socket()).expect("the first one still answers");
}

#[test]
fn the_service_manager_is_told() {
    let Some(place) = Place::new() else { return };
    let path = place.dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("bound");
    manager.set_read_timeout(Some(END)).expect("a timeout");
    let receive = || {
        let mut message = [0; 256];
        let len = manager.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..len]).trim().to_owned()
    };
    let mut daemon = Process::start("daemon", place.command().env("NOTIFY_SOCKET", &path), &Ready::Started);
    assert_eq!(receive(), "READY=1");
    std::os::unix::net::UnixStream::connect(place.socket()).expect("ready means that it answers");
    daemon.signal(Signal::TERM);
    assert_eq!(receive(), "STOPPING=1");
}

#[test]
fn json_logs_are_json() {
    let Some(place) = Place::new() else { return };
    let mut command = place.command();
    let config = place.dir.path().join("config.toml");
    std::fs::write(&config, "[log]\nformat = \"json\"\n[containerd]\naddress = \"\"\n").expect("written");
    let ready = Ready::Line("serving snapshots".to_owned());
    let mut daemon = Process::start("daemon", &mut command, &ready);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(END).expect("it ends").success());
    let log = std::fs::read_to_string(daemon.log()).expect("the log");
    for line in log.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    assert!(log.lines().count() > 3, "{log}");
}

#[test]
fn what_a_killed_daemon_left_mounted_is_taken_away() {
    let Some(mut place) = Place::new() else { return };
    let table = || std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let root = place.root();
    let mounts = || table().lines().filter(|line| line.contains(root.to_str().expect("UTF-8"))).count();
    // Also when the next one has another file system.
    for filesystem in ["erofs", "fuse", "fuse", "erofs"] {
        place.filesystem = Some(filesystem);
        let mut daemon = place.start();
        assert_eq!(mounts(), 1, "what the living one has");
        assert!(std::fs::read_dir(place.fuse_dir()).is_ok(), "{filesystem}: which answers");
        daemon.kill();
        assert_eq!(mounts(), 1, "what the dead one had");
    }
}
