//! A containerd of the test's own, which unpacks the image with its own overlayfs snapshotter.

use std::path::{Path, PathBuf};
use std::process::Command;

use spandrel_fixtures::image::ImageBuilder;
use spandrel_fixtures::layer::Layer;
use spandrel_fixtures::process::{Process, Ready};

const TAG: &str = "registry.example/layers:1";

#[derive(Debug)]
pub struct Containerd {
    _process: Process,
    dir: PathBuf,
}

impl Containerd {
    /// Starts it with all that it keeps below `place`.
    pub fn start(place: &Path) -> Self {
        let dir = place.join("containerd");
        std::fs::create_dir(&dir).expect("create a directory");
        let config = format!(
            "version = 2\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{dir}/containerd.sock\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{dir}/opt\"\n",
            dir = dir.display(),
        );
        let file = dir.join("config.toml");
        std::fs::write(&file, config).expect("write the configuration");
        let mut command = Command::new("containerd");
        command.arg("-c").arg(file);
        let process = Process::start("containerd", &mut command, &Ready::Socket(dir.join("containerd.sock")));
        Self { _process: process, dir }
    }

    /// Imports the image whose layers are `tars`, the lowest first, and mounts it at `target`.
    pub fn import_and_mount(&self, tars: &[Vec<u8>], target: &Path) {
        let layers = tars.iter().map(|tar| Layer::plain(tar));
        let image = layers.fold(ImageBuilder::new(), ImageBuilder::layer).build();
        let layout = self.dir.join("layout");
        image.write_layout(&layout, TAG);
        let archive = self.dir.join("image.tar");
        run(Command::new("tar").arg("-C").arg(&layout).arg("-cf").arg(&archive).arg("."));
        self.ctr(&["images", "import", "--snapshotter", "overlayfs", archive.to_str().expect("UTF-8")]);
        self.ctr(&["images", "mount", "--snapshotter", "overlayfs", TAG, target.to_str().expect("UTF-8")]);
    }

    fn ctr(&self, args: &[&str]) {
        run(Command::new("ctr").arg("--address").arg(self.dir.join("containerd.sock")).args(args));
    }
}

fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}
