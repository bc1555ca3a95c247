//! As what layers are mounted where the kernel can't mount their tables: on a tmpfs, where it never can.

use std::path::{Path, PathBuf};
use std::process::Command;

use spandrel_fixtures::require;
use spandrel_snapshotter::Error;
use spandrel_snapshotter::filesystem::{Choice, Chosen, FileSystem};
use spandrel_snapshotter::metrics::Metrics;
use spandrel_snapshotter::mounter::{Helper, Mounter};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_spandrel-snapshotter");

/// A tmpfs of its own; it goes with all that is mounted on it.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn new() -> Option<Self> {
        if !require::root() || !require::fuse() || !require::erofs() {
            return None;
        }
        let mount = require::program("mount")?;
        let dir = tempfile::tempdir().expect("a directory");
        let mounted = Command::new(mount).args(["-t", "tmpfs", "spandrel-test"]).arg(dir.path()).status();
        assert!(mounted.expect("mount runs").success());
        Some(Self(dir))
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_path_buf()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).ok();
    }
}

async fn start(choice: Choice, root: &Path) -> Result<(FileSystem, Chosen), Error> {
    let mounter = Mounter::new(Helper { program: PROGRAM.into(), args: vec!["mounter".into()] });
    FileSystem::start(choice, root, &Metrics::new(), &mounter, Path::new(PROGRAM)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tables_cannot_be_mounted_the_tree_serves_and_says_why() {
    let Some(tmpfs) = Tmpfs::new() else { return };
    let root = tmpfs.path();
    let (filesystem, chosen) = start(Choice::Auto, &root).await.expect("falls back");
    assert_eq!((chosen.filesystem, chosen.configured), ("fuse", Choice::Auto));
    assert!(chosen.why.contains("this kernel can't mount an EROFS table"), "{}", chosen.why);
    let FileSystem::Fuse(tree) = &filesystem else { panic!("{filesystem:?}") };
    assert!(tree.requests() > 0, "it was tried out");
    filesystem.unmount();
    // Of both trials nothing is left.
    assert!(!root.join("probe").exists());

    let error = start(Choice::Erofs, &root).await.map(|(filesystem, _)| filesystem).expect_err("no start");
    assert!(matches!(&error, Error::FailedPrecondition(what) if what.contains("CONFIG_EROFS_FS")), "{error}");
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let below = format!("{}/", root.display());
    assert!(!table.contains(&below), "nothing stays mounted: {table}");
}
