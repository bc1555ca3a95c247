//! What is started: images that the scripts in `benches/workloads` make, and what shows that a program is ready.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::layout::Layout;

/// Shares of an image, in percent of its bytes, that the density sweep reads.
pub const DENSITIES: [u32; 6] = [5, 20, 40, 60, 80, 100];

/// Orders in which it reads them.
pub const ORDERS: [&str; 2] = ["random", "tar"];

/// The name that stands for the whole sweep.
const DENSITY: &str = "density";

/// An image and how its container is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its name, with its variant: `python`, `density:20:random`.
    pub name: String,
    /// The script that makes the image.
    pub script: String,
    /// What a line of the program's output contains when it is ready.
    pub ready: String,
    /// Variables for the container.
    pub env: Vec<(String, String)>,
}

/// Where the scripts are.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads")
}

impl Workload {
    /// The workloads that these names stand for, in this order.
    ///
    /// # Errors
    /// See [`named`](Self::named).
    pub fn all_named(names: &[String]) -> Result<Vec<Self>> {
        let found = names.iter().map(|name| Self::named(name)).collect::<Result<Vec<_>>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The workloads that `name` stands for: itself, or every variant of the density sweep.
    ///
    /// # Errors
    /// When there is no such workload; the error lists those that there are.
    pub fn named(name: &str) -> Result<Vec<Self>> {
        let mut parts = name.split(':');
        let script = parts.next().unwrap_or_default();
        let variant: Vec<&str> = parts.collect();
        let file = scripts().join(format!("{script}.sh"));
        let header = std::fs::read_to_string(&file).ok().filter(|text| header(text, "ready").is_some());
        let Some(text) = header else {
            bail!("there is no workload {name:?}; there are: {}", Self::names()?.join(", "));
        };
        let ready = header_or_empty(&text, "ready");
        let env = header_or_empty(&text, "env");
        let env: Vec<_> = env
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let one = |name: String, more: Vec<(String, String)>| Self {
            name,
            script: script.to_owned(),
            ready: ready.clone(),
            env: env
                .iter()
                .filter(|(key, _)| !more.iter().any(|(other, _)| other == key))
                .cloned()
                .chain(more.clone())
                .collect(),
        };
        let density = |percent: &str, order: &str| {
            let env = [("DENSITY", percent), ("ORDER", order)].map(|(k, v)| (k.to_owned(), v.to_owned()));
            one(format!("{DENSITY}:{percent}:{order}"), env.to_vec())
        };
        match (script, variant.as_slice()) {
            (DENSITY, []) => Ok(ORDERS
                .iter()
                .flat_map(|order| DENSITIES.map(|percent| density(&percent.to_string(), order)))
                .collect()),
            (DENSITY, [percent, order])
                if percent.parse::<u32>().is_ok_and(|p| (1..=100).contains(&p)) && ORDERS.contains(order) =>
            {
                Ok(vec![density(percent, order)])
            }
            (_, []) => Ok(vec![one(script.to_owned(), Vec::new())]),
            _ => {
                bail!("{name:?}: variants are density:PERCENT:ORDER, with ORDER one of {}", ORDERS.join(", "))
            }
        }
    }

    /// The names of all workloads.
    ///
    /// # Errors
    /// When the folder of the scripts can't be read.
    pub fn names() -> Result<Vec<String>> {
        let dir = scripts();
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&dir).with_context(|| format!("can't read {}", dir.display()))? {
            let path = entry?.path();
            let is_one = path.extension().is_some_and(|extension| extension == "sh")
                && std::fs::read_to_string(&path).is_ok_and(|text| header(&text, "ready").is_some());
            if is_one && let Some(name) = path.file_stem() {
                names.push(name.to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The image, made if it isn't there yet: that may take minutes.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn image(&self) -> Result<Layout> {
        let script = scripts().join("build.sh");
        let output = Command::new(&script)
            .arg(&self.script)
            .stderr(std::process::Stdio::inherit())
            .output()
            .with_context(|| format!("can't run {}", script.display()))?;
        if !output.status.success() {
            bail!("the image of {} can't be made: {}", self.name, output.status);
        }
        let text = String::from_utf8(output.stdout).context("the path of the image")?;
        let path = text.lines().last().context("build.sh printed no path")?;
        Layout::open(Path::new(path))
    }
}

/// The value of a line `# NAME: VALUE` at the top of a script.
fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let comments = text.lines().take_while(|line| line.starts_with('#'));
    comments.filter_map(|line| line.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(": ")).next()
}

fn header_or_empty(text: &str, name: &str) -> String {
    header(text, name).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_ends_with_the_comments() {
        let text = "#!/bin/sh\n# about: it\n# ready: yes, ready\nset -e\n# env: A=b\n";
        assert_eq!(header(text, "ready"), Some("yes, ready"));
        assert_eq!(header(text, "env"), None);
    }

    #[test]
    fn every_script_is_a_workload_and_density_is_many() {
        for name in Workload::names().unwrap() {
            let workloads = Workload::named(&name).unwrap();
            assert_eq!(workloads.len(), if name == DENSITY { 12 } else { 1 });
            assert!(workloads.iter().all(|workload| !workload.ready.is_empty()));
        }
        let error = Workload::named("nothing").unwrap_err().to_string();
        assert!(error.contains("there are: "), "{error}");
        let one = Workload::named("density:20:tar").unwrap();
        assert_eq!(
            one[0].env,
            [("DENSITY", "20"), ("ORDER", "tar")].map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        for wrong in ["density:0:tar", "density:20:other", "density:20", "busybox:1"] {
            assert!(Workload::named(wrong).is_err(), "{wrong}");
        }
    }
}
