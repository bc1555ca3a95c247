//! For tests: a small ext4 of its own, to be filled up.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::mount::UnmountFlags;
use spandrel_fixtures::require;
use tempfile::TempDir;

/// A file system in a file, unmounted at the end.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    /// One of `len` bytes; `None` where this machine can't.
    pub(crate) fn new(len: u64) -> Option<Self> {
        if !require::root() {
            return None;
        }
        let (mkfs, mount) = (require::program("mkfs.ext4")?, require::program("mount")?);
        let dir = tempfile::tempdir().expect("tempdir");
        let image = dir.path().join("image");
        File::create(&image).and_then(|file| file.set_len(len)).expect("an image");
        fs::create_dir(dir.path().join("disk")).expect("mkdir");
        let run = |command: &mut Command| {
            let output = command.output().expect("it runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        run(Command::new(mkfs).args(["-q", "-F", "-m", "0", "-b", "4096"]).arg(&image));
        run(Command::new(mount).args(["-o", "loop"]).arg(&image).arg(dir.path().join("disk")));
        Some(Self(dir))
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    /// Fills it to the last block.
    pub(crate) fn fill(&self) {
        self.fill_by("filler");
    }

    /// Fills it to the last block once more, after something has gone.
    pub(crate) fn fill_again(&self) {
        self.fill_by("further filler");
    }

    fn fill_by(&self, name: &str) {
        let mut file = File::create(self.path().join(name)).expect("a file");
        // Blocks of deleted files become free only later: until a round finds no block at all.
        let (large, block) = (vec![1; 1 << 20], vec![1; 4096]);
        let mut write = |bytes: &[u8]| file.write_all(bytes).and_then(|()| file.sync_data()).is_ok();
        loop {
            while write(&large) {}
            if !write(&block) {
                break;
            }
        }
    }

    /// Makes room again.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.path().join("filler")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
    }
}
