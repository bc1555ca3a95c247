//! What fixtures do in a benchmark when something goes wrong: it is one figure that is missing, not the end of the run.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow};

/// Does `work`. Fixtures panic where a test would fail; here a panic becomes an error.
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
