//! Why something of an image can't be had, and how long that is believed before it is looked for again.

use std::time::Duration;

use spandrel_registry::ErrorKind;

use crate::Error;

/// How long it is believed that there is no such thing: an index is often pushed a minute or two after its image. Asking
/// again costs a request or two, once for each pull.
const ABSENT_MEMORY: Duration = Duration::from_secs(60);

/// How long a refusal is believed: somebody has to mend credentials or permissions meanwhile, and a registry may lock out
/// who is refused too often.
const REFUSED_MEMORY: Duration = Duration::from_secs(30);

/// How long a registry that doesn't answer, or asks for patience, is left alone: the kubelet tries a pull again after 10 s
/// at the earliest, and that one is to ask.
const UNREACHABLE_MEMORY: Duration = Duration::from_secs(10);

/// How long it is believed that something isn't what it should be: a digest doesn't change its content, so somebody has to
/// push another index or to mend a cache.
const CORRUPT_MEMORY: Duration = Duration::from_secs(300);

/// The kinds of failures, by what can be done about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// It isn't there.
    Absent,
    /// We may not have it.
    Refused,
    /// The registry doesn't answer.
    Unreachable,
    /// It isn't what it should be.
    Corrupt,
}

impl Class {
    /// Its name in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Corrupt => "corrupt",
        }
    }

    /// How long such a failure is believed.
    pub(crate) fn memory(self) -> Duration {
        match self {
            Self::Absent => ABSENT_MEMORY,
            Self::Refused => REFUSED_MEMORY,
            Self::Unreachable => UNREACHABLE_MEMORY,
            Self::Corrupt => CORRUPT_MEMORY,
        }
    }

    /// Of two, the one that is believed for a shorter time.
    pub(crate) fn sooner(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        one.into_iter().chain(other).min_by_key(|class| class.memory())
    }
}

/// Why something can't be had from a registry.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// Its kind.
    pub class: Class,
    /// What was tried and what went wrong; no secrets.
    pub text: String,
}

impl Failure {
    pub(crate) fn into_error(self) -> Error {
        match self.class {
            Class::Corrupt => Error::Corrupt(self.text),
            _ => Error::Unavailable(self.text),
        }
    }

    /// Whether it says nothing of the thing itself: the image isn't known then, and not an image without it.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.class, Class::Refused | Class::Unreachable)
    }
}

impl From<spandrel_soci::Error> for Failure {
    fn from(error: spandrel_soci::Error) -> Self {
        let class = match &error {
            spandrel_soci::Error::Registry(error) => match error.kind {
                ErrorKind::NotFound => Class::Absent,
                ErrorKind::Unauthorized => Class::Refused,
                ErrorKind::Corrupt => Class::Corrupt,
                _ => Class::Unreachable,
            },
            error if error.is_not_found() => Class::Absent,
            _ => Class::Corrupt,
        };
        Self { class, text: error.to_string() }
    }
}
