//! Remote snapshots: who waits for a layer and who doesn't, and what becomes of it.

use super::fake::Fate;
use super::*;
use crate::service::{Kind, Usage};

fn pending(bed: &Bed, key: &str) -> bool {
    bed.snapshots.store.get(key).expect("a record").remote.expect("a remote one").pending
}

fn filling(layer: &str) -> Bed {
    let bed = Bed::new();
    bed.layers.decide(layer, Fate::Filling);
    bed
}

async fn at_once<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(AT_ONCE, what).await.expect("it doesn't wait for the layer")
}

#[tokio::test]
async fn only_stat_waits_for_a_layer() {
    let bed = filling("one");
    let offered = at_once(bed.offer("k8s.io/1/extract", "", "one")).await;
    assert_eq!(offered, Err(Error::AlreadyExists("target snapshot chain-one".into())));
    assert_eq!(at_once(bed.names()).await, ["chain-one"]);
    assert_eq!(at_once(bed.snapshots.usage("chain-one".into())).await, Ok(Usage { size: 4096, inodes: 3 }));
    at_once(bed.offer("k8s.io/2/extract", "chain-one", "two")).await.expect_err("the next layer is offered");
    assert_eq!(bed.layers.state().waits.len(), 0);

    let stat = bed.snapshots.stat("chain-one".into());
    let fill = async {
        bed.layers.until(|state| state.waiting == 1).await;
        assert!(pending(&bed, "chain-one"));
        bed.layers.decide("one", Fate::Ready);
    };
    let (info, ()) = tokio::join!(stat, fill);
    let info = info.expect("ready");
    assert_eq!((info.kind, info.parent.as_str()), (Kind::Committed, ""));
    assert_eq!(info.labels["containerd.io/snapshot.ref"], "chain-one");
    assert_eq!(info.labels["containerd.io/snapshot/remote"], "remote snapshot");
    assert!(!pending(&bed, "chain-one"));
    at_once(bed.snapshots.stat("chain-one".into())).await.expect("known");
    assert_eq!(bed.layers.state().waits["one"], 1);
}

#[tokio::test]
async fn a_failed_fill_fails_the_pull_and_the_next_one_tries_again() {
    let bed = Bed::new();
    bed.layers.decide("one", Fate::Fails("the registry says 503"));
    bed.offer("k8s.io/1/extract", "", "one").await.expect_err("AlreadyExists");
    for _ in 0..2 {
        let Err(Error::Unavailable(text)) = bed.snapshots.stat("chain-one".into()).await else {
            panic!("no error")
        };
        assert!(text.contains("chain-one") && text.contains("the registry says 503"), "{text}");
        assert!(pending(&bed, "chain-one"));
    }
    bed.offer("k8s.io/9/extract", "", "one").await.expect_err("AlreadyExists again");
    bed.layers.decide("one", Fate::Ready);
    bed.snapshots.stat("chain-one".into()).await.expect("filled");
    assert_eq!(bed.layers.state().waits["one"], 3);
    assert_eq!(bed.names().await, ["chain-one"]);
}

#[tokio::test]
async fn a_full_disk_is_called_so() {
    let bed = Bed::new();
    bed.layers.decide("one", Fate::Full);
    bed.offer("k8s.io/1/extract", "", "one").await.expect_err("AlreadyExists");
    assert_eq!(class(&bed.snapshots.stat("chain-one".into()).await), "no-space");
}

#[tokio::test]
async fn a_cancelled_stat_stops_waiting_and_changes_nothing() {
    let bed = filling("one");
    bed.offer("k8s.io/1/extract", "", "one").await.expect_err("AlreadyExists");
    let snapshots = Arc::clone(&bed.snapshots);
    let stat = tokio::spawn(async move { snapshots.stat("chain-one".into()).await });
    bed.layers.until(|state| state.waiting == 1).await;
    stat.abort();
    bed.layers.until(|state| state.waiting == 0).await;
    assert!(pending(&bed, "chain-one"));
}

#[tokio::test]
async fn a_daemon_that_stops_answers_those_who_wait() {
    let bed = filling("one");
    bed.offer("k8s.io/1/extract", "", "one").await.expect_err("AlreadyExists");
    let snapshots = Arc::clone(&bed.snapshots);
    let stat = tokio::spawn(async move { snapshots.stat("chain-one".into()).await });
    bed.layers.until(|state| state.waiting == 1).await;
    bed.snapshots.stop();
    assert_eq!(class(&at_once(stat).await.expect("no panic")), "unavailable");
    bed.layers.decide("one", Fate::Ready);
    assert_eq!(class(&bed.prepare("container", "chain-one").await), "unavailable");
    assert_eq!(bed.layers.state().mounts, 0);
}

#[tokio::test]
async fn a_cancelled_prepare_leaves_nothing() {
    let bed = Bed::new();
    bed.layers.decide("one", Fate::Hangs);
    let (snapshots, labels) = (Arc::clone(&bed.snapshots), image_labels("one"));
    let prepare = tokio::spawn(async move { snapshots.prepare("k".into(), String::new(), labels).await });
    bed.layers.until(|state| state.prepared.len() == 1).await;
    prepare.abort();
    prepare.await.expect_err("aborted");
    assert_eq!(bed.names().await, [""; 0]);
    bed.layers.decide("one", Fate::Ready);
    bed.remote("one", "").await;
}

#[tokio::test]
async fn a_layer_that_gets_no_snapshot_is_given_up() {
    let bed = Bed::new();
    let tmp = bed.dir.path().join("tmp");
    std::fs::remove_dir(&tmp).expect("removed");
    let failed = bed.offer("k", "", "one").await;
    assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
    bed.settle().await;
    assert_eq!(bed.layers.state().removed, ["one"]);
    std::fs::create_dir(&tmp).expect("mkdir");
    bed.remote("one", "").await;
    bed.settle().await;
    assert_eq!(bed.layers.state().removed, ["one"], "this one has a snapshot");
}

#[tokio::test]
async fn a_mount_goes_on_when_its_call_is_cancelled_and_removal_waits_for_it() {
    let bed = Bed::new();
    bed.layers.decide("one", Fate::MountHangs);
    bed.offer("k8s.io/1/extract", "", "one").await.expect_err("AlreadyExists");
    let snapshots = Arc::clone(&bed.snapshots);
    let stat = tokio::spawn(async move { snapshots.stat("chain-one".into()).await });
    bed.layers.until(|state| state.mounting == 1).await;
    stat.abort();
    stat.await.expect_err("aborted");
    bed.snapshots.remove("chain-one".into()).await.expect("removed");
    bed.layers.decide("one", Fate::Ready);
    at_once(bed.layers.until(|state| state.mounts == 1)).await;
    bed.settle().await;
    assert_eq!(bed.layers.state().mounted.len(), 0);
    assert_eq!(bed.snapshots.lowers.mounted(), [0; 0]);
    assert_eq!(std::fs::read_dir(bed.dir.path().join("snapshots")).expect("directory").count(), 0);
}

#[tokio::test]
async fn removal_neither_waits_nor_leaves_anything() {
    let bed = filling("one");
    bed.offer("k8s.io/1/extract", "", "one").await.expect_err("AlreadyExists");
    let snapshots = Arc::clone(&bed.snapshots);
    let stat = tokio::spawn(async move { snapshots.stat("chain-one".into()).await });
    bed.layers.until(|state| state.waiting == 1).await;
    at_once(bed.snapshots.remove("chain-one".into())).await.expect("removed");
    bed.layers.until(|state| state.removed == ["one"]).await;
    // What was under way finds out when it is ready, and takes its mount away again.
    bed.layers.decide("one", Fate::Ready);
    let stat = stat.await.expect("no panic");
    assert!(matches!(stat, Err(Error::NotFound(_) | Error::Unavailable(_))), "{stat:?}");
    bed.settle().await;
    assert_eq!(bed.layers.state().mounted.len(), 0);
    assert_eq!(std::fs::read_dir(bed.dir.path().join("snapshots")).expect("directory").count(), 0);
}

#[tokio::test]
async fn a_layer_goes_with_the_last_snapshot_that_uses_it() {
    let bed = Bed::new();
    bed.remote("base", "").await;
    bed.remote("same", "").await;
    // The same blob on another parent: another chain ID, the same layer.
    let mut labels = image_labels("same");
    labels.insert("containerd.io/snapshot.ref".into(), "chain-other".into());
    bed.snapshots.prepare("k".into(), "chain-base".into(), labels).await.expect_err("AlreadyExists");
    let usage = async |name: &str| bed.snapshots.usage(name.to_owned()).await.expect("known").size;
    assert_eq!((usage("chain-same").await, usage("chain-other").await), (4096, 0), "it is on the disk once");
    bed.snapshots.remove("chain-same".into()).await.expect("removed");
    bed.settle().await;
    assert_eq!(usage("chain-other").await, 4096);
    assert_eq!(bed.layers.state().removed, [""; 0]);
    bed.snapshots.remove("chain-other".into()).await.expect("removed");
    bed.settle().await;
    assert_eq!(bed.layers.state().removed, ["same"]);
}

#[tokio::test]
async fn two_namespaces_share_a_snapshot() {
    let bed = Bed::new();
    bed.remote("one", "").await;
    let again = bed.offer("default/7/extract", "", "one").await;
    assert_eq!(again, Err(Error::AlreadyExists("target snapshot chain-one".into())));
    assert_eq!(bed.names().await, ["chain-one"]);
    let state = bed.layers.state();
    // The second was answered from the records.
    assert_eq!(state.prepared.len(), 1);
    assert_eq!(state.prepared[0].namespace, "k8s.io");
}

#[tokio::test]
async fn both_namespaces_may_ask_at_the_same_time() {
    let bed = Bed::new();
    let answers =
        tokio::join!(bed.offer("k8s.io/1/extract", "", "one"), bed.offer("default/2/extract", "", "one"));
    assert_eq!((class(&answers.0), class(&answers.1)), ("already-exists", "already-exists"));
    assert_eq!(bed.names().await, ["chain-one"]);
    bed.settle().await;
    assert_eq!(bed.layers.state().removed, [""; 0]);
}

#[tokio::test]
async fn a_name_taken_on_another_parent_gets_the_parent_behind_it() {
    let bed = Bed::new();
    bed.remote("base", "").await;
    bed.remote("top", "chain-base").await;
    // Another namespace has unpacked the base itself, as a snapshot of its own.
    bed.prepare("default/1/x", "").await.expect("prepared");
    bed.snapshots
        .commit("default/2/chain-base".into(), "default/1/x".into(), HashMap::new())
        .await
        .expect("committed");
    for _ in 0..2 {
        let answer = bed.offer("default/3/extract", "default/2/chain-base", "top").await;
        let want = "target snapshot chain-top on default/2/chain-base";
        assert_eq!(answer, Err(Error::AlreadyExists(want.into())));
    }
    let asked = r#"labels."containerd.io/snapshot.ref"==chain-top,parent=="default/2/chain-base""#;
    assert_eq!(bed.list(&[asked]).await.len(), 1);
}

#[tokio::test]
async fn what_cant_be_remote_is_left_to_containerd() {
    let bed = Bed::new();
    bed.layers.decide("encrypted", Fate::Ordinary("media-type"));
    bed.layers.decide("away", Fate::Refused(Error::Unavailable("no route".into())));
    for (layer, reason) in [("encrypted", "media-type"), ("away", "unavailable")] {
        bed.offer(layer, "", layer).await.expect("mounts");
        let counted = format!(r#"spandrel_fallbacks_total{{reason="{reason}"}} 1"#);
        assert!(bed.metrics.encode().contains(&counted), "{counted}");
        assert_eq!(bed.snapshots.stat(layer.into()).await.expect("found").kind, Kind::Active);
    }
    let mut labels = image_labels("one");
    labels.remove("containerd.io/snapshot/cri.layer-digest");
    bed.snapshots.prepare("unlabelled".into(), String::new(), labels).await.expect("mounts");
    assert!(bed.metrics.encode().contains(r#"spandrel_fallbacks_total{reason="no-image-labels"} 1"#));
    assert_eq!(bed.layers.state().prepared.len(), 2);
}

#[tokio::test]
async fn what_containerd_would_run_into_too_is_an_error() {
    let bed = Bed::new();
    for error in [Error::NoSpace("full".into()), Error::FailedPrecondition("marked".into())] {
        bed.layers.decide("one", Fate::Refused(error.clone()));
        assert_eq!(bed.offer("k", "", "one").await, Err(error));
        assert_eq!(bed.names().await, [""; 0]);
    }
    // No parent, no network.
    let missing = bed.offer("k", "nowhere", "two").await;
    assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");
    assert_eq!(bed.layers.state().prepared.len(), 2);
}

#[tokio::test]
async fn a_container_doesnt_wait_long_for_a_layer_that_is_being_filled() {
    let bed = filling("one");
    bed.offer("k8s.io/1/extract", "", "one").await.expect_err("AlreadyExists");
    let Err(Error::Unavailable(text)) = bed.prepare("container", "chain-one").await else {
        panic!("no error")
    };
    assert!(text.contains("still being filled"), "{text}");
    bed.layers.decide("one", Fate::Ready);
    bed.prepare("container", "chain-one").await.expect("started");
    assert!(!pending(&bed, "chain-one"));
}

#[tokio::test]
async fn a_layer_whose_state_was_lost_is_asked_for_again() {
    let bed = Bed::new();
    bed.remote("one", "").await;
    bed.layers.decide("one", Fate::Lost);
    assert_eq!(bed.snapshots.usage("chain-one".into()).await, Ok(Usage::default()));
    bed.prepare("container", "chain-one").await.expect("started");
    let state = bed.layers.state();
    let requests: Vec<_> =
        state.prepared.iter().map(|request| (&request.namespace, &request.chain_id)).collect();
    assert_eq!(requests[0], requests[1]);
    let given = image_labels("one");
    assert!(given.iter().all(|(name, value)| state.prepared[1].labels.get(name) == Some(value)));
}

/// What the snapshots' tables are, as of the last mount of each; none for those mounted by their layer's own.
fn tables(bed: &Bed) -> Vec<Option<String>> {
    bed.layers.state().by_table.values().cloned().collect()
}

fn own(tables: &[&str]) -> Vec<Option<String>> {
    tables.iter().map(|table| (!table.is_empty()).then(|| (*table).to_owned())).collect()
}

/// Three layers of which the middle and the uppermost lack entries for directories.
async fn dependent() -> Bed {
    let bed = Bed::new();
    bed.layers.state().dependent.extend(["two".to_owned(), "three".to_owned()]);
    bed.remote("one", "").await;
    bed.remote("two", "chain-one").await;
    bed.remote("three", "chain-two").await;
    bed
}

#[tokio::test]
async fn a_layer_that_depends_on_those_below_gets_a_table_of_its_snapshot() {
    let bed = dependent().await;
    let mut want = own(&["", "two above one", "three above two one"]);
    assert_eq!(tables(&bed), want);
    // The same layer above another looks different.
    bed.remote("four", "").await;
    bed.offer("k", "chain-four", "two").await.expect_err("it is there at once");
    bed.snapshots.stat("chain-two on chain-four".into()).await.expect("ready");
    // At the bottom there is nothing to depend on.
    bed.layers.state().dependent.insert("five".to_owned());
    bed.remote("five", "").await;
    want.extend(own(&["", "two above four", ""]));
    assert_eq!(tables(&bed), want);
    let written = bed.layers.state().tables_written;
    assert_eq!(written, 3);
}

#[tokio::test]
async fn a_snapshots_table_is_written_once_and_goes_with_it() {
    let bed = dependent().await.restart().await;
    bed.layers.state().by_table.clear();
    bed.prepare("container", "chain-three").await.expect("prepared");
    assert_eq!(tables(&bed), own(&["", "two above one", "three above two one"]), "after a restart, too");
    let written = bed.layers.state().tables_written;
    assert_eq!(written, 2);
    let table = bed.dir.path().join("snapshots/3/table-three");
    assert!(table.exists());
    for key in ["container", "chain-three"] {
        bed.snapshots.remove(key.into()).await.expect("removed");
    }
    bed.settle().await;
    assert!(!table.exists());
}

#[tokio::test]
async fn what_is_below_is_settled_before_it_is_looked_into() {
    let bed = Bed::new();
    bed.layers.state().dependent.extend(["two".to_owned(), "three".to_owned()]);
    for (layer, parent) in [("one", ""), ("two", "chain-one"), ("three", "chain-two")] {
        bed.offer(layer, parent, layer).await.expect_err("it is there at once");
    }
    // containerd asks from the bottom; whoever doesn't gets the same.
    bed.snapshots.stat("chain-three".into()).await.expect("ready");
    assert_eq!(tables(&bed), own(&["", "two above one", "three above two one"]));
    assert!(!pending(&bed, "chain-two"));
}
