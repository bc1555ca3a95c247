//! A folder for tables, tars and mounts; the mounts go before it.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use spandrel_fixtures::require;
use spandrel_snapshotter::device::{Backing, ReadReply};
use spandrel_snapshotter::metrics::Metrics;
use spandrel_snapshotter::tree::{Tree, TreeOptions};
use tempfile::TempDir;

/// By what tables are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By the kernel.
    Erofs,
    /// From the daemon's FUSE tree.
    Fuse,
}

/// A layer's stream: its tar, as a file.
struct Stream(fs::File);

impl Backing for Stream {
    fn read(&self, offset: u64, len: usize, reply: ReadReply) {
        let mut bytes = vec![0; len];
        self.0.read_exact_at(&mut bytes, offset).expect("the tree asks for what is in the stream");
        reply.data(&bytes);
    }
}

/// See above.
#[derive(Debug)]
pub struct Place {
    mounts: Vec<PathBuf>,
    layers: usize,
    /// Dropped before the folder that it is mounted in.
    pub tree: Option<Tree>,
    dir: TempDir,
}

impl Place {
    /// `None` (said aloud) where nothing can be mounted.
    pub fn new() -> Option<Self> {
        if !require::root() || !require::erofs() || !require::fuse() {
            return None;
        }
        Some(Self { mounts: Vec::new(), layers: 0, tree: None, dir: require::plain_disk()? })
    }

    /// Mounts the tree, if that is what tables are to be mounted from.
    pub fn start(&mut self, by: By) {
        if by == By::Fuse {
            let options = TreeOptions { dir: self.path().join("tree"), threads: 2 };
            self.tree = Some(Tree::mount(&options, Metrics::new()).expect("FUSE mounts"));
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A number that no layer has yet.
    pub fn next_number(&mut self) -> usize {
        self.layers += 1;
        self.layers
    }

    /// A new directory.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).expect("create a directory");
        path
    }

    /// Writes a layer's tar and table and mounts them.
    pub async fn table(&mut self, name: &str, tar: &[u8], table: &[u8]) -> PathBuf {
        let (device, source) =
            (self.dir.path().join(format!("{name}.tar")), self.dir.path().join(format!("{name}.erofs")));
        fs::write(&device, tar).expect("write the tar");
        fs::write(&source, table).expect("write the table");
        let Some(tree) = &self.tree else {
            return self.mount(name, "erofs", &[("source", &source), ("device", &device)]);
        };
        let target = self.folder(name);
        let backing = Arc::new(Stream(fs::File::open(device).expect("it was written")));
        let folder = tree.add(name, &target, &source, tar.len() as u64, backing).await.expect("added");
        rustix::mount::mount_bind(&folder, &target).expect("bind-mounted");
        self.mounts.push(target.clone());
        target
    }

    /// Mounts an overlay as containerd does for a view. The first of `lowers` is the uppermost.
    pub fn overlay(&mut self, name: &str, lowers: &[&Path]) -> PathBuf {
        let lowers: Vec<&str> = lowers.iter().map(|path| path.to_str().expect("UTF-8")).collect();
        self.mount(name, "overlay", &[("lowerdir", Path::new(&lowers.join(":")))])
    }

    /// Unmounts at the end what somebody else mounts at `target`.
    pub fn adopt(&mut self, target: &Path) {
        self.mounts.push(target.to_owned());
    }

    fn mount(&mut self, name: &str, fs: &str, settings: &[(&str, &Path)]) -> PathBuf {
        let target = self.folder(name);
        let context = fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC).expect("fsopen");
        for (key, value) in settings {
            fsconfig_set_string(&context, *key, *value).unwrap_or_else(|e| panic!("{fs}: {key}: {e}"));
        }
        fsconfig_create(&context).unwrap_or_else(|e| panic!("{fs}: create: {e}"));
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY);
        let mount = mount.unwrap_or_else(|e| panic!("{fs}: fsmount: {e}"));
        move_mount(&mount, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).expect("move_mount");
        self.mounts.push(target.clone());
        target
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for mount in self.mounts.drain(..).rev() {
            let done = unmount(&mount, UnmountFlags::NOFOLLOW);
            // A second panic would hide the first.
            assert!(done.is_ok() || std::thread::panicking(), "unmount {}: {done:?}", mount.display());
        }
        if let Some(tree) = &self.tree {
            tree.unmount();
        }
    }
}
