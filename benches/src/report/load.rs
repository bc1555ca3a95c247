//! Finds and reads result files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

use super::merge::{merge, newest};
use crate::results::{Run, Value, file, fs, index, node, start};

/// Written by hand beside results: the causes of what was measured.
const CAUSES: &str = "causes.md";

/// All that a report is made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Results {
    /// Starts.
    pub start: Option<Run<start::Value>>,
    /// File system.
    pub fs: Option<Run<fs::Value>>,
    /// Index.
    pub index: Option<Run<index::Value>>,
    /// Scale on one node.
    pub node: Option<Run<node::Value>>,
    /// Markdown about the causes, where somebody wrote it.
    pub causes: Option<String>,
    /// Files whose values aren't here, and in what they differ from those that are.
    pub left_out: Vec<String>,
}

/// Which of the files are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All of them; it is an error when they can't be.
    All,
    /// Of each kind those that were measured like the newest.
    Newest,
}

/// Reads files, and of folders what `*.json` is in them.
///
/// # Errors
/// When a file can't be read or understood, when there is none, or when runs of one kind can't be put together.
pub fn load(paths: &[PathBuf], which: Which) -> Result<Results> {
    let (mut files, mut causes) = (Vec::new(), None);
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| format!("can't read {}", path.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("can't read {}", path.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                files.push(path);
            }
        }
        let written = path.join(CAUSES);
        if written.exists() {
            let text = std::fs::read_to_string(&written);
            causes = Some(text.with_context(|| format!("can't read {}", written.display()))?);
        }
    }
    // The order of folders is chance; the report's bytes must not depend on it.
    files.sort();
    let mut kinds: Vec<(String, PathBuf)> = Vec::new();
    for path in files {
        kinds.push((kind(&path)?, path));
    }
    if kinds.is_empty() {
        bail!("there are no results in {paths:?}: run ./dev bench, or name the files of a run");
    }
    let mut left_out = Vec::new();
    Ok(Results {
        start: read::<start::Value>(&kinds, "start", which, &mut left_out)?,
        fs: read::<fs::Value>(&kinds, "fs", which, &mut left_out)?,
        index: read::<index::Value>(&kinds, "index", which, &mut left_out)?,
        node: read::<node::Value>(&kinds, "node", which, &mut left_out)?,
        causes,
        left_out,
    })
}

fn read<V: DeserializeOwned + Value + Clone + PartialEq>(
    kinds: &[(String, PathBuf)],
    kind: &str,
    which: Which,
    left_out: &mut Vec<String>,
) -> Result<Option<Run<V>>> {
    let mut runs: Vec<(String, Run<V>)> = Vec::new();
    for (_, path) in kinds.iter().filter(|(has, _)| has == kind) {
        runs.push((path.display().to_string(), file::read(path, kind)?));
    }
    if which == Which::All {
        return merge(runs.into_iter().map(|(_, run)| run));
    }
    let (runs, others) = newest(runs);
    left_out.extend(others);
    merge(runs)
}

/// Which benchmark left a file.
fn kind(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let head: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    match head["kind"].as_str() {
        Some(kind @ ("start" | "fs" | "index" | "node")) => Ok(kind.to_owned()),
        Some(kind) => bail!("{} holds results of `{kind}`, which this program doesn't know", path.display()),
        None => bail!("{} doesn't say which benchmark left it: no result file", path.display()),
    }
}
