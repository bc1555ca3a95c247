//! What every benchmark program has around its measurements: the run that is begun or continued, turns that are fair, what
//! comes of a measurement, and how the program ends. `options` is what it is told.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::options::{self, Options};
use crate::progress::Progress;
use crate::results::file::RunFile;
use crate::results::{Absent, Machine, Outcome, Plan, Value};
use crate::system::Systems;
use crate::{clock, interrupt, say};

/// Exit code of a program that was interrupted: what shells make of SIGINT.
const INTERRUPTED: u8 = 130;

/// Runs a benchmark, which says whether it came to its end, and says how it ended.
pub fn run(name: &str, benchmark: impl FnOnce() -> Result<bool>) -> ExitCode {
    match interrupt::listen().and_then(|()| benchmark()) {
        Ok(true) => ExitCode::SUCCESS,
        Err(error) if !interrupt::told() => {
            say(&format!("{name}: {error:#}"));
            ExitCode::FAILURE
        }
        // The terminal interrupts the programs that it had started too, and that is an error for whoever waits for them.
        Ok(false) | Err(_) => {
            say("interrupted; the same command continues");
            ExitCode::from(INTERRUPTED)
        }
    }
}

/// Begins the run of this plan, or continues one: its file, and how far it is of `cells` values.
///
/// # Errors
/// When the folder of results can't be used, or an unfinished run is from a machine of another kind.
pub fn open<V: Value + Serialize + DeserializeOwned>(
    options: &Options,
    kind: &str,
    plan: Plan,
    (systems, absent): (&Systems, Vec<Absent>),
    cells: usize,
) -> Result<(RunFile<V>, Progress)> {
    let machine = Machine::this(&std::env::temp_dir(), options::versions(systems));
    let mut file = RunFile::open(&options.results(), kind, plan, machine, &clock::now(), cells)?;
    file.set_absent(absent);
    say(&format!("results: {}", file.path().display()));
    let progress = Progress::new(cells, file.run().values.len());
    Ok((file, progress))
}

/// All of them, each time another one first: what changes on the machine meanwhile meets all alike.
pub fn in_turns<T>(items: &[T], turn: u32) -> impl Iterator<Item = &T> {
    let first = usize::try_from(turn).unwrap_or_default() % items.len().max(1);
    items.iter().cycle().skip(first).take(items.len())
}

/// Does `work`. Fixtures panic where a test would fail; here a panic becomes an error: it is one figure that is missing, not
/// the end of the run.
///
/// # Errors
/// Those of `work`, and its panics.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(anyhow!(text.unwrap_or_else(|| "a panic without words".to_owned())))
    })
}

/// What came of a measurement, which is `None` where it was interrupted; so is this, and where it failed of that.
pub fn outcome<T>(measured: Result<Option<T>>) -> Option<Outcome<T>> {
    match measured {
        Ok(measured) => measured.map(Outcome::Measured),
        Err(_) if interrupt::told() => None,
        Err(error) => Some(Outcome::Failed(format!("{error:#}"))),
    }
}

/// An outcome in a line of progress.
pub fn tell<T>(outcome: &Outcome<T>, measured: impl FnOnce(&T) -> String) -> String {
    match outcome {
        Outcome::Measured(value) => measured(value),
        Outcome::Failed(why) => format!("FAILED: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_first_in_its_turn() {
        let turn = |turn| in_turns(&['a', 'b', 'c'], turn).collect::<String>();
        assert_eq!([turn(0), turn(1), turn(2), turn(3)], ["abc", "bca", "cab", "abc"]);
        assert_eq!(in_turns(&[0; 0], 1).count(), 0);
    }

    #[test]
    fn panics_and_errors_are_figures_that_are_missing() {
        let failed = |work: fn() -> Result<Option<u8>>| outcome(guarded(work));
        assert_eq!(failed(|| Ok(Some(1))), Some(Outcome::Measured(1)));
        assert_eq!(failed(|| Ok(None)), None);
        assert_eq!(failed(|| Err(anyhow!("a").context("b"))), Some(Outcome::Failed("b: a".to_owned())));
        assert_eq!(failed(|| panic!("with {}", "words")), Some(Outcome::Failed("with words".to_owned())));
    }
}
