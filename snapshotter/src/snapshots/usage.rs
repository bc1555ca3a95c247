//! What a directory tree occupies, as `du` counts it.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::service::Usage;

/// Unit of `st_blocks`, in bytes, on every file system.
const BLOCK: u64 = 512;

/// Blocks and inodes below `root`, itself included; a hard link counts once. What disappears meanwhile doesn't count, other
/// file systems aren't entered.
///
/// # Errors
/// When a directory can't be read.
pub fn disk_usage(root: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let device = fs::symlink_metadata(root)?.dev();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let Some(found) = unless_gone(fs::symlink_metadata(&path))? else { continue };
        if found.dev() != device || (found.nlink() > 1 && !found.is_dir() && !linked.insert(found.ino())) {
            continue;
        }
        usage.size = usage.size.saturating_add(found.blocks().saturating_mul(BLOCK));
        usage.inodes = usage.inodes.saturating_add(1);
        if found.is_dir() {
            let Some(entries) = unless_gone(fs::read_dir(&path))? else { continue };
            for entry in entries {
                todo.push(entry?.path());
            }
        }
    }
    Ok(usage)
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn counts_what_du_counts() {
        let root = tempfile::tempdir().expect("tempdir");
        let path = root.path();
        fs::create_dir_all(path.join("a/b")).expect("mkdir");
        fs::write(path.join("a/big"), vec![1; 300_000]).expect("write");
        fs::hard_link(path.join("a/big"), path.join("a/b/same")).expect("link");
        fs::File::create(path.join("sparse")).expect("create").set_len(1 << 30).expect("set_len");
        std::os::unix::fs::symlink("/etc", path.join("link")).expect("symlink");
        let du = |flag: &str| {
            let output = Command::new("du").args(["-s", flag]).arg(path).output().expect("du");
            let text = String::from_utf8(output.stdout).expect("text");
            text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).expect("number")
        };
        let usage = disk_usage(path).expect("usage");
        assert_eq!((usage.size, usage.inodes), (du("-B1"), du("--inodes")));
    }
}
