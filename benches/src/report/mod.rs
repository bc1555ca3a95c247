//! Results as a page with pictures, or as text: docs/benchmarks.md, and what `./dev bench` shows.
//!
//! Everything comes from result files; the same files give the same bytes. `load` and `merge` read them, `stats` and
//! `groups` put repeats together, `start`, `fs`, `index`, `node` and `provenance` are the sections, `draw` the pictures, `page`,
//! `table` and `units` how things are written. The prose about method is `method.md`.

mod draw;
mod fs;
mod groups;
mod index;
mod load;
mod merge;
mod node;
mod page;
mod provenance;
mod start;
mod stats;
mod systems;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod units;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use self::load::Results;
pub use self::load::Which;
use self::page::Page;

/// The page's name in the documentation's folder.
const PAGE: &str = "benchmarks.md";

/// The folder of its pictures, beside it.
const PICTURES: &str = "benchmarks";

const METHOD: &str = include_str!("method.md");

/// The tables of these result files (and folders of them), for a terminal.
///
/// # Errors
/// When files can't be read, or can't stand together.
pub fn text(results: &[PathBuf], which: Which) -> Result<String> {
    Ok(page(&load::load(results, which)?)?.text())
}

/// Writes docs/benchmarks.md and its pictures into the documentation's folder; returns what was written.
///
/// Pictures of an earlier report that this one doesn't have are removed.
///
/// # Errors
/// When files can't be read, can't stand together, or can't be written.
pub fn write(results: &[PathBuf], docs: &Path) -> Result<Vec<PathBuf>> {
    let page = page(&load::load(results, Which::All)?)?;
    let folder = docs.join(PICTURES);
    std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let entries = std::fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("can't read {}", folder.display()))?.path();
        // Only our own: somebody may have put another there.
        let ours = path.extension().is_some_and(|extension| extension == "svg")
            && std::fs::read_to_string(&path).is_ok_and(|text| text.contains(draw::MARK));
        if ours {
            std::fs::remove_file(&path).with_context(|| format!("can't remove {}", path.display()))?;
        }
    }
    let mut written = vec![docs.join(PAGE)];
    let mut files = vec![(docs.join(PAGE), page.markdown(PICTURES))];
    for picture in page.pictures {
        written.push(folder.join(&picture.name));
        files.push((folder.join(picture.name), picture.svg));
    }
    for (path, text) in files {
        std::fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(written)
}

fn page(results: &Results) -> Result<Page> {
    let mut page = Page::default();
    page.heading(1, "Benchmarks");
    page.background(METHOD);
    if let Some(causes) = &results.causes {
        page.background(causes);
    }
    provenance::write(&mut page, results);
    if let Some(run) = &results.start {
        start::write(&mut page, run)?;
    }
    start::memory(&mut page, results.start.as_ref(), results.node.as_ref())?;
    if let Some(run) = &results.fs {
        fs::write(&mut page, run);
    }
    if let Some(run) = &results.index {
        index::write(&mut page, run);
    }
    if let Some(run) = &results.node {
        node::write(&mut page, run);
    }
    Ok(page)
}
