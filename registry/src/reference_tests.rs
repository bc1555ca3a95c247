//! Tests of references: what docker accepts, refuses and makes of short names.

use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn references_are_read_as_docker_reads_them() {
    for (text, host, name, tag, digest) in [
        ("busybox", "docker.io", "library/busybox", Some("latest"), false),
        ("busybox:1.36", "docker.io", "library/busybox", Some("1.36"), false),
        ("user/app", "docker.io", "user/app", Some("latest"), false),
        ("index.docker.io/busybox", "docker.io", "library/busybox", Some("latest"), false),
        ("docker.io/user/app:x", "docker.io", "user/app", Some("x"), false),
        ("localhost/app", "localhost", "app", Some("latest"), false),
        ("localhost:5000/app", "localhost:5000", "app", Some("latest"), false),
        ("localhost:5000", "docker.io", "library/localhost", Some("5000"), false), // a tag, as Docker has it
        ("127.0.0.1:5000/a/b/c:1", "127.0.0.1:5000", "a/b/c", Some("1"), false),
        ("[::1]:5000/app", "[::1]:5000", "app", Some("latest"), false),
        ("[::1]/app", "[::1]", "app", Some("latest"), false),
        ("Registry/app", "Registry", "app", Some("latest"), false), // upper case can only be a host
        ("ghcr.io/org/app@DIGEST", "ghcr.io", "org/app", None, true),
        ("ghcr.io/org/app:v1@DIGEST", "ghcr.io", "org/app", Some("v1"), true),
        ("a-b.c__d/e---f_g", "a-b.c__d", "e---f_g", None, false), // host labels have no underscore: refused below
    ] {
        let text = text.replace("DIGEST", DIGEST);
        let got = text.parse::<Reference>();
        if host == "a-b.c__d" {
            assert!(got.is_err(), "{text}");
            continue;
        }
        let got = got.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((got.repository.host.as_str(), got.repository.name.as_str()), (host, name), "{text}");
        assert_eq!(got.tag.as_deref(), tag, "{text}");
        assert_eq!(got.digest.is_some(), digest, "{text}");
    }
}

#[test]
fn the_digest_wins_over_the_tag() {
    let both: Reference = format!("app:1@{DIGEST}").parse().expect("valid");
    assert_eq!(both.manifest_part(), DIGEST);
    let tag: Reference = "app:1".parse().expect("valid");
    assert_eq!(tag.manifest_part(), "1");
}

#[test]
fn what_is_wrong_is_named() {
    for (text, want) in [
        (String::new(), "empty"),
        ("https://ghcr.io/app".into(), "scheme"),
        ("App".into(), "lower case"),
        ("ghcr.io/App".into(), "lower case"),
        ("ghcr.io/".into(), "missing"),
        ("ghcr.io//app".into(), "joined by"),
        ("ghcr.io/app/".into(), "joined by"),
        ("ghcr.io/a..b".into(), "joined by"),
        ("ghcr.io/a___b".into(), "joined by"),
        ("ghcr.io/../etc".into(), "joined by"),
        ("ghcr.io/-a".into(), "joined by"),
        ("ghcr.io/a?b=c".into(), "joined by"),
        ("user:secret@ghcr.io/app".into(), "behind the @"),
        ("app:".into(), "tag"),
        ("app:.x".into(), "tag"),
        (format!("app:{}", "t".repeat(129)), "tag"),
        (format!("ghcr.io/{}", "n".repeat(256)), "255"),
        ("ghcr.io:99999/app".into(), "port"),
        ("ghcr.io:/app".into(), "port"),
        ("-ghcr.io/app".into(), "host"),
        ("[::1/app".into(), "host"),
        ("[::1]x/app".into(), "port"),
        ("app@sha256:abc".into(), "behind the @"),
        ("a".repeat(64), "ID"),
        ("x".repeat(5000), "too long"),
    ] {
        let error = text.parse::<Reference>().expect_err(&text);
        assert!(error.to_string().contains(want), "{error} should say {want:?}");
        assert!(error.to_string().len() < 1200, "an error must stay short");
    }
}

#[test]
fn hand_made_repositories_are_checked() {
    assert!(Repository::new("ghcr.io", "org/app").is_ok());
    for (host, name) in
        [("ghcr.io/evil", "app"), ("user@ghcr.io", "app"), ("ghcr.io", "a?b"), ("ghcr.io", "../a")]
    {
        assert!(Repository::new(host, name).is_err(), "{host} {name}");
    }
    assert!(check_part("1.0").is_ok() && check_part(DIGEST).is_ok());
    assert!(check_part("../blobs/x").is_err() && check_part("sha256:xyz").is_err());
}

fn reference() -> impl Strategy<Value = String> {
    let component = "[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}";
    let host = "(([a-z0-9]{1,5}\\.){1,2}[a-z]{2,3}|localhost|127\\.0\\.0\\.1|\\[::1\\])(:[0-9]{1,4})?/";
    // A first component with a dot would be a host.
    let name = format!("[a-z0-9]{{1,5}}(__[a-z0-9]{{1,5}})?(/{component}){{0,2}}");
    (
        proptest::option::of(host),
        proptest::string::string_regex(&name).expect("a pattern"),
        proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        proptest::option::of("sha256:[0-9a-f]{64}"),
    )
        .prop_map(|(host, name, tag, digest)| {
            let mut text = host.unwrap_or_default() + &name;
            if let Some(tag) = tag {
                text = text + ":" + &tag;
            }
            if let Some(digest) = digest {
                text = text + "@" + &digest;
            }
            text
        })
}

proptest! {
    #[test]
    fn what_is_displayed_means_the_same(text in reference()) {
        let read: Reference = text.parse().map_err(|e| TestCaseError::fail(format!("{e}")))?;
        let again: Reference = read.to_string().parse().map_err(|e| TestCaseError::fail(format!("{e}")))?;
        prop_assert_eq!(&read, &again);
        prop_assert!(read.repository.check().is_ok());
    }

    #[test]
    fn nothing_panics_and_what_passes_is_safe_in_a_url(text in "\\PC{0,80}|[a-zA-Z0-9./:@_?#%-]{0,80}") {
        if let Ok(read) = text.parse::<Reference>() {
            let again: Reference = read.to_string().parse().map_err(|e| TestCaseError::fail(format!("{e}")))?;
            prop_assert_eq!(&again, &read);
            prop_assert!(!read.repository.name.contains(['?', '#', '%', '@', ' ']));
            prop_assert!(!read.repository.name.split('/').any(|part| part == ".." || part.is_empty()));
        }
    }
}
