//! Tests of what is kept of images on the disk.

use super::*;
use crate::image::testing::MemoryImage;

fn hex(bytes: &[u8]) -> String {
    Digest::sha256(bytes).hex().to_owned()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

async fn keep(kept: &Arc<Kept>, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    kept.put(&digest, &Bytes::copy_from_slice(bytes));
    kept.written().await;
    digest
}

/// `number` as the content of a block.
fn block(number: u8) -> Vec<u8> {
    vec![number; 4096]
}

#[tokio::test]
async fn it_is_there_after_a_restart_under_its_digest_and_length() {
    let dir = tempfile::tempdir().expect("a directory");
    let digest = {
        let kept = Kept::open(dir.path(), 1 << 20).expect("opens");
        let digest = keep(&kept, b"a zTOC").await;
        keep(&kept, b"a zTOC").await;
        digest
    };
    assert_eq!(names(dir.path()), [hex(b"a zTOC")]);
    let kept = Kept::open(dir.path(), 1 << 20).expect("opens");
    assert_eq!(kept.get(&digest, None).await.as_deref(), Some(&b"a zTOC"[..]));
    assert_eq!(kept.get(&digest, Some(6)).await.as_deref(), Some(&b"a zTOC"[..]));
    assert_eq!(kept.get(&digest, Some(7)).await, None, "the registry is to say that it is shorter");
    assert_eq!(kept.get(&Digest::sha256(b"another"), None).await, None);
}

#[tokio::test]
async fn damage_is_never_handed_out_and_goes() {
    type Damage = fn(&Path);
    let damages: [Damage; 4] = [
        |file| fs::write(file, b"A zTOC").expect("written"),
        |file| fs::write(file, b"a zTO").expect("written"),
        |file| fs::write(file, vec![0; 1 << 20]).expect("written"),
        |file| fs::remove_file(file).expect("removed"),
    ];
    for damage in damages {
        let dir = tempfile::tempdir().expect("a directory");
        let kept = Kept::open(dir.path(), 1 << 20).expect("opens");
        let digest = keep(&kept, b"a zTOC").await;
        damage(&dir.path().join(digest.hex()));
        assert_eq!(kept.get(&digest, Some(6)).await, None);
        assert!(names(dir.path()).is_empty());
        keep(&kept, b"a zTOC").await;
        assert!(kept.get(&digest, Some(6)).await.is_some(), "it can be kept again");
    }
}

#[tokio::test]
async fn what_was_used_longest_ago_goes_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let room = 8 * BLOCK;
    let kept = Kept::open(dir.path(), room).expect("opens");
    let mut digests = Vec::new();
    for number in 0..8 {
        digests.push(keep(&kept, &block(number)).await);
    }
    assert!(kept.get(&digests[0], None).await.is_some());
    keep(&kept, &block(8)).await;
    assert_eq!(names(dir.path()).len(), 8);
    assert_eq!(kept.get(&digests[1], None).await, None);
    assert!(kept.get(&digests[0], None).await.is_some());
    // A short one takes a block, too.
    keep(&kept, b"short").await;
    assert_eq!(names(dir.path()).len(), 8);
    assert_eq!(kept.get(&digests[2], None).await, None);
    // One that would drive out many isn't kept.
    keep(&kept, &vec![1; 4097]).await;
    assert!(!names(dir.path()).contains(&hex(&vec![1; 4097])));

    // The order outlasts a restart, and so does the limit, were it lowered.
    for (position, digest) in digests.iter().enumerate().skip(3) {
        let file = File::open(dir.path().join(digest.hex())).expect("is there");
        let age = std::time::Duration::from_secs(1000 - position as u64);
        file.set_modified(SystemTime::now() - age).expect("set");
    }
    let kept = Kept::open(dir.path(), 7 * BLOCK).expect("opens");
    assert_eq!(names(dir.path()).len(), 7);
    assert_eq!(kept.get(&digests[3], None).await, None);
    assert!(kept.get(&digests[4], None).await.is_some());
}

#[tokio::test]
async fn what_is_none_of_its_files_goes_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in [format!("{}.7.new", hex(b"half")), "notes".to_owned()] {
        fs::write(dir.path().join(name), b"half").expect("written");
    }
    Kept::open(dir.path(), 1 << 20).expect("opens");
    assert!(names(dir.path()).is_empty());
    // A file where the directory should be is an error that names it.
    let file = dir.path().join("file");
    fs::write(&file, b"").expect("written");
    let error = Kept::open(&file, 1).expect_err("refused").to_string();
    assert!(error.contains("file"), "{error}");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_costs_nothing_but_the_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let gone = dir.path().join("ztocs");
    let kept = Kept::open(&gone, 1 << 20).expect("opens");
    fs::remove_dir(&gone).expect("removed");
    let image = MemoryImage::new(Vec::new(), Version::V2);
    let source = KeptSource::new(Arc::clone(&image) as _, Arc::clone(&kept));
    for asked in 1..3 {
        source.manifest(image.manifest.as_str()).await.expect("from the registry");
        kept.written().await;
        assert_eq!(image.asked().len(), asked);
    }
}

#[tokio::test]
async fn what_a_registry_lists_or_refuses_is_not_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let kept = Kept::open(dir.path(), 1 << 20).expect("opens");
    let image = MemoryImage::new(Vec::new(), Version::V2);
    let source = KeptSource::new(Arc::clone(&image) as _, Arc::clone(&kept));
    for asked in 1..3 {
        source.referrers(&image.manifest, Version::V1).await.expect("an empty list");
        source.blob(&Digest::sha256(b"gone"), 4).await.expect_err("gone");
        assert_eq!(image.asked().len(), 2 * asked);
    }
    kept.written().await;
    assert!(names(dir.path()).is_empty());
    let manifest = source.manifest(image.manifest.as_str()).await.expect("there");
    kept.written().await;
    let again = source.manifest(image.manifest.as_str()).await.expect("kept");
    assert_eq!((again.bytes, again.digest), (manifest.bytes, manifest.digest));
    assert_eq!(again.media_type, media_type::OCI_MANIFEST);
    assert_eq!(image.asked().len(), 5);
}
