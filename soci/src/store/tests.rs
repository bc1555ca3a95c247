//! Tests of the tool's store: what is kept, found again and removed, also by several at once.

use std::time::Duration;

use super::*;
use crate::index::{ZTOC, descriptor};

fn image(name: &str) -> String {
    format!("r.example/{name}:1")
}

/// Digest of the manifest that every index here is of.
fn manifest() -> Digest {
    Digest::sha256(b"image")
}

/// An index of zTOCs with these contents.
fn built(ztocs: &[&[u8]]) -> BuiltIndex {
    let entry = |bytes: &&[u8]| LayerZtoc {
        layer: Digest::sha256(&[b"layer ".as_slice(), bytes].concat()),
        layer_media_type: "application/x".to_owned(),
        ztoc: descriptor(ZTOC, Digest::sha256(bytes), bytes.len() as u64),
        span_size: Some(65536),
        disable_xattrs: false,
    };
    let index = IndexManifest {
        version: Version::V1,
        build_tool: "t".to_owned(),
        layers: ztocs.iter().map(entry).collect(),
        prefetch: Vec::new(),
        subject: Some(descriptor("application/m", Digest::sha256(b"image"), 5)),
    };
    let blobs = ztocs.iter().map(|bytes| (Digest::sha256(bytes), Bytes::copy_from_slice(bytes))).collect();
    BuiltIndex::new(index, blobs, Vec::new())
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn blobs(store: &Store) -> BTreeSet<String> {
    let dir = store.dir().join("blobs/sha256");
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn hexes<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> BTreeSet<String> {
    digests.into_iter().map(|digest| digest.hex().to_owned()).collect()
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("store"));
    (dir, store)
}

#[test]
fn an_empty_store_makes_no_directory() {
    let (_dir, store) = store();
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(store.ztocs().unwrap(), []);
    let gone = BTreeSet::from([Digest::sha256(b"")]);
    assert_eq!(store.remove(&gone).unwrap(), gone);
    assert!(store.index(&Digest::sha256(b"")).unwrap_err().is_not_found());
    assert!(!store.dir().exists());
}

#[test]
fn what_is_kept_comes_back_the_newest_first() {
    let (_dir, store) = store();
    let (one, two) = (built(&[b"a", b"b"]), built(&[b"b", b"c"]));
    let amd64 = platform::parse("linux/amd64").unwrap();
    let arm = Platform { variant: "v8".to_owned(), ..platform::parse("linux/arm64").unwrap() };
    store.add(&one, &image("one"), &manifest(), &amd64, at(1000)).unwrap();
    store.add(&two, &image("two"), &manifest(), &arm, at(2000)).unwrap();
    let list = store.list().unwrap();
    assert_eq!(
        list[0],
        Record {
            digest: two.digest.clone(),
            size: two.bytes.len() as u64,
            media_type: spandrel_registry::media_type::OCI_MANIFEST.to_owned(),
            version: Version::V1,
            image: "r.example/two:1".to_owned(),
            image_digest: Some(Digest::sha256(b"image")),
            platform: arm.clone(),
            created: at(2000),
        }
    );
    assert_eq!(list[1].digest, one.digest);
    let loaded = store.load(&one.digest).unwrap();
    assert_eq!((loaded.bytes, loaded.ztocs), (one.bytes.clone(), one.ztocs.clone()));
    let ztocs = store.ztocs().unwrap();
    assert_eq!(ztocs.len(), 3);
    assert!(ztocs.is_sorted_by_key(|ztoc| ztoc.entry.ztoc.digest.clone()));
    let shared = ztocs.iter().find(|ztoc| ztoc.entry.ztoc.digest == Digest::sha256(b"b")).unwrap();
    assert_eq!(shared.images.len(), 2);
    // Made again, it is newer; of another image, it is there twice.
    store.add(&one, &image("one"), &manifest(), &amd64, at(3000)).unwrap();
    store.add(&one, &image("three"), &manifest(), &amd64, at(1)).unwrap();
    let created: Vec<_> =
        store.list().unwrap().into_iter().map(|record| (record.created, record.image)).collect();
    let want =
        [(3000, "one"), (2000, "two"), (1, "three")].map(|(s, name)| (at(s), format!("r.example/{name}:1")));
    assert_eq!(created, want);
    // And within a second.
    store.add(&two, &image("two"), &manifest(), &arm, at(3000) + Duration::from_nanos(1)).unwrap();
    assert_eq!(store.list().unwrap()[0].digest, two.digest);
}

#[test]
fn removing_an_index_leaves_what_others_need() {
    let (_dir, store) = store();
    let (one, two) = (built(&[b"a", b"b"]), built(&[b"b", b"c"]));
    for (index, name) in [(&one, "one"), (&two, "two")] {
        store.add(index, &image(name), &manifest(), &platform::host(), at(1)).unwrap();
    }
    let unknown = Digest::sha256(b"unknown");
    let gone = BTreeSet::from([one.digest.clone(), unknown.clone()]);
    assert_eq!(store.remove(&gone).unwrap(), BTreeSet::from([unknown]));
    let config = Digest::sha256(CONFIG);
    let want: Vec<&Digest> = two.ztocs.keys().chain([&two.digest, &config]).collect();
    assert_eq!(blobs(&store), hexes(want));
    assert_eq!(store.list().unwrap().len(), 1);
    store.remove(&BTreeSet::from([two.digest])).unwrap();
    assert!(blobs(&store).is_empty());
}

#[test]
fn changed_blobs_are_noticed_and_can_be_removed() {
    let (_dir, store) = store();
    let one = built(&[b"a"]);
    store.add(&one, &image("one"), &manifest(), &platform::host(), at(1)).unwrap();
    let path = |digest: &Digest| store.dir().join("blobs/sha256").join(digest.hex());
    let ztoc = Digest::sha256(b"a");
    std::fs::write(path(&ztoc), b"x").unwrap();
    let error = store.load(&one.digest).unwrap_err().to_string();
    assert!(error.contains("was changed") && error.contains(ztoc.as_str()), "{error}");
    std::fs::write(path(&one.digest), b"{}").unwrap();
    assert!(store.ztocs().is_err());
    store.remove(&BTreeSet::from([one.digest])).unwrap();
    assert_eq!(store.list().unwrap(), []);
    std::fs::write(store.dir().join("index.json"), b"nonsense").unwrap();
    let error = store.list().unwrap_err().to_string();
    assert!(error.contains("index.json can't be read") && error.contains("spandrel create"), "{error}");
}

#[test]
fn what_a_killed_tool_left_is_swept_and_breaks_nothing() {
    let (_dir, store) = store();
    let one = built(&[b"a"]);
    store.add(&one, &image("one"), &manifest(), &platform::host(), at(1)).unwrap();
    // Killed before the rename: a piece in `tmp`. Killed before `index.json`: a blob that nothing names.
    std::fs::write(store.dir().join("tmp/piece"), b"ha").unwrap();
    let lost = built(&[b"lost"]);
    std::fs::write(store.dir().join("blobs/sha256").join(lost.digest.hex()), &lost.bytes).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    store.add(&lost, &image("lost"), &manifest(), &platform::host(), at(2)).unwrap();
    assert_eq!(store.load(&lost.digest).unwrap().bytes, lost.bytes);
    assert_eq!(std::fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
}

#[test]
fn many_at_once_lose_nothing() {
    let (_dir, store) = store();
    std::thread::scope(|scope| {
        for worker in 0..8u8 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..4u8 {
                    let index = built(&[&[worker, number], b"shared"]);
                    store
                        .add(&index, &image("one"), &manifest(), &platform::host(), at(u64::from(number)))
                        .unwrap();
                    if number % 2 == 1 {
                        assert!(store.remove(&BTreeSet::from([index.digest])).unwrap().is_empty());
                    }
                }
            });
        }
    });
    let list = store.list().unwrap();
    assert_eq!(list.len(), 16);
    for record in list {
        store.load(&record.digest).unwrap();
    }
    assert_eq!(blobs(&store).len(), 16 * 2 + 2);
}

#[test]
fn known_ztocs_are_of_the_same_span_size_and_tool() {
    let source = crate::testing::MemorySource::golden();
    let layer = source.blobs.iter().find(|(_, blob)| blob.starts_with(&[0x1f, 0x8b])).unwrap();
    let options = spandrel_ztoc::build::BuildOptions { span_size: 65536, build_tool: "t".to_owned() };
    let made = spandrel_ztoc::build::build(&layer.1[..], spandrel_ztoc::Compression::Gzip, &options).unwrap();
    let bytes = made.ztoc.encode();
    let mut index = built(&[&bytes]);
    index.index.layers[0].layer = layer.0.clone();
    let index = BuiltIndex::new(index.index, index.ztocs, Vec::new());
    let (_dir, store) = store();
    store.add(&index, &image("one"), &manifest(), &platform::host(), at(1)).unwrap();
    assert_eq!(store.get(layer.0, 65536, "t").unwrap(), bytes);
    assert_eq!(store.get(layer.0, 65537, "t"), None);
    assert_eq!(store.get(layer.0, 65536, "other"), None);
    assert_eq!(store.get(&Digest::sha256(b"other"), 65536, "t"), None);
}

#[test]
fn other_oci_tools_read_it() {
    let Some(skopeo) = spandrel_fixtures::require::program("skopeo") else { return };
    let (_dir, store) = store();
    let one = built(&[b"a", b"b"]);
    store.add(&one, &image("one"), &manifest(), &platform::host(), at(1)).unwrap();
    let output = std::process::Command::new(skopeo)
        .arg("inspect")
        .arg("--raw")
        .arg(format!("oci:{}", store.dir().display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, one.bytes);
}
