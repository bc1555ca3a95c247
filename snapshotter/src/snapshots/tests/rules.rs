//! Ordinary snapshots: the rules of containerd's metadata store, against a model of them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use proptest::prelude::*;

use super::*;
use crate::service::{Kind, Usage};

#[tokio::test]
async fn a_chain_is_built_used_and_taken_down() {
    let bed = Bed::new();
    let root = bed.dir.path().display();
    assert_eq!(bed.prepare("a", "").await, Ok(vec!["rw".into(), "rbind".into()]));
    bed.snapshots.commit("base".into(), "a".into(), HashMap::new()).await.expect("committed");
    let options = bed.prepare("b", "base").await.expect("prepared");
    assert_eq!(options.last(), Some(&format!("lowerdir={root}/snapshots/1/fs")));
    assert!(options.contains(&format!("upperdir={root}/snapshots/2/fs")), "{options:?}");
    let view = bed.snapshots.view("v".into(), "base".into(), HashMap::new()).await.expect("a view");
    assert_eq!(view[0].source, format!("{root}/snapshots/1/fs"));
    let children = bed.snapshots.remove("base".into()).await;
    assert!(matches!(children, Err(Error::FailedPrecondition(_))), "{children:?}");
    for key in ["b", "v", "base"] {
        bed.snapshots.remove(key.into()).await.expect("removed");
    }
    bed.settle().await;
    assert_eq!(bed.names().await, [""; 0]);
    for dir in ["snapshots", "trash", "tmp"] {
        let left = std::fs::read_dir(bed.dir.path().join(dir)).expect("directory").count();
        assert_eq!(left, 0, "{dir}");
    }
}

#[tokio::test]
async fn a_committed_snapshot_knows_what_it_occupies() {
    let bed = Bed::new();
    bed.prepare("a", "").await.expect("prepared");
    let fs = bed.dir.path().join("snapshots/1/fs");
    std::fs::write(fs.join("file"), vec![1; 100_000]).expect("written");
    let blocks = |path: &Path| std::fs::metadata(path).expect("metadata").blocks() * 512;
    let want = Usage { size: blocks(&fs) + blocks(&fs.join("file")), inodes: 2 };
    assert_eq!(bed.snapshots.usage("a".into()).await, Ok(want));
    bed.snapshots.commit("base".into(), "a".into(), HashMap::new()).await.expect("committed");
    std::fs::write(fs.join("later"), "not counted any more").expect("written");
    assert_eq!(bed.snapshots.usage("base".into()).await, Ok(want));
}

#[tokio::test]
async fn labels_are_replaced_by_commit_and_changed_by_path() {
    let bed = Bed::new();
    let labels = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let prepared = labels(&[("kept", "no"), ("empty", "")]);
    bed.snapshots.prepare("a".into(), String::new(), prepared).await.expect("prepared");
    assert_eq!(bed.snapshots.stat("a".into()).await.expect("found").labels, labels(&[("kept", "no")]));
    bed.snapshots.commit("c".into(), "a".into(), labels(&[("x", "1"), ("y", "2")])).await.expect("committed");
    let mut info = bed.snapshots.stat("c".into()).await.expect("found");
    assert_eq!(info.labels, labels(&[("x", "1"), ("y", "2")]));
    for (paths, sent, want) in [
        (Some(vec!["labels.x"]), labels(&[("x", "3"), ("z", "no")]), labels(&[("x", "3"), ("y", "2")])),
        (Some(vec!["labels.y"]), labels(&[]), labels(&[("x", "3")])),
        (Some(vec!["labels"]), labels(&[("new", "4")]), labels(&[("new", "4")])),
        (None, labels(&[("all", "5"), ("none", "")]), labels(&[("all", "5")])),
    ] {
        info.labels = sent;
        let paths = paths.map(|paths| paths.into_iter().map(str::to_owned).collect());
        let updated = bed.snapshots.update(info.clone(), paths.clone()).await.expect("updated");
        assert_eq!(updated.labels, want, "{paths:?}");
        assert_eq!(bed.snapshots.stat("c".into()).await.expect("found").labels, want);
    }
    let refused = bed.snapshots.update(info, Some(vec!["parent".to_owned()])).await;
    assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
}

#[tokio::test]
async fn a_list_is_filtered() {
    let bed = Bed::new();
    bed.remote("one", "").await;
    bed.remote("two", "chain-one").await;
    bed.prepare("container", "chain-two").await.expect("prepared");
    let names = |infos: Vec<Info>| infos.into_iter().map(|info| info.name).collect::<Vec<_>>();
    // What containerd asks after AlreadyExists.
    let asked = r#"labels."containerd.io/snapshot.ref"==chain-two,parent=="chain-one""#;
    assert_eq!(names(bed.list(&[asked]).await), ["chain-two"]);
    assert_eq!(names(bed.list(&["kind==active"]).await), ["container"]);
    assert_eq!(names(bed.list(&["kind==active", "name==chain-one"]).await), ["chain-one", "container"]);
    let wrong = bed.snapshots.list(vec!["name=x".to_owned()]).await.err();
    assert!(matches!(wrong, Some(Error::InvalidArgument(_))), "{wrong:?}");
}

#[tokio::test]
async fn one_of_many_gets_the_key() {
    let bed = Bed::new();
    let calls = (0..16).map(|_| bed.prepare("same", ""));
    let results = futures_util::future::join_all(calls).await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    let lost = results.iter().filter(|result| matches!(result, Err(Error::AlreadyExists(_)))).count();
    assert_eq!((won, lost), (1, 15), "{results:?}");
    assert_eq!(std::fs::read_dir(bed.dir.path().join("snapshots")).expect("directory").count(), 1);
}

/// A call, with names out of few so that they meet.
#[derive(Debug, Clone)]
enum Call {
    Prepare(u8, Option<u8>),
    View(u8, Option<u8>),
    Commit(u8, u8),
    Remove(u8),
    Mounts(u8),
}

fn call() -> impl Strategy<Value = Call> {
    let name = 0..6_u8;
    prop_oneof![
        (name.clone(), proptest::option::of(name.clone()))
            .prop_map(|(key, parent)| Call::Prepare(key, parent)),
        (name.clone(), proptest::option::of(name.clone())).prop_map(|(key, parent)| Call::View(key, parent)),
        (name.clone(), name.clone()).prop_map(|(name, key)| Call::Commit(name, key)),
        name.clone().prop_map(Call::Remove),
        name.prop_map(Call::Mounts),
    ]
}

/// What the rules say, in a map.
#[derive(Default)]
struct Model(BTreeMap<String, (Kind, String)>);

impl Model {
    fn create(&mut self, key: String, parent: String, kind: Kind) -> &'static str {
        match self.0.get(&parent) {
            None if !parent.is_empty() => return "not-found",
            Some((Kind::Active | Kind::View, _)) => return "invalid-argument",
            _ => {}
        }
        if self.0.contains_key(&key) {
            return "already-exists";
        }
        self.0.insert(key, (kind, parent));
        "ok"
    }

    fn commit(&mut self, name: String, key: &str) -> &'static str {
        let Some((kind, parent)) = self.0.get(key).cloned() else { return "not-found" };
        if self.0.contains_key(&name) {
            return "already-exists";
        }
        if kind != Kind::Active {
            return "failed-precondition";
        }
        self.0.remove(key);
        self.0.insert(name, (Kind::Committed, parent));
        "ok"
    }

    fn remove(&mut self, key: &str) -> &'static str {
        if !self.0.contains_key(key) {
            return "not-found";
        }
        if self.0.values().any(|(_, parent)| parent == key) {
            return "failed-precondition";
        }
        self.0.remove(key);
        "ok"
    }

    fn mounts(&self, key: &str) -> &'static str {
        match self.0.get(key) {
            None => "not-found",
            Some((Kind::Committed, _)) => "failed-precondition",
            Some(_) => "ok",
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_calls_do_what_the_rules_say(calls in proptest::collection::vec(call(), 1..40)) {
        let name = |number: u8| format!("name-{number}");
        let parent = |number: Option<u8>| number.map(name).unwrap_or_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let mut bed = Bed::new();
            let mut model = Model::default();
            for (step, call) in calls.into_iter().enumerate() {
                if step == 20 {
                    bed = bed.restart().await;
                }
                let snapshots = &bed.snapshots;
                let (got, want) = match call.clone() {
                    Call::Prepare(key, below) => {
                        let result = snapshots.prepare(name(key), parent(below), HashMap::new()).await;
                        (class(&result), model.create(name(key), parent(below), Kind::Active))
                    }
                    Call::View(key, below) => {
                        let result = snapshots.view(name(key), parent(below), HashMap::new()).await;
                        (class(&result), model.create(name(key), parent(below), Kind::View))
                    }
                    Call::Commit(to, key) => {
                        let result = snapshots.commit(name(to), name(key), HashMap::new()).await;
                        (class(&result), model.commit(name(to), &name(key)))
                    }
                    Call::Remove(key) => {
                        let result = snapshots.remove(name(key)).await;
                        (class(&result), model.remove(&name(key)))
                    }
                    Call::Mounts(key) => (class(&snapshots.mounts(name(key)).await), model.mounts(&name(key))),
                };
                prop_assert_eq!(got, want, "{:?} at step {}", call, step);
                let have: BTreeMap<String, (Kind, String)> =
                    bed.list(&[]).await.into_iter().map(|info| (info.name, (info.kind, info.parent))).collect();
                prop_assert_eq!(&have, &model.0, "after {:?} at step {}", call, step);
            }
            bed.settle().await;
            let dirs = std::fs::read_dir(bed.dir.path().join("snapshots")).expect("directory").count();
            prop_assert_eq!(dirs, model.0.len());
            Ok(())
        })?;
    }
}
