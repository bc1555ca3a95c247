//! An image's layers as tables, mounted by the kernel or from the FUSE tree: the kernel's overlay of them compared with what
//! containerd unpacks of the same image, and the two kinds of mount with each other.

mod containerd;
#[path = "../../src/layer/files.rs"]
#[expect(dead_code, reason = "the daemon's own; some of it is needed here")]
mod files;
mod image;
#[path = "../../src/layer/parents.rs"]
mod parents;
mod place;
mod seen;
#[path = "../../src/layer/table.rs"]
mod table;

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use spandrel_fixtures::require;
// What `table` calls it in the daemon.
use spandrel_snapshotter::{Error, tree};
use spandrel_ztoc::tar::{TarRules, TarWalk};
use spandrel_ztoc::tree::Tree;

use containerd::Containerd;
use place::{By, Place};

/// The layers whose tars are `tars`, the lowest first, as tables, mounted; the uppermost first.
async fn mount_tables(place: &mut Place, tars: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut lowers: Vec<PathBuf> = Vec::new();
    for tar in tars {
        let mut walk = TarWalk::new(TarRules::Fill);
        walk.push(tar).expect("a tar");
        let toc = walk.finish().expect("a whole tar");
        let mut tree = Tree::new(&toc.entries, tar.len() as u64).expect("a tree");
        parents::describe(&mut tree, &lowers, place.tree.as_ref())
            .expect("the layers below can be looked into");
        let table = table::build(&tree, tar.len() as u64).expect("a table");
        let name = format!("layer-{}", place.next_number());
        lowers.insert(0, place.table(&name, tar, &table).await);
    }
    lowers
}

/// Whether there is what the tests need.
fn has_programs() -> bool {
    ["containerd", "ctr", "tar", "find"].iter().all(|program| require::program(program).is_some())
}

/// Compares an overlay of tables of `tars` with what containerd unpacks of them; says how many names there are, and where
/// ours is.
async fn compare(place: &mut Place, tars: &[Vec<u8>], timeless: &[&str]) -> (usize, PathBuf) {
    let lowers = mount_tables(place, tars).await;
    let lowers: Vec<&Path> = lowers.iter().map(AsRef::as_ref).collect();
    let ours = place.overlay("ours", &lowers);
    let containerd = Containerd::start(place.path());
    let theirs = place.folder("theirs");
    containerd.import_and_mount(tars, &theirs);
    place.adopt(&theirs);
    (seen::assert_same(&ours, &theirs, timeless), ours)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlay_of_tables_is_what_containerd_unpacks() {
    for by in [By::Erofs, By::Fuse] {
        let Some(mut place) = Place::new() else { return };
        if !has_programs() {
            return;
        }
        place.start(by);
        let (count, ours) = compare(&mut place, &image::layers(), &[]).await;
        assert!(count > 1000, "{by:?}: only {count} names");
        // The same is to be seen by name as by listing.
        assert!(!ours.join(image::HIDDEN).exists(), "{by:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_without_entries_are_what_containerd_makes_of_them() {
    for by in [By::Erofs, By::Fuse] {
        let Some(mut place) = Place::new() else { return };
        if !has_programs() {
            return;
        }
        place.start(by);
        let (count, ours) = compare(&mut place, &image::odd(), &image::WITHOUT_ENTRY).await;
        assert_eq!(count, 25, "{by:?}");
        let mode = |name: &str| {
            let meta = std::fs::metadata(ours.join(name)).expect("there");
            (meta.permissions().mode() & 0o7777, meta.uid())
        };
        let modes = (mode("tmp"), mode("app"), mode("removed"));
        assert_eq!(modes, ((0o1777, 0), (0o700, 1000), (0o755, 0)), "{by:?}");
    }
}

/// Layer by layer, without an overlay: whiteouts and opaque directories as they are, blocks and their size, the listing of
/// each directory in its order.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_from_the_tree_is_what_the_kernel_makes_of_its_table() {
    let (Some(mut erofs), Some(mut fuse)) = (Place::new(), Place::new()) else { return };
    if !has_programs() {
        return;
    }
    fuse.start(By::Fuse);
    for tars in [image::layers(), image::odd(), vec![image::every_kind()]] {
        let (theirs, ours) = (mount_tables(&mut erofs, &tars).await, mount_tables(&mut fuse, &tars).await);
        let mut count = 0;
        for (theirs, ours) in theirs.iter().zip(&ours) {
            count += seen::assert_identical(ours, theirs);
        }
        eprintln!("{count} names in {} layers", tars.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn access_control_lists_are_obeyed() {
    if require::program("setpriv").is_none() || require::program("cat").is_none() {
        return;
    }
    for by in [By::Erofs, By::Fuse] {
        let Some(mut place) = Place::new() else { return };
        // Other users have to get there.
        std::fs::set_permissions(place.path(), Permissions::from_mode(0o711)).expect("ours");
        place.start(by);
        let layer = mount_tables(&mut place, &[image::every_kind()]).await.remove(0);
        for (user, may) in [(image::FRIEND, true), (image::FRIEND + 1, false)] {
            let file = layer.join(image::GUARDED);
            let read = tokio::task::spawn_blocking(move || {
                Command::new("setpriv")
                    .args([&format!("--reuid={user}"), "--regid=9999", "--clear-groups", "cat"])
                    .arg(file)
                    .output()
                    .expect("setpriv runs")
            });
            let read = read.await.expect("no panic");
            assert_eq!(read.status.success(), may, "{by:?}, {user}: {read:?}");
        }
    }
}
