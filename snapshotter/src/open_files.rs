//! Files that are many and of which few are read at a time: each is opened when it is used, and those used last stay open, so that
//! the daemon's descriptors don't grow with its layers.
//!
//! A file is opened by its path again and again, and must be the same each time: whoever deletes it, or puts another in its
//! place, calls [`LazyFile::hold`] before.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Files that stay open, unless there is reason for fewer. A container's start reads some dozen layers, of three files each; to
/// open one again takes some microseconds, so that more would save little. A stream's that is read has two descriptors
/// ([`OpenFile::direct`]): with what else is open they are below the 1,024 that a process has without asking.
pub(crate) const OPEN_FILES: usize = 256;

/// Takes as many descriptors as this process may have: 1,024 are usual, which connections and files together may exceed for a
/// moment, and whoever allows more means it. That it can't be had changes nothing.
pub(crate) fn raise_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// A file that is open, and where it was asked for a second time, past the page cache.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    direct: OnceLock<Option<File>>,
}

impl OpenFile {
    fn new(file: File) -> Self {
        Self { file, direct: OnceLock::new() }
    }

    /// The same file for reads past the page cache; `None` where its file system can't.
    pub(crate) fn direct(&self) -> Option<&File> {
        let open = || {
            let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
            // Not by its path: another file may lie there by now.
            let same = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            OpenOptions::new().read(true).custom_flags(flags).open(same).ok()
        };
        self.direct.get_or_init(open).as_ref()
    }
}

impl Deref for OpenFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

/// The files that are open.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    limit: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// By the number of the [`LazyFile`], with the moment of its last use.
    files: HashMap<u64, (Arc<OpenFile>, u64)>,
    by_use: BTreeMap<u64, u64>,
    /// Counts uses, and so tells moments apart.
    uses: u64,
    last_id: u64,
}

impl Open {
    /// The file of `id`, used now.
    fn touch(&mut self, id: u64) -> Option<Arc<OpenFile>> {
        let (file, used) = self.files.get_mut(&id)?;
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, id);
        Some(Arc::clone(file))
    }

    fn remove(&mut self, id: u64) -> Option<Arc<OpenFile>> {
        let (file, used) = self.files.remove(&id)?;
        self.by_use.remove(&used);
        Some(file)
    }
}

impl OpenFiles {
    /// At most `limit` files stay open.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // No code panics while holding it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `file` open, and closes what was used longest ago for it.
    fn keep(&self, id: u64, file: &Arc<OpenFile>) {
        let closed = {
            let mut open = self.open();
            open.uses += 1;
            let now = open.uses;
            open.files.insert(id, (Arc::clone(file), now));
            open.by_use.insert(now, id);
            let beyond = open.files.len() > self.limit;
            let oldest = open.by_use.first_key_value().map(|(_, id)| *id).filter(|_| beyond);
            oldest.and_then(|id| open.remove(id))
        };
        // Closed here, if nobody reads it: that may take the disk's time, which no lock is held for.
        drop(closed);
    }

    /// How many are open.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.open().files.len()
    }
}

/// A file that is opened when it is used.
#[derive(Debug)]
pub(crate) struct LazyFile {
    /// Its directory, which it shares with others, and its name there.
    dir: Arc<Path>,
    name: &'static str,
    id: u64,
    files: Option<Arc<OpenFiles>>,
    /// What is used from now on, whatever is at its path; nothing where it could not be opened when that was decided.
    held: OnceLock<Option<Arc<OpenFile>>>,
    /// Held while it is opened, so that nothing is opened behind the back of [`LazyFile::hold`].
    opening: Mutex<()>,
}

impl LazyFile {
    /// The file `name` in `dir`, which is read and written.
    pub(crate) fn new(dir: &Arc<Path>, name: &'static str, files: &Arc<OpenFiles>) -> Self {
        let id = {
            let mut open = files.open();
            open.last_id += 1;
            open.last_id
        };
        let (dir, files) = (Arc::clone(dir), Some(Arc::clone(files)));
        Self { dir, name, id, files, held: OnceLock::new(), opening: Mutex::default() }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(self.name)
    }

    /// The file.
    ///
    /// # Errors
    /// When it can't be opened, or was deleted.
    pub(crate) fn get(&self) -> io::Result<Arc<OpenFile>> {
        if let Some(found) = self.kept() {
            return found;
        }
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = self.kept() {
            return found;
        }
        let file = self.open()?;
        if let Some(files) = &self.files {
            files.keep(self.id, &file);
        }
        Ok(file)
    }

    /// The file as it is open already.
    fn kept(&self) -> Option<io::Result<Arc<OpenFile>>> {
        match self.held.get() {
            Some(Some(file)) => Some(Ok(Arc::clone(file))),
            Some(None) => Some(Err(io::Error::new(io::ErrorKind::NotFound, "it was deleted meanwhile"))),
            None => self.files.as_ref()?.open().touch(self.id).map(Ok),
        }
    }

    fn open(&self) -> io::Result<Arc<OpenFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path())?;
        Ok(Arc::new(OpenFile::new(file)))
    }

    /// From now on it is this file, whatever becomes of its path: it stays open as long as somebody has it.
    pub(crate) fn hold(&self) {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.kept().unwrap_or_else(|| self.open()).ok();
        self.held.get_or_init(|| found);
        // It is no part of those that are counted any more.
        let counted = self.files.as_ref().and_then(|files| files.open().remove(self.id));
        drop(counted);
    }
}

impl From<File> for LazyFile {
    /// One that stays open.
    fn from(file: File) -> Self {
        let held = OnceLock::from(Some(Arc::new(OpenFile::new(file))));
        Self { dir: Path::new("").into(), name: "", id: 0, files: None, held, opening: Mutex::default() }
    }
}

impl Drop for LazyFile {
    fn drop(&mut self) {
        let closed = self.files.as_ref().and_then(|files| files.open().remove(self.id));
        drop(closed);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    /// A directory with files that have their own names in them.
    fn files(names: &[&'static str]) -> (tempfile::TempDir, Arc<Path>) {
        let dir = tempfile::tempdir().expect("a directory");
        names.iter().for_each(|name| std::fs::write(dir.path().join(name), name).expect("written"));
        let path = dir.path().into();
        (dir, path)
    }

    fn first(file: &LazyFile) -> io::Result<u8> {
        let mut byte = [0];
        file.get()?.read_exact_at(&mut byte, 0).map(|()| byte[0])
    }

    #[test]
    fn the_files_used_last_stay_open() {
        let (_dir, path) = files(&["a", "b", "c"]);
        let open = OpenFiles::new(2);
        let [a, b, c] = ["a", "b", "c"].map(|name| LazyFile::new(&path, name, &open));
        assert_eq!(open.count(), 0, "nothing was read yet");
        let first_a = a.get().expect("opens");
        b.get().expect("opens");
        assert!(Arc::ptr_eq(&first_a, &a.get().expect("is open")));
        c.get().expect("opens");
        assert_eq!(open.count(), 2);
        assert!(Arc::ptr_eq(&first_a, &a.get().expect("is open")), "b was used longest ago");
        assert_eq!([&a, &b, &c].map(|file| first(file).expect("reads")), *b"abc");
        drop((a, b, c));
        assert_eq!(open.count(), 0, "nobody can use them any more");
    }

    #[test]
    fn a_held_file_is_the_same_whatever_is_put_in_its_place() {
        let (_dir, path) = files(&["a", "b", "c"]);
        let open = OpenFiles::new(1);
        let [a, b, c] = ["a", "b", "c"].map(|name| LazyFile::new(&path, name, &open));
        a.hold();
        std::fs::remove_file(path.join("b")).expect("deleted");
        b.hold();
        for name in ["a", "b", "c"] {
            std::fs::write(path.join("new"), "x").expect("written");
            std::fs::rename(path.join("new"), path.join(name)).expect("renamed");
        }
        assert_eq!(first(&a).expect("reads"), b'a');
        assert_eq!(first(&b).expect_err("it was gone").kind(), io::ErrorKind::NotFound);
        assert_eq!(first(&c).expect("reads"), b'x', "it was not held");
        c.get().expect("another is closed for it");
        assert_eq!(first(&a).expect("reads"), b'a');
    }

    #[test]
    fn many_threads_read_each_what_it_asked_for() {
        const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        let (_dir, path) = files(&NAMES);
        let open = OpenFiles::new(3);
        let all = NAMES.map(|name| LazyFile::new(&path, name, &open));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let all = &all;
                scope.spawn(move || {
                    for step in 0..600 {
                        let at = (step * (thread + 1) + thread) % NAMES.len();
                        assert_eq!(first(&all[at]).expect("reads"), NAMES[at].as_bytes()[0]);
                    }
                });
            }
        });
        assert!(open.count() <= 3);
    }
}
