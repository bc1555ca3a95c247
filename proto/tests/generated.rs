//! The checked-in gRPC code is what the interface definitions in `protos/` give.
//!
//! `SPANDREL_REGENERATE=1 cargo test -p spandrel-proto` writes the code anew after a change of the definitions.

use std::fs;
use std::path::Path;

const FILES: [&str; 7] = [
    "services/snapshots/v1/snapshots.proto",
    "services/content/v1/content.proto",
    "services/images/v1/images.proto",
    "services/leases/v1/leases.proto",
    "services/version/v1/version.proto",
    "services/diff/v1/diff.proto",
    "cri/v1/api.proto",
];

#[test]
fn generated_code_matches_the_definitions() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(FILES, [root.join("protos/containerd"), root.join("protos")])
        .expect("the definitions compile");
    let out = tempfile::tempdir().expect("temporary directory");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .expect("code generation");

    let checked_in = root.join("src/generated");
    let mut made: Vec<_> = names(out.path());
    made.retain(|name| !name.starts_with("google."));
    if std::env::var_os("SPANDREL_REGENERATE").is_some() {
        for name in names(&checked_in) {
            fs::remove_file(checked_in.join(name)).expect("remove the old file");
        }
        for name in &made {
            fs::copy(out.path().join(name), checked_in.join(name)).expect("write the new file");
        }
    }
    assert_eq!(names(&checked_in), made, "files in src/generated");
    for name in made {
        let new = fs::read_to_string(out.path().join(&name)).expect("read the made file");
        let old = fs::read_to_string(checked_in.join(&name)).expect("read the checked-in file");
        assert!(old == new, "{name} is stale: run this test with SPANDREL_REGENERATE=1");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("directory")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8 name"))
        .collect();
    names.sort();
    names
}
