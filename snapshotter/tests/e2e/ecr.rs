//! An image in ECR: indexed and pulled by the tool, read by the daemon, each with AWS credentials of its own, while tokens
//! and keys end. (The registry behind is the real one; what stands for AWS only gives tokens and wants them.)

use std::process::Command;

use spandrel_fixtures::aws::{Asked, HOST, Identity, SECRET, ScriptedAws};
use spandrel_fixtures::image::busybox;
use spandrel_fixtures::peers::Version;

use super::bed::{Bed, MIN_LAYER_SIZE, READ_TIMEOUT, SNAPSHOTTER, content, large_layer, sha256};
use super::daemon::get;

const LEN: usize = 200_000;

/// The beginning of every token as it travels: `AWS:hunter2-` in base64.
const SECRET_PAIR: &str = "QVdTOmh1bnRlcjIt";

/// Runs the tool with AWS credentials from its environment; it has to succeed.
fn tool(bed: &Bed, aws: &ScriptedAws, args: &[&str]) {
    let mut command = Command::new(&bed.spandrel);
    command.arg("--address").arg(bed.containerd.socket()).args(args);
    aws.introduce(&mut command, Identity::Environment);
    command.env("SPANDREL_LOG_LEVEL", "trace");
    let output = command.output().expect("spandrel runs");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {}", err.lines().last().unwrap_or_default());
    no_secret_in(&err);
}

fn no_secret_in(text: &str) {
    let found = text.lines().find(|line| line.contains(SECRET) || line.contains(SECRET_PAIR));
    assert!(found.is_none(), "a secret was printed: {found:?}");
}

/// Large layers of the image: of each nothing is there until it is read.
const LAYERS: u64 = 5;

/// Reads of layer `number` in a new container.
fn read(bed: &Bed, number: u64) {
    let reference = format!("{HOST}/app:1");
    let sum = bed.ctr_run(SNAPSHOTTER, &reference, &format!("sha256sum < /data-{number}/7"));
    assert!(sum.starts_with(&sha256(&content(number, 7, LEN))), "{sum}");
}

/// What the daemon has told so far holds no secret.
async fn nothing_was_told(bed: &Bed) {
    let log = std::fs::read_to_string(bed.daemon.log()).expect("a log");
    assert!(log.contains("credentials found") && log.contains("AWS credentials from instance"), "{log}");
    no_secret_in(&log);
    for path in ["/metrics", "/layers"] {
        no_secret_in(&get(&bed.place.admin_socket(), path).await.1);
    }
}

#[tokio::test]
async fn an_image_in_ecr_is_read_while_its_tokens_end() {
    for version in Version::ALL {
        let Some(mut bed) = Bed::start(version) else { continue };
        let Some(image) =
            busybox((0..LAYERS).map(|number| large_layer(&format!("data-{number}"), number, 10, LEN)))
        else {
            return;
        };
        image.push(&bed.registry.client(), "app", "1");
        let aws = ScriptedAws::start(bed.registry.addr());
        let reference = format!("{HOST}/app:1");
        let store = bed.place.dir.path().join("store");
        let (min, store) = (MIN_LAYER_SIZE.to_string(), store.to_str().expect("UTF-8").to_owned());
        bed.place.config = bed.place.config.replace(
            &format!("read_timeout = \"{READ_TIMEOUT}s\""),
            "read_timeout = \"60s\"", // longer than AWS is broken below
        ) + &format!(
            "[[registry.hosts]]\nhost = {HOST:?}\nplain_http = true\n[log]\nlevel = \"trace\"\n"
        );
        bed.daemon.stop();
        bed.daemon = bed.place.start_changed(|command| aws.introduce(command, Identity::Instance));
        // The daemon's own trial at its start has reads that fail on purpose.
        let errors = bed.metric("spandrel_fuse_errors_total").await;

        let create = ["create", "--push", "--plain-http", "--span-size", "262144", "--min-layer-size", &min];
        tool(&bed, &aws, &[&create[..], &["--store", &store, &reference]].concat());
        let pull = ["pull", "--plain-http", "--snapshotter", SNAPSHOTTER, &reference];
        tool(&bed, &aws, &pull);
        let (own, daemons) = (Identity::Environment.access_key(), Identity::Instance.access_key());
        let keys = aws.keys();
        assert_eq!(keys.iter().filter(|key| *key == own).count(), 2, "one for each command: {keys:?}");
        read(&bed, 0);
        let daemon_asked = |aws: &ScriptedAws| aws.keys().iter().filter(|key| *key == daemons).count();
        assert_eq!(daemon_asked(&aws), 1, "{version:?}: one token for the image, its index and its layers");

        for (layer, forbids) in [(1, true), (2, false), (3, true)] {
            let before = daemon_asked(&aws);
            aws.forbid(forbids);
            aws.end_tokens();
            read(&bed, layer);
            assert_eq!(daemon_asked(&aws), before + 1, "{version:?}: one more for each end");
        }
        let line = r#"spandrel_ecr_tokens_total{cause="refused",outcome="ok"}"#;
        assert_eq!(bed.metric(line).await, 3, "{version:?}");
        assert!(bed.metric(r#"spandrel_credentials_total{source="ecr",outcome="found"}"#).await > 0);
        assert_eq!(bed.metric("spandrel_fuse_errors_total").await, errors, "{version:?}");
        nothing_was_told(&bed).await;

        // The daemon comes back while neither its tokens nor its keys are any good; a read waits until they are.
        aws.end_tokens();
        aws.end_keys(Identity::Instance, true);
        bed.daemon.stop();
        bed.daemon = bed.place.start_changed(|command| aws.introduce(command, Identity::Instance));
        aws.reset_counts();
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| read(&bed, 4));
            aws.wait_for(Asked::Token, 1);
            aws.end_keys(Identity::Instance, false);
            reading.join().expect("it was read");
        });
        assert_eq!(bed.metric("spandrel_fuse_errors_total").await, errors, "{version:?}");
        let ok = r#"spandrel_ecr_tokens_total{cause="first",outcome="ok"}"#;
        assert_eq!(bed.metric(ok).await, 1, "{version:?}");
        nothing_was_told(&bed).await;
    }
}
