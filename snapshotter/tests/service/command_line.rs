//! Flags, subcommands and exit codes.

use std::process::{Command, Output};

use super::daemon::PROGRAM;

fn run(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(PROGRAM).args(args).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

#[test]
fn the_default_configuration_is_printed_and_checks() {
    let (code, text, _) = run(&["config", "default"]);
    assert_eq!(code, 0);
    assert!(text.contains("root = \"/var/lib/spandrel-snapshotter\""), "{text}");
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("config.toml");
    std::fs::write(&file, text).expect("written");
    let file = file.to_str().expect("UTF-8");
    assert_eq!(run(&["config", "check", file]), (0, format!("{file} is fine\n"), String::new()));
}

#[test]
fn what_is_wrong_with_flags_and_files_is_said_with_exit_code_2() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[fetch]\nconcurency = 3\n").expect("written");
    let path = file.to_str().expect("UTF-8");
    let missing = dir.path().join("missing.toml");
    let missing = missing.to_str().expect("UTF-8");
    for (args, wanted) in [
        (vec!["config", "check", path], "concurency"),
        (vec!["--config", path], "concurency"),
        (vec!["--config", missing], "missing.toml"),
        (vec!["config", "check", missing], "missing.toml"),
        (vec!["--root", "relative"], "root"),
        (vec!["--address", "relative.sock"], "address"),
        (vec!["--log-level", "loud"], "log.level"),
        (vec!["--colour"], "--colour"),
        (vec!["nonsense"], "nonsense"),
    ] {
        let (code, out, error) = run(&args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {error}");
        assert!(error.contains(wanted), "{args:?}: {error}");
    }
}

#[test]
fn a_root_in_memory_is_refused_with_the_reason() {
    let dir = tempfile::Builder::new().prefix("spandrel-").tempdir_in("/dev/shm").expect("tempdir");
    let root = dir.path().join("root");
    let (code, _, error) = run(&["--root", root.to_str().expect("UTF-8")]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("lies on tmpfs") && error.contains("ext4 or xfs"), "{error}");
}
