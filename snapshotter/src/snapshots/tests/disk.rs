//! A disk that fails or is full.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;

use rustix::mount::UnmountFlags;
use spandrel_fixtures::require;

use super::*;

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

/// A small ext4 of its own, unmounted at the end.
struct Disk(TempDir);

impl Disk {
    fn new() -> Option<Self> {
        if !require::root() {
            return None;
        }
        let (mkfs, mount) = (require::program("mkfs.ext4")?, require::program("mount")?);
        let dir = tempfile::tempdir().expect("tempdir");
        let image = dir.path().join("image");
        File::create(&image).and_then(|file| file.set_len(DISK_LEN)).expect("an image");
        fs::create_dir(dir.path().join("disk")).expect("mkdir");
        let run = |command: &mut Command| {
            let output = command.output().expect("it runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        run(Command::new(mkfs).args(["-q", "-F", "-m", "0"]).arg(&image));
        run(Command::new(mount).args(["-o", "loop"]).arg(&image).arg(dir.path().join("disk")));
        Some(Self(dir))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = File::create(self.path().join("filler")).expect("a file");
        for len in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1; len]).and_then(|()| file.sync_data()).is_ok() {}
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn on_a_full_disk_snapshots_can_be_removed_and_the_daemon_starts() {
    let Some(disk) = Disk::new() else { return };
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
