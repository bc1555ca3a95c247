//! What a restart finds, and does.

use super::fake::Fate;
use super::*;

#[tokio::test]
async fn a_mount_that_was_thrown_away_with_its_directory_goes_at_the_next_start() {
    if !spandrel_fixtures::require::root() {
        return;
    }
    let bed = Bed::with(Fake::mounting(), |_| {});
    let lost = bed.dir.path().join("trash/7");
    std::fs::create_dir_all(lost.join("fs")).expect("mkdir");
    let layer = LayerKey("lost".into());
    crate::layer::Layers::mount(&*bed.layers, &layer, None, &lost.join("fs")).await.expect("mounted");
    let bed = bed.restart().await;
    bed.settle().await;
    assert!(!super::super::dirs::is_mount_point(&lost.join("fs")) && !lost.exists());
    drop(bed);
}
use crate::layer::LayerKey;

#[tokio::test]
async fn everything_is_there_again() {
    let bed = Bed::new();
    bed.remote("one", "").await;
    bed.remote("two", "chain-one").await;
    bed.prepare("container", "chain-two").await.expect("prepared");
    let before = bed.list(&[]).await;
    let mounts = bed.snapshots.mounts("container".into()).await.expect("mounts");
    let bed = bed.restart().await;
    assert_eq!(bed.list(&[]).await, before);
    assert_eq!(bed.snapshots.mounts("container".into()).await, Ok(mounts));
    assert_eq!(bed.layers.state().restored, [LayerKey("one".into()), LayerKey("two".into())]);
    // Nobody was asked anything.
    assert_eq!(bed.layers.state().prepared.len(), 2);
}

#[tokio::test]
async fn what_was_pending_is_filled_by_the_next_stat() {
    let bed = Bed::new();
    bed.layers.decide("one", Fate::Filling);
    bed.offer("k8s.io/1/extract", "", "one").await.expect_err("AlreadyExists");
    let bed = bed.restart().await;
    assert_eq!(bed.layers.state().restored, [LayerKey("one".into())]);
    assert_eq!(bed.layers.state().waits.len(), 0, "starting waits for nothing");
    bed.layers.decide("one", Fate::Ready);
    bed.snapshots.stat("chain-one".into()).await.expect("filled");
}

#[tokio::test]
async fn directories_without_a_record_go() {
    let bed = Bed::new();
    bed.prepare("a", "").await.expect("prepared");
    for name in ["snapshots/77/fs", "snapshots/strange", "tmp/5/fs", "trash/9.1/fs"] {
        std::fs::create_dir_all(bed.dir.path().join(name)).expect("mkdir");
    }
    let bed = bed.restart().await;
    let names = |dir: &str| -> Vec<String> {
        let entries = std::fs::read_dir(bed.dir.path().join(dir)).expect("directory");
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("name")).collect()
    };
    assert_eq!((names("snapshots"), names("tmp"), names("trash")), (vec!["1".to_owned()], vec![], vec![]));
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let bed = Bed::new();
    let second = Snapshots::open(&options(bed.dir.path()), Arc::clone(&bed.layers) as _, Metrics::new());
    let Err(Error::FailedPrecondition(text)) = second.map(|_| ()) else { panic!("it was let in") };
    assert!(text.contains("running already"), "{text}");
}

#[tokio::test]
async fn cleaning_up_while_snapshots_are_made_takes_none_of_them() {
    let bed = Bed::new();
    let make = async {
        for number in 0..30 {
            bed.prepare(&format!("key-{number}"), "").await.expect("prepared");
        }
    };
    let clean = async {
        for _ in 0..10 {
            bed.snapshots.clear().await.expect("cleaned");
        }
    };
    tokio::join!(make, clean);
    assert_eq!(std::fs::read_dir(bed.dir.path().join("snapshots")).expect("directory").count(), 30);
}

#[tokio::test]
async fn containers_on_layers_are_counted() {
    let bed = Bed::new();
    bed.remote("one", "").await;
    bed.prepare("plain", "").await.expect("prepared");
    for key in ["first", "second"] {
        bed.prepare(key, "chain-one").await.expect("prepared");
    }
    bed.snapshots.view("view".into(), "chain-one".into(), HashMap::new()).await.expect("a view");
    assert_eq!(bed.snapshots.lazy_containers(), Ok(2));
}
