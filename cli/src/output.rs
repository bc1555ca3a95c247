//! What goes to standard output and standard error, and how it looks there.

use std::fs::{File, Permissions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::env;
use crate::error::Error;

/// Writes text to standard output.
///
/// # Errors
/// When nobody can take it.
pub fn print(text: &str) -> Result<(), Error> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output.
///
/// # Errors
/// When nobody can take them.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::Output)
}

/// Writes a value to standard output as JSON, indented by two spaces.
///
/// # Errors
/// When nobody can take it.
pub fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let compact = spandrel_soci::gojson::to_vec(value);
    let mut json = spandrel_soci::gojson::indent(&compact, "  ");
    json.push(b'\n');
    print_bytes(&json)
}

/// Writes a line to standard error, for people. That nobody takes it is no failure.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says on standard error why the tool failed.
pub fn failure(error: &Error) {
    let (name, end) = if colours() { ("\x1b[1;31mspandrel:\x1b[0m", "\x1b[2m") } else { ("spandrel:", "") };
    note(&format!("{name} {error}"));
    if let Some(hint) = error.hint() {
        let reset = if end.is_empty() { "" } else { "\x1b[0m" };
        note(&format!("{end}({hint}){reset}"));
    }
}

/// Whether standard error is a terminal that shows colours.
pub fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os(env::NO_COLOR).is_none_or(|value| value.is_empty())
}

/// Where a command's bytes go: standard output, or a file that is whole or not there.
pub struct Sink {
    path: Option<PathBuf>,
    to: To,
}

enum To {
    Stdout(io::Stdout),
    /// Takes the place of what is there when it is whole.
    Beside(tempfile::NamedTempFile),
    /// A device or a pipe, which nothing can take the place of.
    Device(File),
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sink {
    /// A sink for `path`, or standard output.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn new(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self { path: None, to: To::Stdout(io::stdout()) }) };
        let to = match std::fs::metadata(path) {
            Ok(meta) if !meta.is_file() => File::options().write(true).open(path).map(To::Device),
            _ => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                // As any other new file: the umask says who may read it.
                tempfile::Builder::new()
                    .permissions(Permissions::from_mode(0o666))
                    .tempfile_in(folder.unwrap_or(Path::new(".")))
                    .map(To::Beside)
            }
        };
        let to = to.map_err(|source| Error::File { what: "writing", path: path.to_owned(), source })?;
        Ok(Self { path: Some(path.to_owned()), to })
    }

    /// The error that writing here failed with.
    pub fn failed(&self, source: io::Error) -> Error {
        match &self.path {
            Some(path) => Error::File { what: "writing", path: path.clone(), source },
            None => Error::Output(source),
        }
    }

    /// Everything is written: the file gets its name.
    ///
    /// # Errors
    /// When it can't be written out.
    pub fn finish(mut self) -> Result<(), Error> {
        self.flush().map_err(|error| self.failed(error))?;
        let Self { path, to } = self;
        if let (To::Beside(file), Some(path)) = (to, path) {
            file.persist(&path).map_err(|error| Error::File {
                what: "writing",
                path,
                source: error.error,
            })?;
        }
        Ok(())
    }
}

impl io::Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.to {
            To::Stdout(out) => out.write(buf),
            To::Beside(file) => file.write(buf),
            To::Device(file) => file.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Stdout(out) => out.flush(),
            To::Beside(file) => file.flush(),
            To::Device(file) => file.flush(),
        }
    }
}
