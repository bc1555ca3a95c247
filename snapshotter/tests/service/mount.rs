//! `mount` and `unmount`: an image's files without containerd.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use spandrel_fixtures::image::{Image, ImageBuilder};
use spandrel_fixtures::layer::{Entry, Layer, TarBuilder};
use spandrel_fixtures::peers::DockerRegistry;
use spandrel_fixtures::process::{Process, Ready};
use spandrel_fixtures::random::Random;
use spandrel_fixtures::require;

use super::daemon::{PROGRAM, get};

struct Bed {
    registry: DockerRegistry,
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Option<Self> {
        if !require::root() || !require::fuse() || !require::erofs() {
            return None;
        }
        let bed = Self { registry: DockerRegistry::plain()?, dir: require::plain_disk()? };
        std::fs::create_dir(bed.target()).expect("a directory");
        Some(bed)
    }

    fn target(&self) -> PathBuf {
        // A space in its name is written otherwise in the kernel's table.
        self.dir.path().join("the image")
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("mounts")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(args).arg("--folder").arg(self.folder());
        command
    }

    fn run(&self, args: &[&str]) -> Result<String, String> {
        let Output { status, stdout, stderr } = self.command(args).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8").trim_end().to_owned();
        if status.success() { Ok(text(stdout)) } else { Err(text(stderr)) }
    }

    fn push(&self, image: &Image) -> String {
        image.push(&self.registry.client(), "app", "1");
        format!("{}/app:1", self.registry.host())
    }

    fn mount(&self, reference: &str) -> Result<String, String> {
        self.run(&["mount", reference, self.target().to_str().expect("UTF-8")])
    }

    fn unmount(&self) -> Result<String, String> {
        self.run(&["unmount", self.target().to_str().expect("UTF-8")])
    }

    fn nothing_is_left(&self) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let dir = self.dir.path().to_str().expect("UTF-8");
        assert!(!table.contains(dir), "{table}");
        let left: Vec<_> = std::fs::read_dir(self.folder()).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // Whatever a failed test left runs until it is unmounted.
        let _ = self.unmount();
    }
}

fn image() -> Image {
    let mut random = Random::new(7);
    let base = TarBuilder::new()
        .with(Entry::dir("etc").mode(0o2711).owner(5, 6))
        .with(Entry::file("etc/removed", "old"))
        .with(Entry::file("etc/replaced", "old"))
        .with(Entry::file("big", random.bytes(3 << 20)));
    // Without an entry for `etc`.
    let top = TarBuilder::new()
        .with(Entry::whiteout("etc/removed"))
        .with(Entry::file("etc/replaced", "new").mode(0o4755).owner(7, 8))
        .with(Entry::symlink("link", "etc/replaced"));
    ImageBuilder::new().layer(Layer::gzip(&base.finish())).layer(Layer::zstd(&top.finish())).build()
}

fn check(target: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let read = |name: &str| std::fs::read(target.join(name));
    assert_eq!(read("link").expect("read"), b"new");
    assert_eq!(read("big").expect("read"), Random::new(7).bytes(3 << 20));
    assert!(read("etc/removed").is_err());
    let found = std::fs::metadata(target.join("etc")).expect("metadata");
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o2711, 5, 6));
    let found = std::fs::metadata(target.join("etc/replaced")).expect("metadata");
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o4755, 7, 8));
    let written = std::fs::write(target.join("etc/new"), "x").expect_err("read-only");
    assert_eq!(written.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn an_image_is_mounted_and_unmounted_and_nothing_is_left() {
    let Some(bed) = Bed::new() else { return };
    let reference = bed.push(&image());
    for _ in 0..2 {
        let said = bed.mount(&reference).expect("mounted");
        assert!(said.contains(&reference) && said.contains(&image().digest()), "{said}");
        check(&bed.target());
        let again = bed.mount(&reference).expect_err("it is mounted already");
        assert!(again.contains("already exists"), "{again}");
        check(&bed.target());
        assert_eq!(bed.unmount(), Ok(String::new()));
        bed.nothing_is_left();
    }
    let error = bed.unmount().expect_err("there is nothing");
    assert!(error.contains("not found"), "{error}");
}

#[tokio::test]
async fn in_the_foreground_a_signal_ends_it() {
    let Some(bed) = Bed::new() else { return };
    let reference = bed.push(&image());
    let target = bed.target();
    let mut command = bed.command(&["mount", "--foreground", &reference, target.to_str().expect("UTF-8")]);
    let ready = Ready::Line("is mounted at".to_owned());
    let mut process = Process::start("mount", &mut command, &ready);
    check(&bed.target());
    let folder = std::fs::read_dir(bed.folder()).expect("a folder").next().expect("one").expect("one").path();
    assert_eq!(get(&folder.join("admin.sock"), "/healthz").await.0, 200);
    let record = std::fs::read(folder.join("mount.json")).expect("a record");
    let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
    assert_eq!(record["dir"], bed.target().to_str().expect("UTF-8"));
    assert_eq!(record["pid"], process.pid());
    process.signal(Signal::TERM);
    let status = process.wait(std::time::Duration::from_secs(30)).expect("it ends");
    assert!(status.success(), "{}", process.tail());
    bed.nothing_is_left();
}

#[test]
fn what_a_killed_one_left_is_taken_away() {
    let Some(bed) = Bed::new() else { return };
    let reference = bed.push(&image());
    let target = bed.target();
    let mut command = bed.command(&["mount", "--foreground", &reference, target.to_str().expect("UTF-8")]);
    let mut process = Process::start("mount", &mut command, &Ready::Line("is mounted at".to_owned()));
    process.kill();
    bed.mount(&reference).expect("mounted again");
    check(&bed.target());
    bed.unmount().expect("unmounted");
    bed.nothing_is_left();
}

#[test]
fn what_is_wrong_is_said() {
    let Some(bed) = Bed::new() else { return };
    let host = bed.registry.host();
    for (reference, wanted) in [
        (format!("{host}/missing:1"), format!("{host}/missing")),
        ("UPPER CASE".to_owned(), "invalid image reference".to_owned()),
    ] {
        let error = bed.mount(&reference).expect_err("refused");
        assert!(error.contains(&wanted), "{error}");
        bed.nothing_is_left();
    }
    let missing = bed.dir.path().join("missing");
    let error = bed.run(&["mount", "a/b:1", missing.to_str().expect("UTF-8")]).expect_err("refused");
    assert!(error.contains("missing"), "{error}");
    bed.nothing_is_left();
}
