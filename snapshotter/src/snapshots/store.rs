//! The records of all snapshots, in one redb file, and the rules by which they change: what may be created on what,
//! what a commit does, what may be removed. The rules are those of containerd's metadata store, with its errors, since
//! containerd's own code branches on them.
//!
//! Every change is one durable transaction; writers queue, readers don't. Directories and mounts are the callers', who may
//! do their part inside the transaction (see [`Store::create`]), so that record and directory come together.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::time::SystemTime;

use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::database::{Database, failed as database};
use super::record::{Record, Remote, stored_labels};
use crate::Error;
use crate::layer::LayerKey;
use crate::service::{Info, Kind, Usage};

/// Version of what is below. A release that changes the meaning of a table counts it up and converts.
const VERSION: u64 = 1;

/// Longest key or name, in bytes: containerd's are about 200.
const MAX_KEY_LEN: usize = 4096;

/// Deepest chain of parents. Overlayfs takes 500 lower directories; a longer chain in the database is a broken one.
const MAX_DEPTH: usize = 4096;

/// Numbers by name: the version, and the last snapshot number given.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// [`Record`]s by key.
const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");
/// (number of a parent, number of a child).
const CHILDREN: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("children");
/// (layer, number of a remote snapshot of it).
const LAYERS: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("layers");

/// A snapshot below another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// Its name.
    pub key: String,
    /// Names its directory.
    pub number: u64,
    /// Its layer, if it is remote.
    pub remote: Option<Remote>,
}

/// A snapshot and what it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The snapshot.
    pub record: Record,
    /// Parents, the direct one first.
    pub ancestors: Vec<Ancestor>,
}

/// What is to be created.
#[derive(Debug, Clone)]
pub struct New {
    /// Key, or name of a remote snapshot.
    pub key: String,
    /// Name of the parent, empty for none.
    pub parent: String,
    /// Active, view, or committed for a remote one.
    pub kind: Kind,
    /// Labels.
    pub labels: HashMap<String, String>,
    /// Of a remote snapshot: its layer.
    pub remote: Option<Remote>,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The snapshot, as it was, with what it stood on.
    pub chain: Chain,
    /// The layer that no snapshot uses any more.
    pub unused: Option<LayerKey>,
}

/// Where time comes from.
pub type Clock = fn() -> SystemTime;

/// The records.
pub struct Store {
    pub(super) db: Database,
    clock: Clock,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

fn check_key(what: &str, key: &str) -> Result<(), Error> {
    match key.len() {
        0 => Err(Error::InvalidArgument(format!("{what} is empty"))),
        len if len > MAX_KEY_LEN => {
            Err(Error::InvalidArgument(format!("{what} has {len} bytes, more than {MAX_KEY_LEN}")))
        }
        _ => Ok(()),
    }
}

fn not_found(key: &str) -> Error {
    Error::NotFound(format!("snapshot {key}"))
}

fn read(table: &impl ReadableTable<&'static str, &'static [u8]>, key: &str) -> Result<Record, Error> {
    let found = table.get(key).map_err(database)?.ok_or_else(|| not_found(key))?;
    Record::decode(key, found.value())
}

fn ancestors(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    record: &Record,
) -> Result<Vec<Ancestor>, Error> {
    let mut chain: Vec<Ancestor> = Vec::new();
    let mut next = record.parent.clone();
    while !next.is_empty() {
        if chain.len() == MAX_DEPTH {
            return Err(Error::Internal(format!("snapshot {next} has more than {MAX_DEPTH} ancestors")));
        }
        let above = read(table, &next)?;
        chain.push(Ancestor { key: next, number: above.number, remote: above.remote });
        next = above.parent;
    }
    Ok(chain)
}

impl Store {
    /// Opens the database at `path`, or makes it.
    ///
    /// # Errors
    /// When another process has it open, when it was written by a newer release, or can't be read.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, Error> {
        let database_file = Database::open(path)?;
        let db = database_file.get()?;
        // Nothing is written where nothing has to be: the disk may be full.
        if Self::version(&db)? == Some(VERSION) {
            drop(db);
            return Ok(Self { db: database_file, clock });
        }
        let write = db.begin_write().map_err(database)?;
        {
            let mut meta = write.open_table(META).map_err(database)?;
            let version = meta.get("version").map_err(database)?.map(|found| found.value());
            match version {
                None => drop(meta.insert("version", VERSION).map_err(database)?),
                Some(VERSION) => {}
                Some(newer) => {
                    return Err(Error::FailedPrecondition(format!(
                        "{} has version {newer}, this release knows {VERSION}: install the release that wrote it, or \
                         remove all images and then this file",
                        path.display()
                    )));
                }
            }
            // So that readers find them.
            write.open_table(SNAPSHOTS).map_err(database)?;
            write.open_table(CHILDREN).map_err(database)?;
            write.open_table(LAYERS).map_err(database)?;
        }
        write.commit().map_err(database)?;
        drop(db);
        Ok(Self { db: database_file, clock })
    }

    fn version(db: &redb::Database) -> Result<Option<u64>, Error> {
        match db.begin_read().map_err(database)?.open_table(META) {
            Ok(meta) => Ok(meta.get("version").map_err(database)?.map(|found| found.value())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(database(error)),
        }
    }

    /// The record of `key`.
    pub fn get(&self, key: &str) -> Result<Record, Error> {
        let db = self.db.get()?;
        let table = db.begin_read().map_err(database)?.open_table(SNAPSHOTS).map_err(database)?;
        read(&table, key)
    }

    /// The record of `key` and what it stands on.
    pub fn chain(&self, key: &str) -> Result<Chain, Error> {
        let db = self.db.get()?;
        let table = db.begin_read().map_err(database)?.open_table(SNAPSHOTS).map_err(database)?;
        let record = read(&table, key)?;
        let ancestors = ancestors(&table, &record)?;
        Ok(Chain { record, ancestors })
    }

    /// What a snapshot on `parent` would stand on; the same checks as [`Store::create`] makes.
    pub fn below(&self, parent: &str) -> Result<Vec<Ancestor>, Error> {
        if parent.is_empty() {
            return Ok(Vec::new());
        }
        let db = self.db.get()?;
        let table = db.begin_read().map_err(database)?.open_table(SNAPSHOTS).map_err(database)?;
        let record = parent_record(&table, parent)?;
        let mut chain =
            vec![Ancestor { key: parent.to_owned(), number: record.number, remote: record.remote.clone() }];
        chain.extend(ancestors(&table, &record)?);
        Ok(chain)
    }

    /// What is known of every snapshot that `wanted` picks, ordered by name.
    pub fn list(&self, wanted: impl Fn(&Info) -> bool) -> Result<Vec<Info>, Error> {
        let mut infos = Vec::new();
        self.each(|key, record| {
            let info = record.info(key);
            if wanted(&info) {
                infos.push(info);
            }
        })?;
        Ok(infos)
    }

    /// Calls `seen` for every snapshot, ordered by name.
    pub fn each(&self, mut seen: impl FnMut(&str, Record)) -> Result<(), Error> {
        let db = self.db.get()?;
        let table = db.begin_read().map_err(database)?.open_table(SNAPSHOTS).map_err(database)?;
        for entry in table.iter().map_err(database)? {
            let (key, bytes) = entry.map_err(database)?;
            seen(key.value(), Record::decode(key.value(), bytes.value())?);
        }
        Ok(())
    }

    /// Every layer that a snapshot uses.
    pub fn layers(&self) -> Result<Vec<LayerKey>, Error> {
        let db = self.db.get()?;
        let table = db.begin_read().map_err(database)?.open_table(LAYERS).map_err(database)?;
        let mut layers = BTreeSet::new();
        for entry in table.iter().map_err(database)? {
            layers.insert(LayerKey(entry.map_err(database)?.0.value().0.to_owned()));
        }
        Ok(layers.into_iter().collect())
    }

    /// The lowest number of those snapshots that use `layer`.
    pub fn first_user(&self, layer: &LayerKey) -> Result<Option<u64>, Error> {
        let db = self.db.get()?;
        let table = db.begin_read().map_err(database)?.open_table(LAYERS).map_err(database)?;
        let range = (layer.0.as_str(), 0)..=(layer.0.as_str(), u64::MAX);
        let first = table.range(range).map_err(database)?.next();
        Ok(first.transpose().map_err(database)?.map(|(key, _)| key.value().1))
    }

    /// Whether a snapshot uses `layer`.
    pub fn uses(&self, layer: &LayerKey) -> Result<bool, Error> {
        let db = self.db.get()?;
        let table = db.begin_read().map_err(database)?.open_table(LAYERS).map_err(database)?;
        let range = (layer.0.as_str(), 0)..=(layer.0.as_str(), u64::MAX);
        Ok(table.range(range).map_err(database)?.next().is_some())
    }

    /// Creates a snapshot. `place` is called inside the transaction with the number and the parents, to put its directory
    /// in place; where it fails there is no snapshot.
    ///
    /// # Errors
    /// The parent is missing or not committed, the key is taken, or what `place` said.
    pub fn create(
        &self,
        new: New,
        place: impl FnOnce(u64, &[Ancestor]) -> Result<(), Error>,
    ) -> Result<Chain, Error> {
        check_key("the snapshot's key", &new.key)?;
        let db = self.db.get()?;
        let write = db.begin_write().map_err(database)?;
        let chain = {
            let mut snapshots = write.open_table(SNAPSHOTS).map_err(database)?;
            let mut meta = write.open_table(META).map_err(database)?;
            let parent = match new.parent.as_str() {
                "" => None,
                parent => Some(parent_record(&snapshots, parent)?.number),
            };
            if snapshots.get(new.key.as_str()).map_err(database)?.is_some() {
                return Err(Error::AlreadyExists(format!("snapshot {}", new.key)));
            }
            let last = meta.get("last_number").map_err(database)?.map_or(0, |found| found.value());
            let number = last.checked_add(1).ok_or_else(|| Error::Internal("no number is left".into()))?;
            meta.insert("last_number", number).map_err(database)?;
            let now = (self.clock)();
            let record = Record {
                number,
                parent: new.parent,
                kind: new.kind,
                labels: stored_labels(new.labels),
                created: now,
                updated: now,
                usage: Usage::default(),
                remote: new.remote,
            };
            let ancestors = ancestors(&snapshots, &record)?;
            snapshots.insert(new.key.as_str(), record.encode()?.as_slice()).map_err(database)?;
            if let Some(parent) = parent {
                let mut children = write.open_table(CHILDREN).map_err(database)?;
                children.insert((parent, number), ()).map_err(database)?;
            }
            if let Some(remote) = &record.remote {
                let mut layers = write.open_table(LAYERS).map_err(database)?;
                layers.insert((remote.layer.0.as_str(), number), ()).map_err(database)?;
            }
            place(number, &ancestors)?;
            Chain { record, ancestors }
        };
        write.commit().map_err(database)?;
        Ok(chain)
    }

    /// Turns the active snapshot `key` into the committed one `name`.
    ///
    /// # Errors
    /// The name is taken, the key isn't there or isn't active.
    pub fn commit(
        &self,
        name: &str,
        key: &str,
        labels: HashMap<String, String>,
        usage: Usage,
    ) -> Result<Record, Error> {
        check_key("the committed snapshot's name", name)?;
        let db = self.db.get()?;
        let write = db.begin_write().map_err(database)?;
        let record = {
            let mut snapshots = write.open_table(SNAPSHOTS).map_err(database)?;
            if snapshots.get(name).map_err(database)?.is_some() {
                return Err(Error::AlreadyExists(format!("committed snapshot {name}")));
            }
            let mut record = read(&snapshots, key)?;
            if record.kind != Kind::Active {
                return Err(Error::FailedPrecondition(format!("snapshot {key} is not active")));
            }
            record.kind = Kind::Committed;
            record.created = (self.clock)();
            record.updated = record.created;
            record.labels = stored_labels(labels);
            record.usage = usage;
            snapshots.remove(key).map_err(database)?;
            snapshots.insert(name, record.encode()?.as_slice()).map_err(database)?;
            record
        };
        write.commit().map_err(database)?;
        Ok(record)
    }

    /// Removes the snapshot `key`.
    ///
    /// # Errors
    /// It isn't there, or others are built on it.
    pub fn remove(&self, key: &str) -> Result<Removed, Error> {
        let db = self.db.get()?;
        let write = db.begin_write().map_err(database)?;
        let removed = {
            let mut snapshots = write.open_table(SNAPSHOTS).map_err(database)?;
            let mut children = write.open_table(CHILDREN).map_err(database)?;
            let mut layers = write.open_table(LAYERS).map_err(database)?;
            let record = read(&snapshots, key)?;
            let number = record.number;
            if children.range((number, 0)..=(number, u64::MAX)).map_err(database)?.next().is_some() {
                return Err(Error::FailedPrecondition(format!("cannot remove snapshot {key} with child")));
            }
            let ancestors = ancestors(&snapshots, &record)?;
            if let Some(parent) = ancestors.first() {
                children.remove((parent.number, number)).map_err(database)?;
            }
            let mut unused = None;
            if let Some(Remote { layer, .. }) = &record.remote {
                let name = layer.0.as_str();
                layers.remove((name, number)).map_err(database)?;
                if layers.range((name, 0)..=(name, u64::MAX)).map_err(database)?.next().is_none() {
                    unused = Some(layer.clone());
                }
            }
            snapshots.remove(key).map_err(database)?;
            Removed { chain: Chain { record, ancestors }, unused }
        };
        write.commit().map_err(database)?;
        Ok(removed)
    }

    /// Sets labels of `key`: all of them, or those that `paths` names (`labels`, `labels.NAME`).
    ///
    /// # Errors
    /// It isn't there, or a path names what can't be changed.
    pub fn update(
        &self,
        key: &str,
        labels: HashMap<String, String>,
        paths: Option<&[String]>,
    ) -> Result<Record, Error> {
        self.change(key, |record| {
            record.updated = (self.clock)();
            let Some(paths) = paths else {
                record.labels = stored_labels(labels);
                return Ok(());
            };
            for path in paths {
                if let Some(name) = path.strip_prefix("labels.") {
                    match labels.get(name).filter(|value| !value.is_empty()) {
                        Some(value) => record.labels.insert(name.to_owned(), value.clone()),
                        None => record.labels.remove(name),
                    };
                } else if path == "labels" {
                    record.labels = stored_labels(labels.clone());
                } else {
                    return Err(Error::InvalidArgument(format!(
                        "cannot update field {path:?} of snapshot {key}: only labels can be changed"
                    )));
                }
            }
            Ok(())
        })
        .map(|(record, _)| record)
    }

    /// The layer of the remote snapshot `key` (number `number`: another may have got the key since) is `layer` and ready.
    /// Returns the layer that it had before, if that is another one and now without use.
    pub fn settle(&self, key: &str, number: u64, layer: &LayerKey) -> Result<Option<LayerKey>, Error> {
        let mut before = None;
        let (_, unused) = self.change(key, |record| {
            let remote = record.remote.as_mut().filter(|_| record.number == number);
            let remote = remote.ok_or_else(|| not_found(key))?;
            remote.pending = false;
            if remote.layer != *layer {
                before = Some(std::mem::replace(&mut remote.layer, layer.clone()));
            }
            Ok(())
        })?;
        Ok(before.filter(|_| unused))
    }

    /// Changes a record; says whether its former layer, if it got another, has no user left.
    fn change(
        &self,
        key: &str,
        change: impl FnOnce(&mut Record) -> Result<(), Error>,
    ) -> Result<(Record, bool), Error> {
        let db = self.db.get()?;
        let write = db.begin_write().map_err(database)?;
        let mut unused = false;
        let record = {
            let mut snapshots = write.open_table(SNAPSHOTS).map_err(database)?;
            let before = read(&snapshots, key)?;
            let mut record = before.clone();
            change(&mut record)?;
            snapshots.insert(key, record.encode()?.as_slice()).map_err(database)?;
            if let (Some(old), Some(new)) = (&before.remote, &record.remote)
                && old.layer != new.layer
            {
                let mut layers = write.open_table(LAYERS).map_err(database)?;
                let name = old.layer.0.as_str();
                layers.remove((name, record.number)).map_err(database)?;
                layers.insert((new.layer.0.as_str(), record.number), ()).map_err(database)?;
                unused = layers.range((name, 0)..=(name, u64::MAX)).map_err(database)?.next().is_none();
            }
            record
        };
        write.commit().map_err(database)?;
        Ok((record, unused))
    }

    /// Calls `look` with the numbers of all snapshots while no other call can create one.
    pub fn exclusively<T>(&self, look: impl FnOnce(&HashSet<u64>) -> T) -> Result<T, Error> {
        let db = self.db.get()?;
        let write = db.begin_write().map_err(database)?;
        let mut numbers = HashSet::new();
        {
            let snapshots = write.open_table(SNAPSHOTS).map_err(database)?;
            for entry in snapshots.iter().map_err(database)? {
                let (key, bytes) = entry.map_err(database)?;
                numbers.insert(Record::decode(key.value(), bytes.value())?.number);
            }
        }
        let result = look(&numbers);
        write.abort().map_err(database)?;
        Ok(result)
    }
}

/// The record of `parent`, which must be committed.
fn parent_record(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    parent: &str,
) -> Result<Record, Error> {
    let record = match read(table, parent) {
        Err(Error::NotFound(_)) => return Err(Error::NotFound(format!("parent snapshot {parent}"))),
        record => record?,
    };
    if record.kind == Kind::Committed {
        Ok(record)
    } else {
        Err(Error::InvalidArgument(format!("parent {parent} is not a committed snapshot")))
    }
}
