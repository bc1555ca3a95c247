//! What goes wrong: exit codes, messages, and nothing left behind.

use std::process::Stdio;

use spandrel_fixtures::image::ImageBuilder;
use spandrel_fixtures::process::free_port;
use spandrel_fixtures::scripted::{Fault, Gate, Kind, Rule, ScriptedRegistry};

use crate::support::{Ran, Tool, large_layer};

fn registry() -> (ScriptedRegistry, String) {
    let registry = ScriptedRegistry::plain();
    ImageBuilder::new().layer(large_layer(8).0).build().put(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    (registry, reference)
}

#[test]
fn exit_codes_say_what_kind_of_failure_it_was() {
    let (registry, reference) = registry();
    let tool = Tool::new();
    let error = tool.fails(3, &["create", &format!("{}/no/such:1", registry.host())]);
    assert!(error.contains("/no/such") && error.starts_with("spandrel: "), "{error}");
    registry.rule(Rule::new(Kind::BlobRange, Fault::status(403)));
    tool.fails(4, &["create", &reference, "--min-layer-size", "0"]);
    registry.clear_rules();
    // Every try, from wherever it goes on, gives wrong bytes: nothing of them is used.
    registry.rule(Rule::new(Kind::BlobRange, Fault::Flip(1000)));
    let error = tool.fails(6, &["create", &reference, "--min-layer-size", "0"]);
    assert!(error.contains("the bytes that came have the digest"), "{error}");
    assert!(!tool.store().exists());
    let error = tool.fails(5, &["create", &format!("127.0.0.1:{}/app:1", free_port())]);
    assert!(error.contains("127.0.0.1"), "{error}");
    for args in [
        &["create"][..],
        &["create", "example.com/UPPER"],
        &["nonsense"],
        &["create", "a", "--span-size", "0"],
    ] {
        let error = tool.fails(2, args);
        assert!(error.contains("Usage") || error.contains("--help"), "{error}");
    }
}

#[test]
fn a_download_that_breaks_off_is_continued() {
    let (registry, reference) = registry();
    registry.rule(Rule::new(Kind::BlobRange, Fault::ResetAfter(1 << 20)).nth(0));
    let tool = Tool::new();
    let made = tool.good(&["create", &reference, "--min-layer-size", "0"]);
    assert!(made.starts_with("layer sha256:"), "{made}");
    assert!(registry.count(Kind::BlobRange) > 1);
}

#[test]
fn a_signal_ends_it_at_once_and_leaves_nothing() {
    let (registry, reference) = registry();
    let gate = Gate::new();
    registry.rule(Rule::new(Kind::BlobRange, Fault::HoldAfter(1 << 20, gate.clone())));
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let tool = Tool::new();
        let before = registry.count(Kind::BlobRange);
        let child = tool.start(&["create", &reference, "--min-layer-size", "0"]);
        registry.wait_for_blocking(Kind::BlobRange, before + 1);
        let kill = std::process::Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(code), "{}", ran.err);
        assert_eq!(ran.err, "spandrel: interrupted\n");
        assert!(!tool.store().exists());
    }
    let tool = Tool::new();
    let error = tool.fails(124, &["create", &reference, "--min-layer-size", "0", "--timeout", "300ms"]);
    assert_eq!(error, "spandrel: not done after 300ms (--timeout)\n");
    gate.open();
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (_registry, reference) = registry();
    let tool = Tool::new();
    tool.good(&["create", &reference, "--min-layer-size", "0"]);
    let ztoc = tool.good(&["ztoc", "ls", "-q"]).trim_end().to_owned();
    let mut child = tool.start(&["ztoc", "get-file", &ztoc, "bin/large"]);
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn a_store_that_can_t_be_written_is_named() {
    let (_registry, reference) = registry();
    let tool = Tool::new();
    std::fs::write(tool.store(), b"a file").unwrap();
    let ran =
        tool.command(&["create", &reference, "--min-layer-size", "0", "-q"]).stdin(Stdio::null()).output();
    let ran = Ran::of(ran.unwrap());
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains(tool.store().to_str().unwrap()), "{}", ran.err);
}
