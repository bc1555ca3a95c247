//! The ten calls over gRPC, with the codes that containerd branches on.

use std::collections::HashMap;

use spandrel_proto::containerd::services::snapshots::v1 as api;
use spandrel_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use tonic::Code;
use tonic::transport::Channel;

use super::daemon::{Place, get};

fn code<T>(result: Result<T, tonic::Status>) -> Code {
    result.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn commit(client: &mut SnapshotsClient<Channel>, name: &str, key: &str) -> Code {
    let request = api::CommitSnapshotRequest { name: name.into(), key: key.into(), ..Default::default() };
    code(client.commit(request).await)
}

async fn prepare(client: &mut SnapshotsClient<Channel>, key: &str, parent: &str) -> Code {
    let request =
        api::PrepareSnapshotRequest { key: key.into(), parent: parent.into(), ..Default::default() };
    code(client.prepare(request).await)
}

#[tokio::test]
async fn every_call_answers_with_containerds_codes() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let mut client = place.client().await;
    let client = &mut client;
    assert_eq!(prepare(client, "a", "").await, Code::Ok);
    assert_eq!(prepare(client, "a", "").await, Code::AlreadyExists);
    assert_eq!(prepare(client, "b", "missing").await, Code::NotFound);
    assert_eq!(prepare(client, "b", "a").await, Code::InvalidArgument);
    assert_eq!(prepare(client, "", "").await, Code::InvalidArgument);
    assert_eq!(commit(client, "base", "missing").await, Code::NotFound);
    assert_eq!(commit(client, "base", "a").await, Code::Ok);
    assert_eq!(prepare(client, "b", "base").await, Code::Ok);
    assert_eq!(commit(client, "base", "b").await, Code::AlreadyExists);
    let rebase = api::CommitSnapshotRequest {
        name: "x".into(),
        key: "b".into(),
        parent: "base".into(),
        ..Default::default()
    };
    assert_eq!(code(client.commit(rebase).await), Code::Unimplemented);
    let mounts = |key: &str| api::MountsRequest { key: key.into(), ..Default::default() };
    assert_eq!(code(client.mounts(mounts("base")).await), Code::FailedPrecondition);
    let found = client.mounts(mounts("b")).await.expect("mounts").into_inner().mounts;
    assert_eq!((found.len(), found[0].r#type.as_str(), found[0].source.as_str()), (1, "overlay", "overlay"));
    let view = api::ViewSnapshotRequest { key: "v".into(), parent: "base".into(), ..Default::default() };
    let found = client.view(view).await.expect("a view").into_inner().mounts;
    assert_eq!(
        (found[0].r#type.as_str(), found[0].options.clone()),
        ("bind", vec!["ro".into(), "rbind".into()])
    );
    let usage = api::UsageRequest { key: "base".into(), ..Default::default() };
    let usage = client.usage(usage).await.expect("usage").into_inner();
    assert_eq!(usage.inodes, 1);
    let update = api::UpdateSnapshotRequest {
        info: Some(api::Info {
            name: "base".into(),
            labels: HashMap::from([("x".into(), "1".into())]),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["labels.x".into()] }),
        ..Default::default()
    };
    let updated = client.update(update).await.expect("updated").into_inner().info.expect("info");
    assert_eq!((updated.kind(), updated.labels["x"].as_str()), (api::Kind::Committed, "1"));
    assert_ne!(updated.updated_at, updated.created_at);
    let remove = |key: &str| api::RemoveSnapshotRequest { key: key.into(), ..Default::default() };
    assert_eq!(code(client.remove(remove("base")).await), Code::FailedPrecondition);
    for key in ["b", "v", "base"] {
        assert_eq!(code(client.remove(remove(key)).await), Code::Ok, "{key}");
    }
    assert_eq!(code(client.remove(remove("base")).await), Code::NotFound);
    let stat = api::StatSnapshotRequest { key: "base".into(), ..Default::default() };
    assert_eq!(code(client.stat(stat).await), Code::NotFound);
    assert_eq!(code(client.cleanup(api::CleanupRequest::default()).await), Code::Ok);
    let wrong = api::ListSnapshotsRequest { filters: vec!["kind=x".into()], ..Default::default() };
    assert_eq!(code(client.list(wrong).await), Code::InvalidArgument);
}

#[tokio::test]
async fn a_long_list_comes_in_several_messages() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let mut client = place.client().await;
    for number in 0..205 {
        assert_eq!(prepare(&mut client, &format!("key-{number:03}"), "").await, Code::Ok);
    }
    let filters = vec!["name~=^key-".to_owned()];
    let request = api::ListSnapshotsRequest { filters, ..Default::default() };
    let mut stream = client.list(request).await.expect("a list").into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.expect("a message") {
        messages.push(message.info);
    }
    assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 5]);
    let names: Vec<String> = messages.into_iter().flatten().map(|info| info.name).collect();
    assert!(names.is_sorted(), "{names:?}");
}

#[tokio::test]
async fn without_image_labels_a_layer_is_left_to_containerd() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let request = api::PrepareSnapshotRequest {
        key: "default/1/extract".into(),
        labels: HashMap::from([("containerd.io/snapshot.ref".into(), "sha256:chain".into())]),
        ..Default::default()
    };
    let mounts = place.client().await.prepare(request).await.expect("mounts").into_inner().mounts;
    assert_eq!(mounts[0].r#type, "bind");
    let (_, metrics) = get(&place.admin_socket(), "/metrics").await;
    assert!(metrics.contains(r#"spandrel_fallbacks_total{reason="no-image-labels"} 1"#), "{metrics}");
}

#[tokio::test]
async fn an_image_whose_registry_is_away_is_left_to_containerd() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let digest = format!("sha256:{}", "a".repeat(64));
    let port = spandrel_fixtures::process::free_port();
    let labels = [
        ("containerd.io/snapshot.ref", digest.clone()),
        ("containerd.io/snapshot/cri.image-ref", format!("127.0.0.1:{port}/app:1")),
        ("containerd.io/snapshot/cri.manifest-digest", digest.clone()),
        ("containerd.io/snapshot/cri.layer-digest", digest.clone()),
        ("containerd.io/snapshot/cri.image-layers", digest),
    ];
    let request = api::PrepareSnapshotRequest {
        key: "default/1/extract".into(),
        labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        ..Default::default()
    };
    let mounts = place.client().await.prepare(request).await.expect("mounts").into_inner().mounts;
    assert_eq!(mounts[0].r#type, "bind");
}
