//! `/metrics`, `/healthz`, `/layers` and `/filesystem` of a running daemon.

use super::daemon::{Place, get};
use spandrel_proto::containerd::services::snapshots::v1 as api;

#[tokio::test]
async fn operators_see_what_it_does() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let socket = place.admin_socket();
    assert_eq!(get(&socket, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(&socket, "/layers").await, (200, "[]\n".to_owned()));
    assert_eq!(get(&socket, "/nothing").await.0, 404);
    place.client().await.cleanup(api::CleanupRequest::default()).await.expect("cleaned");
    let (status, metrics) = get(&socket, "/metrics").await;
    assert_eq!(status, 200);
    let line = r#"spandrel_snapshot_operations_total{operation="Cleanup",code="OK"} 1"#;
    assert!(metrics.lines().any(|have| have == line), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
}

#[tokio::test]
async fn operators_see_as_what_layers_are_mounted_and_why() {
    let Some(mut place) = Place::new() else { return };
    for (configured, want, reason, why) in [
        (None, "erofs", "probe", "the kernel mounts layer tables"),
        (Some("erofs"), "erofs", "probe", "the kernel mounts layer tables"),
        (Some("fuse"), "fuse", "configured", "the configuration asks for it"),
    ] {
        place.filesystem = configured;
        let _daemon = place.start();
        let (status, text) = get(&place.admin_socket(), "/filesystem").await;
        let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((status, said["filesystem"].as_str(), said["why"].as_str()), (200, Some(want), Some(why)));
        assert_eq!(said["configured"], configured.unwrap_or("auto"));
        let (_, metrics) = get(&place.admin_socket(), "/metrics").await;
        let line = format!(r#"spandrel_filesystem{{filesystem="{want}",reason="{reason}"}} 1"#);
        assert!(metrics.lines().any(|have| have == line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn a_tcp_address_serves_too() {
    let Some(place) = Place::new() else { return };
    let mut command = place.command();
    let config = place.dir.path().join("config.toml");
    std::fs::write(&config, "[metrics]\naddress = \"127.0.0.1:0\"\n").expect("written");
    let ready = spandrel_fixtures::process::Ready::Line("serving snapshots".to_owned());
    let daemon = spandrel_fixtures::process::Process::start("daemon", &mut command, &ready);
    let line = daemon.line("serving metrics").expect("the address is said");
    let (_, address) = line.split_once("127.0.0.1:").expect("an address");
    let port: String = address.chars().take_while(char::is_ascii_digit).collect();
    let mut stream = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("connected");
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(b"POST /healthz HTTP/1.0\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.0 405"), "{answer}");
}
