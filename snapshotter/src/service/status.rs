//! [`Error`] to gRPC status: one of its two mappings (the other, to errno, is the device's). The codes are what
//! containerd's error package turns back into its own kinds.

use tonic::{Code, Status};

use crate::Error;

/// The code that `error` is answered with.
pub fn code(error: &Error) -> Code {
    match error {
        Error::NotFound(_) => Code::NotFound,
        Error::AlreadyExists(_) => Code::AlreadyExists,
        Error::InvalidArgument(_) => Code::InvalidArgument,
        Error::FailedPrecondition(_) => Code::FailedPrecondition,
        Error::Unavailable(_) => Code::Unavailable,
        Error::Corrupt(_) => Code::DataLoss,
        Error::NoSpace(_) => Code::ResourceExhausted,
        Error::Internal(_) => Code::Internal,
    }
}

/// Name of a code, as a metric's label.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Cancelled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Class of an error, as the label of the metric `spandrel_errors_total` and of fallbacks.
pub fn class(error: &Error) -> &'static str {
    match error {
        Error::NotFound(_) => "not-found",
        Error::AlreadyExists(_) => "already-exists",
        Error::InvalidArgument(_) => "invalid-argument",
        Error::FailedPrecondition(_) => "failed-precondition",
        Error::Unavailable(_) => "unavailable",
        Error::Corrupt(_) => "corrupt",
        Error::NoSpace(_) => "no-space",
        Error::Internal(_) => "internal",
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(code(&error), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_the_code_that_containerd_branches_on() {
        for (error, want) in [
            (Error::NotFound("a".into()), Code::NotFound),
            (Error::AlreadyExists("a".into()), Code::AlreadyExists),
            (Error::InvalidArgument("a".into()), Code::InvalidArgument),
            (Error::FailedPrecondition("a".into()), Code::FailedPrecondition),
            (Error::Unavailable("a".into()), Code::Unavailable),
            (Error::Corrupt("a".into()), Code::DataLoss),
            (Error::NoSpace("a".into()), Code::ResourceExhausted),
            (Error::Internal("a".into()), Code::Internal),
        ] {
            let text = error.to_string();
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (want, text.as_str()));
        }
    }
}
