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

/// Life of an ECR token that doesn't say when it ends: what ECR's documentation says of all of them.
pub const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3600);

/// A token isn't used any more this long before it ends: clocks differ, and a request takes its time to get there.
pub const TOKEN_MARGIN: Duration = Duration::from_secs(30);

/// A token is renewed at this share of its life: of twelve hours four are left for an outage.
pub const RENEWAL_SHARE: f64 = 2.0 / 3.0;

/// The share is up to this much more or less, so that nodes that started together don't ask together.
pub const RENEWAL_JITTER: f64 = 1.0 / 15.0;

/// Wait after a renewal that failed, doubled each time: AWS may be back soon, and hours are left.
pub const MIN_RENEWAL_WAIT: Duration = Duration::from_secs(30);

/// Longest wait between renewals that fail: several more fit into what is left of a token's life.
pub const MAX_RENEWAL_WAIT: Duration = Duration::from_secs(900);

/// How long a failure to get a token is the answer to whoever asks for it: many readers don't ask a broken service each,
/// and who has mended it doesn't wait long.
pub const FAILURE_REST: Duration = Duration::from_secs(5);

/// Tokens refused before their time that are replaced at once…
pub const REFUSALS_AT_ONCE: u32 = 5;

/// …and how often after those. ECR allows an account some hundred tokens a second; a thousand nodes whose role lacks a
/// permission then ask for 33.
pub const REFUSAL_EVERY: Duration = Duration::from_secs(30);

/// Most tokens that are kept. A node has images from a handful of ECR registries.
pub const MAX_TOKENS: usize = 256;

/// Most hosts of which it is remembered which source served them.
pub const MAX_HOSTS: usize = 1024;

/// Longest for a connection to the instance's metadata service, and for its answer: it is on the same machine, or nowhere,
/// and then a laptop must not wait.
pub const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest for all that is asked of the metadata service for one set of credentials: three short requests.
pub const METADATA_DEADLINE: Duration = Duration::from_secs(4);

/// Longest for AWS credentials from whichever source: STS in another region may take a second or two.
pub const IDENTITY_TIMEOUT: Duration = Duration::from_secs(8);

/// Longest for one request to ECR's API, with the AWS credentials that it needs. It answers within a tenth of a second.
pub const API_TRY_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest for a token, with credentials and all tries: shorter than a pull waits for an image's index.
pub const API_TIMEOUT: Duration = Duration::from_secs(15);

/// Most requests to ECR's API for one token.
pub const API_TRIES: u32 = 3;

/// Longest piece of what AWS says that is passed on, in characters.
pub const MAX_AWS_MESSAGE: usize = 300;
