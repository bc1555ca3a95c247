//! Ordinary snapshots behind a real containerd: an image is imported, a container runs, everything is removed again.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};
use spandrel_fixtures::process::{Process, Ready};
use spandrel_fixtures::require;

use super::daemon::Place;

const IMAGE: &str = "registry.example/busybox:1";

struct Containerd {
    _process: Process,
    socket: PathBuf,
}

impl Containerd {
    fn start(place: &Place) -> Self {
        let dir = place.dir.path().join("containerd");
        std::fs::create_dir_all(&dir).expect("a directory");
        let socket = dir.join("containerd.sock");
        let config = format!(
            "version = 2\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{dir}/containerd.sock\"\n\
             [proxy_plugins.spandrel]\ntype = \"snapshot\"\naddress = \"{}\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{dir}/opt\"\n",
            place.socket().display(),
            dir = dir.display(),
        );
        let file = dir.join("config.toml");
        std::fs::write(&file, config).expect("written");
        let mut command = Command::new("containerd");
        command.arg("-c").arg(file);
        let process = Process::start("containerd", &mut command, &Ready::Socket(socket.clone()));
        Self { _process: process, socket }
    }

    fn ctr(&self, args: &[&str]) -> Result<String, String> {
        let output =
            Command::new("ctr").arg("--address").arg(&self.socket).args(args).output().expect("ctr runs");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(out)
        } else {
            Err(format!("{out}{}", String::from_utf8_lossy(&output.stderr)))
        }
    }
}

/// Writes an image of two layers, as `docker save` does, that has a busybox.
fn image(dir: &Path, busybox: &Path) -> PathBuf {
    let run = |command: &mut Command| assert!(command.status().expect("it runs").success(), "{command:?}");
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for (name, program) in [("base", Some(busybox)), ("top", None)] {
        let root = dir.join(name);
        std::fs::create_dir_all(root.join("bin")).expect("a directory");
        match program {
            Some(program) => drop(std::fs::copy(program, root.join("bin/busybox")).expect("copied")),
            None => std::fs::write(root.join("greeting"), "hello from the top layer\n").expect("written"),
        }
        let layer = format!("{name}.tar");
        run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(dir.join(&layer)).arg("."));
        let bytes = std::fs::read(dir.join(&layer)).expect("the layer");
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        diff_ids.push(format!("sha256:{digest}"));
        layers.push(layer);
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": layers }]);
    std::fs::write(dir.join("config.json"), config.to_string()).expect("written");
    std::fs::write(dir.join("manifest.json"), manifest.to_string()).expect("written");
    let archive = dir.join("image.tar");
    run(Command::new("tar").arg("-C").arg(dir).arg("-cf").arg(&archive).args([
        "manifest.json",
        "config.json",
        "base.tar",
        "top.tar",
    ]));
    archive
}

#[test]
fn an_imported_image_runs_also_after_a_restart_and_leaves_nothing() {
    let Some(place) = Place::new() else { return };
    for program in ["containerd", "ctr", "runc"] {
        if require::program(program).is_none() {
            return;
        }
    }
    let Some(busybox) = require::program("busybox") else { return };
    let dir = place.dir.path().join("image");
    std::fs::create_dir(&dir).expect("a directory");
    let archive = image(&dir, &busybox);
    let mut daemon = place.start();
    let containerd = Containerd::start(&place);
    let archive = archive.to_str().expect("UTF-8");
    containerd.ctr(&["image", "import", "--snapshotter", "spandrel", archive]).expect("imported");
    let run = |id: &str| {
        // Shims live below /run/containerd: names must differ from everybody else's.
        let id = format!("spandrel-{}-{id}", std::process::id());
        let script = "cat /greeting; echo changed > /greeting; rm /bin/nothing 2>/dev/null; cat /greeting";
        containerd.ctr(&[
            "run",
            "--rm",
            "--snapshotter",
            "spandrel",
            IMAGE,
            &id,
            "/bin/busybox",
            "sh",
            "-c",
            script,
        ])
    };
    assert_eq!(run("first").expect("it runs"), "hello from the top layer\nchanged\n");

    daemon.kill();
    let daemon = place.start();
    // containerd connects again by itself, after a second or two.
    let ran = (0..20)
        .map(|attempt| {
            std::thread::sleep(std::time::Duration::from_millis(500 * u64::from(attempt > 0)));
            run(&format!("second-{attempt}"))
        })
        .find(Result::is_ok);
    assert_eq!(ran, Some(Ok("hello from the top layer\nchanged\n".to_owned())), "{}", daemon.tail());

    containerd.ctr(&["image", "rm", "--sync", IMAGE]).expect("removed");
    let left = containerd.ctr(&["snapshots", "--snapshotter", "spandrel", "ls"]).expect("a list");
    assert_eq!(left.lines().count(), 1, "only the heading: {left}");
    let dirs = std::fs::read_dir(place.root().join("snapshots")).expect("directory").count();
    assert_eq!(dirs, 0, "{}", daemon.tail());
}
