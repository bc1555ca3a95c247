//! What a layer's stream takes on the disk.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{SeekFrom, seek};

use super::image::{
    LARGE, LARGE_FILE, PARTS, SMALL, SMALL_FILES, content, deep, filler_content, small, small_content,
};
use super::node::{Node, PLAIN, read_start, reads_as};
use super::sheet::{Figure, Sheet};
use super::values::{DISK_ALL, DISK_NONE, DISK_SMALL};

/// Most that a file system takes for its own notes of where a file's pieces are, in bytes. It depends on how they came to lie:
/// ext4 notes four in the inode and has a block of 4 KiB for more; XFS likewise.
const NOTES: u64 = 16 << 10;

/// Bytes of `file` that aren't holes.
fn data(file: &File) -> u64 {
    let len = file.metadata().expect("metadata").len();
    let (mut at, mut sum) = (0, 0);
    while at < len {
        // ENXIO: nothing but a hole until the end.
        let Ok(start) = seek(file, SeekFrom::Data(at)) else { break };
        at = seek(file, SeekFrom::Hole(start)).expect("a file has a hole at its end");
        sum += at - start;
    }
    sum
}

/// What is allocated for `file`: as the file system says it, less its own notes.
fn allocated(file: &File, what: &str) -> u64 {
    let blocks = file.metadata().expect("metadata").blocks() * 512;
    let data = data(file);
    let allowed = data..=data + NOTES;
    assert!(allowed.contains(&blocks), "{what}: {data} bytes of data take {blocks}");
    data
}

#[tokio::test(flavor = "multi_thread")]
async fn allocations_of_a_stream() {
    let Some(mut node) = Node::start(&deep(), PLAIN).await else { return };
    let merged = node.start_container().await;
    let stream = node.stream();
    let mut sheet = Sheet::default();
    let mut see = |figure: &Figure| sheet.see(figure, allocated(&stream, figure.what));
    see(&DISK_NONE);
    assert!(read_start(merged.join(small(3, 3)), SMALL).await == small_content(3, 3));
    node.wait_until_written().await;
    see(&DISK_SMALL);
    for part in 0..PARTS {
        for file in 0..SMALL_FILES {
            assert!(read_start(merged.join(small(part, file)), SMALL).await == small_content(part, file));
        }
        assert!(reads_as(merged.join(format!("part-{part}/filler")), filler_content(part)).await);
    }
    assert!(reads_as(merged.join(LARGE_FILE), content(0, LARGE)).await);
    node.wait_until_written().await;
    see(&DISK_ALL);
}
