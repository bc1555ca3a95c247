//! zTOCs that were built once, kept for the next build of any image that has the layer: by the layer's digest, the span size, and
//! who built them (name and version).
//!
//! A folder with a file for each, which several runs of the tool may use at once. Losing it loses nothing but time: what is
//! missing, or isn't whole, is built again. The ones used last stay when it grows beyond its bound.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use spandrel_registry::Digest;
use spandrel_ztoc::limits::MAX_ZTOC_LEN;

use crate::build::KnownZtocs;

/// Length of the checksum before a zTOC, in bytes: its SHA-256 in hexadecimal digits, as digests are written.
const CHECK_LEN: usize = 64;

/// How files are called that aren't whole yet.
const TEMPORARY: &str = ".tmp-";

/// A cache in a folder.
#[derive(Debug, Clone)]
pub struct ZtocCache {
    dir: PathBuf,
    /// Most bytes that stay in it.
    limit: u64,
    now: fn() -> SystemTime,
}

impl ZtocCache {
    /// The cache in `dir`, which is made when something is first kept, with at most `limit` bytes.
    pub fn new(dir: impl Into<PathBuf>, limit: u64) -> Self {
        Self::with_clock(dir, limit, SystemTime::now)
    }

    /// As [`ZtocCache::new`], with a clock for tests.
    pub fn with_clock(dir: impl Into<PathBuf>, limit: u64, now: fn() -> SystemTime) -> Self {
        Self { dir: dir.into(), limit, now }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, layer: &Digest, span_size: u64, build_tool: &str) -> PathBuf {
        let builder = Digest::sha256(format!("{build_tool}\n{}", env!("CARGO_PKG_VERSION")).as_bytes());
        self.dir.join(format!("{}-{}-{span_size}-{}", layer.algorithm(), layer.hex(), &builder.hex()[..16]))
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        let file = File::open(path)?;
        (&file).take(MAX_ZTOC_LEN + CHECK_LEN as u64 + 1).read_to_end(&mut bytes)?;
        let whole = bytes
            .split_at_checked(CHECK_LEN)
            .is_some_and(|(check, ztoc)| Digest::sha256(ztoc).hex().as_bytes() == check);
        if !whole {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it isn't whole"));
        }
        // It was used last. That this can't be written (a cache on a read-only disk) is no reason not to use it.
        let _ = file.set_modified((self.now)());
        Ok(Bytes::from(bytes).slice(CHECK_LEN..))
    }

    fn write(&self, path: &Path, ztoc: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.dir)?;
        file.write_all(Digest::sha256(ztoc).hex().as_bytes())?;
        file.write_all(ztoc)?;
        file.as_file().set_modified((self.now)())?;
        // Not synced: what a power cut leaves half is found by its checksum.
        file.persist(path).map_err(|error| error.error)?;
        self.bound()
    }

    /// Removes what wasn't used for longest, until the rest is within the bound.
    fn bound(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // Another run may remove what we have just seen.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_file() && !entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                files.push((meta.modified()?, entry.path(), meta.len()));
            }
        }
        files.sort();
        let mut sum: u64 = files.iter().map(|(_, _, len)| len).sum();
        for (_, path, len) in files {
            if sum <= self.limit {
                break;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => sum -= len,
            }
        }
        Ok(())
    }
}

impl KnownZtocs for ZtocCache {
    fn get(&self, layer: &Digest, span_size: u64, build_tool: &str) -> Option<Bytes> {
        let path = self.path(layer, span_size, build_tool);
        match self.read(&path) {
            Ok(ztoc) => Some(ztoc),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "a kept zTOC can't be used, so it is built again");
                }
                None
            }
        }
    }

    fn keep(&self, layer: &Digest, span_size: u64, build_tool: &str, ztoc: &Bytes) {
        let path = self.path(layer, span_size, build_tool);
        if let Err(error) = self.write(&path, ztoc) {
            tracing::warn!(path = %path.display(), %error, "a zTOC can't be kept for the next build");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    fn layer(nth: u8) -> Digest {
        Digest::sha256(&[nth])
    }

    /// A clock that goes on by a second whenever it is looked at.
    fn later() -> SystemTime {
        static SECONDS: AtomicU64 = AtomicU64::new(1_000_000);
        SystemTime::UNIX_EPOCH + Duration::from_secs(SECONDS.fetch_add(1, Ordering::SeqCst))
    }

    #[test]
    fn what_was_kept_is_had_for_the_same_layer_span_size_and_builder() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ZtocCache::new(dir.path().join("new"), 1 << 20);
        assert_eq!(cache.get(&layer(1), 4, "a"), None);
        assert!(!cache.dir().exists());
        cache.keep(&layer(1), 4, "a", &Bytes::from_static(b"ztoc"));
        // By any other run, too.
        let again = ZtocCache::new(cache.dir(), 1 << 20);
        assert_eq!(again.get(&layer(1), 4, "a"), Some(Bytes::from_static(b"ztoc")));
        for (layer, span_size, tool) in [(layer(2), 4, "a"), (layer(1), 5, "a"), (layer(1), 4, "b")] {
            assert_eq!(again.get(&layer, span_size, tool), None);
        }
    }

    #[test]
    fn what_is_not_whole_is_not_used_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ZtocCache::new(dir.path(), 1 << 20);
        let path = cache.path(&layer(1), 4, "a");
        for bad in [&b""[..], b"short", &[b'0'; 100]] {
            fs::write(&path, bad).unwrap();
            assert_eq!(cache.get(&layer(1), 4, "a"), None);
        }
        cache.keep(&layer(1), 4, "a", &Bytes::from_static(b"ztoc"));
        assert!(cache.get(&layer(1), 4, "a").is_some());
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(cache.get(&layer(1), 4, "a"), None);
    }

    #[test]
    fn what_was_used_last_stays() {
        let dir = tempfile::tempdir().unwrap();
        // Room for three of these.
        let ztoc = Bytes::from(vec![7; 1000]);
        let cache = ZtocCache::with_clock(dir.path(), 3 * (1000 + CHECK_LEN as u64), later);
        for nth in 0..3 {
            cache.keep(&layer(nth), 4, "a", &ztoc);
        }
        assert!(cache.get(&layer(0), 4, "a").is_some());
        cache.keep(&layer(3), 4, "a", &ztoc);
        let there: Vec<_> = (0..4).filter(|nth| cache.get(&layer(*nth), 4, "a").is_some()).collect();
        assert_eq!(there, [0, 2, 3]);
        // One that is longer than all of it doesn't stay, and the build that made it goes on.
        cache.keep(&layer(9), 4, "a", &Bytes::from(vec![0; 5000]));
        assert_eq!(cache.get(&layer(9), 4, "a"), None);
    }

    #[test]
    fn a_folder_that_can_t_be_written_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        let cache = ZtocCache::new(dir.path().join("file"), 1 << 20);
        cache.keep(&layer(1), 4, "a", &Bytes::from_static(b"ztoc"));
        assert_eq!(cache.get(&layer(1), 4, "a"), None);
    }
}
