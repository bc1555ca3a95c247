//! The time as results have it.

use std::time::SystemTime;

/// Now, RFC 3339 in UTC and whole seconds.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
