//! Real mounts of tables and overlays, in a folder that goes with the test.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use spandrel_erofs::{OpaqueXattr, Options};
use spandrel_fixtures::require;

use crate::model::Tree;
use crate::tarball::tar;

/// A folder for tables, streams and mounts; the mounts go before it.
pub struct Place {
    mounts: Vec<PathBuf>,
    dir: tempfile::TempDir,
}

/// A place, or `None` (said aloud) where nothing can be mounted.
pub fn place() -> Option<Place> {
    if !require::root() || !require::erofs() {
        return None;
    }
    Some(Place { mounts: Vec::new(), dir: require::plain_disk()? })
}

impl Drop for Place {
    fn drop(&mut self) {
        for mount in self.mounts.drain(..).rev() {
            let done = unmount(&mount, UnmountFlags::NOFOLLOW);
            // A second panic would hide the first.
            assert!(done.is_ok() || std::thread::panicking(), "unmount {}: {done:?}", mount.display());
        }
    }
}

pub fn options(device_len: u64) -> Options {
    Options { device_len, opaque: OpaqueXattr::Trusted }
}

impl Place {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new directory.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("create a directory");
        path
    }

    /// Mounts the table of `tree` over its tar; the tar is `NAME.tar`.
    pub fn mount_tar(&mut self, name: &str, tree: &mut Tree) -> PathBuf {
        self.mount_tar_as(name, tree, OpaqueXattr::Trusted)
    }

    pub fn mount_tar_as(&mut self, name: &str, tree: &mut Tree, opaque: OpaqueXattr) -> PathBuf {
        let stream = tar(tree);
        let device = self.path(&format!("{name}.tar"));
        fs::write(&device, &stream).expect("write the tar");
        let options = Options { device_len: stream.len() as u64, opaque };
        let table = spandrel_erofs::write(tree, &options).expect("a table");
        self.mount_table(name, &table, &device)
    }

    /// Mounts a table over `device`.
    pub fn mount_table(&mut self, name: &str, table: &[u8], device: &Path) -> PathBuf {
        let path = self.path(&format!("{name}.erofs"));
        fs::write(&path, table).expect("write the table");
        let target = self.folder(name);
        self.mount("erofs", &target, &[("source", &text(&path)), ("device", &text(device))], &["ro"])
            .expect("mount the table");
        target
    }

    /// Takes a mount away.
    pub fn unmount(&mut self, target: &Path) {
        unmount(target, UnmountFlags::NOFOLLOW).expect("unmount");
        self.mounts.retain(|mount| mount != target);
    }

    /// Mounts an overlay that can be written to, or mounts it again. The first of `lowers` is the uppermost.
    pub fn mount_overlay(&mut self, name: &str, lowers: &[&Path], flags: &[&str]) -> PathBuf {
        let [target, upper, work] = ["", ".upper", ".work"].map(|end| self.path(&format!("{name}{end}")));
        for folder in [&target, &upper, &work] {
            fs::create_dir_all(folder).expect("create a directory");
        }
        let lowers: Vec<String> = lowers.iter().map(|path| text(path)).collect();
        let settings = [
            ("source", "overlay".to_owned()),
            ("lowerdir", lowers.join(":")),
            ("upperdir", text(&upper)),
            ("workdir", text(&work)),
        ];
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        self.mount("overlay", &target, &settings, flags).expect("mount the overlay");
        target
    }

    fn mount(
        &mut self,
        fs: &str,
        target: &Path,
        settings: &[(&str, &str)],
        flags: &[&str],
    ) -> Result<(), String> {
        let failed = |step: &str, error: Errno| format!("{fs}: {step}: {error}");
        let context = fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| failed("fsopen", e))?;
        let said = |step: &str, error: Errno| {
            let mut text = failed(step, error);
            let mut line = [0; 1024];
            while let Ok(len @ 1..) = rustix::io::read(&context, &mut line) {
                text.push_str(&String::from_utf8_lossy(&line[..len]));
            }
            text
        };
        for (key, value) in settings {
            fsconfig_set_string(&context, *key, *value).map_err(|e| said(key, e))?;
        }
        for flag in flags {
            fsconfig_set_flag(&context, *flag).map_err(|e| said(flag, e))?;
        }
        fsconfig_create(&context).map_err(|e| said("create", e))?;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .map_err(|e| said("fsmount", e))?;
        move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|e| said("move_mount", e))?;
        self.mounts.push(target.to_owned());
        Ok(())
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("our own paths are text").to_owned()
}
