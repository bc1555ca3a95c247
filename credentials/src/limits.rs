//! Bounds and default times, each with its reason.

use std::time::Duration;

/// Longest config.json that is read, in bytes. Large ones, with a hundred registries and their tokens, have some 100 KiB.
pub const MAX_CONFIG_LEN: u64 = 4 << 20;

/// Longest output of a helper, in bytes. ECR's tokens have 2 to 3 KiB, Google's up to 10.
pub const MAX_HELPER_OUTPUT: u64 = 256 << 10;

/// Longest piece of a helper's error that is passed on, in characters.
pub const MAX_HELPER_MESSAGE: usize = 200;

/// Usual time for a helper: those of clouds ask a service, which on a busy node can take seconds.
pub const HELPER_TIMEOUT: Duration = Duration::from_secs(20);
