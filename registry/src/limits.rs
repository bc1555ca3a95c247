//! Every bound on what a registry may answer and on what we keep of it, in one place, each with its reason.

use std::time::Duration;

/// Longest manifest or index, in bytes. Registries themselves refuse more than 4 MiB (OCI distribution 1.1).
pub const MAX_MANIFEST_LEN: u64 = 4 << 20;

/// Longest blob that [`crate::Client::blob`] holds in memory: as long as the longest zTOC that we read.
pub const MAX_BLOB_LEN: u64 = 1 << 30;

/// Most bytes passed over to reach a range when a registry ignores `Range` and answers with the whole blob. More would
/// cost every small read a download; such a layer is better fetched whole.
pub const MAX_SKIPPED: u64 = 64 << 20;

/// Longest answer of a token service, in bytes. Real ones have 1 to 8 KiB.
pub const MAX_TOKEN_RESPONSE: u64 = 256 << 10;

/// How much of an error's body is read, in bytes: enough for the registry's message.
pub const MAX_ERROR_BODY: u64 = 16 << 10;

/// Longest piece of a registry's own message that goes into an error, in characters.
pub const MAX_MESSAGE: usize = 200;

/// Longest `WWW-Authenticate` or `Link` value that is read, in bytes. Real ones have some hundred.
pub const MAX_HEADER: usize = 16 << 10;

/// Most challenges in one answer. Real registries offer one or two.
pub const MAX_CHALLENGES: usize = 16;

/// Most parameters of one challenge. Real ones have up to five (realm, service, scope, error, charset).
pub const MAX_PARAMS: usize = 32;

/// Longest chain of redirects from a blob's URL to its bytes. Registry, storage, content network: two.
pub const MAX_REDIRECTS: usize = 4;

/// Most tokens kept at once, one for each host and scope. A node pulls from some hundred repositories.
pub const MAX_GRANTS: usize = 4096;

/// Most blob URLs kept at once. A node has some thousand layers.
pub const MAX_RESOLVED: usize = 16384;

/// Most pages of referrers that are followed; a page has 100 or more entries on every registry seen.
pub const MAX_REFERRER_PAGES: usize = 64;

/// Most referrers that are kept. An image has one for each index, signature and bill of materials.
pub const MAX_REFERRERS: usize = 10_000;

/// Most manifests that are fetched to learn a referrer's type where its descriptor doesn't say.
pub const MAX_UNTYPED: usize = 16;

/// A token is renewed this long before it ends, so that it doesn't end while a request is under way.
pub const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// Life of a token whose service doesn't say: 60 s, as the token specification sets.
pub const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// Longest time that user name and password (or that there are none) are kept before their source is asked again: sources
/// that run a program are slow, and a changed password should be noticed.
pub const BASIC_LIFE: Duration = Duration::from_secs(300);

/// A signed URL is given up this long before it ends, for the request and for clocks that differ.
pub const URL_MARGIN: Duration = Duration::from_secs(30);

/// Life of a redirect's target that doesn't say when it ends.
pub const URL_LIFE: Duration = Duration::from_secs(300);

/// Longest time that a redirect's target is kept, whatever it says: storage moves.
pub const MAX_URL_LIFE: Duration = Duration::from_secs(6 * 3600);

/// How long a mirror that failed is passed over: long enough to spare every request its timeout, short enough to come
/// back soon.
pub const MIRROR_REST: Duration = Duration::from_secs(30);

/// Longest that a server is left alone since it asked one request for patience (`Retry-After`): what it wants of others may
/// have changed by then.
pub const MAX_PATIENCE: Duration = Duration::from_secs(60);

/// A body that goes on by at least this many bytes earns its retries and its deadline anew; by less it could be drawn
/// out for ever.
pub const MIN_PROGRESS: u64 = 64 << 10;

/// Idle connections kept for each host. A node that fills layers uses some dozen at once.
pub const MAX_IDLE_PER_HOST: usize = 64;

/// How long an idle connection is kept. S3 closes them after some 20 s, registries after 60 s and more.
pub const IDLE_LIFE: Duration = Duration::from_secs(60);

/// How long the rest of an answer that nobody wants is waited for. It comes with its head; a new connection takes some
/// round trips, and costs less than waiting longer.
pub const DRAIN_PATIENCE: Duration = Duration::from_millis(250);

/// How long those who want to know where blobs lie wait until a server has shown whether it redirects: a pull's first
/// blob is asked for within some round trips. Nobody waits for them.
pub const HABIT_PATIENCE: Duration = Duration::from_secs(10);

/// Most blobs whose place is asked for at a time: all layers of nearly every image, so that an image of a hundred is found
/// in as many round trips as one of one. They are answered without a body; ECR allows some thousand a second.
pub const MAX_PLACES_AT_ONCE: usize = 128;

/// Slowest upload that is waited for, in bytes a second; it sets the time allowed for a body on top of the usual.
pub const MIN_UPLOAD_RATE: u64 = 64 << 10;

/// Length of a piece where a registry doesn't take a blob in one request.
pub const UPLOAD_CHUNK: usize = 8 << 20;

/// How often the fallback tag's index is written again after somebody else wrote it in between.
pub const MAX_INDEX_TRIES: u32 = 8;
