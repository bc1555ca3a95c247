//! A disk that fails or is full.

use std::fs;

use super::*;
use crate::small_disk::SmallDisk;

/// Length of the small disk: its file system, the database with the room kept for it, and little more.
const DISK_LEN: u64 = 24 << 20;

#[tokio::test]
async fn a_database_that_failed_is_opened_again() {
    let bed = Bed::new();
    bed.prepare("a", "").await.expect("prepared");
    bed.snapshots.store.db.break_it();
    bed.prepare("b", "").await.expect("opened again");
    assert_eq!(bed.names().await, ["a", "b"], "nothing is lost");
    // Also while it can't be opened for a time.
    let file = bed.dir.path().join("snapshots.redb");
    let aside = bed.dir.path().join("aside");
    fs::rename(&file, &aside).expect("renamed");
    fs::create_dir(&file).expect("mkdir");
    bed.snapshots.store.db.break_it();
    let refused = bed.snapshots.stat("a".into()).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    fs::remove_dir(&file).expect("rmdir");
    fs::rename(&aside, &file).expect("renamed");
    bed.snapshots.stat("a".into()).await.expect("opened again");
}

#[tokio::test]
async fn on_a_full_disk_snapshots_can_be_removed_and_the_daemon_starts() {
    let Some(disk) = SmallDisk::new(DISK_LEN) else { return };
    let root = disk.path().join("root");
    let open = || {
        let layers = Arc::new(Fake::default());
        Snapshots::open(&options(&root), layers as _, Metrics::new())
    };
    let snapshots = open().expect("opened");
    for number in 0..200 {
        let key = format!("key {number}");
        snapshots.prepare(key, String::new(), HashMap::new()).await.expect("prepared");
    }
    disk.fill();
    drop(snapshots);
    let snapshots = open().expect("opened on a full disk");
    for number in 0..200 {
        snapshots.remove(format!("key {number}")).await.expect("removed");
    }
    snapshots.finish_background(AT_ONCE).await;
    fs::remove_file(disk.path().join("filler")).expect("removed");
    snapshots.prepare("new".into(), String::new(), HashMap::new()).await.expect("prepared");
}
