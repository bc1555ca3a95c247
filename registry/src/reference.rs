//! Image references: `host[:port]/repository[:tag][@digest]`, read as Docker and containerd read them.
//!
//! The grammar is that of `github.com/distribution/reference`: no host means Docker Hub, and there a name without a
//! slash lies in `library/`. Which server a host is spoken to at is `endpoint`'s to say.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// Longest name of a repository, host excluded, in bytes: what distribution accepts.
const MAX_NAME: usize = 255;

/// Longest host with its port, in bytes: 253 for a DNS name, and the port.
const MAX_HOST: usize = 253 + 6;

/// Longest tag, in bytes: the OCI distribution specification's.
const MAX_TAG: usize = 128;

/// Longest text that is looked at: host, name, tag and a SHA-512 digest.
const MAX_TEXT: usize = MAX_HOST + MAX_NAME + MAX_TAG + 140;

/// The host of Docker Hub, as references name it.
pub(crate) const DOCKER_HUB: &str = "docker.io";

/// A repository on a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    /// Host and port as written, `docker.io` for Docker Hub.
    pub host: String,
    /// Name of the repository, e.g. `library/busybox`.
    pub name: String,
}

/// A reference to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it lies.
    pub repository: Repository,
    /// The tag, if one was written; `latest` where neither tag nor digest was.
    pub tag: Option<String>,
    /// The digest, if one was written.
    pub digest: Option<Digest>,
}

/// The text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {what}")]
pub struct ReferenceError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub what: &'static str,
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|what| ReferenceError { text: text.chars().take(MAX_TEXT).collect(), what })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > MAX_TEXT {
        return Err("it is too long");
    }
    if text.contains("://") {
        return Err("it has a scheme; leave out what is before the host (https:// and the like)");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse().map_err(
                |_| "behind the @ must be sha256: with 64, or sha512: with 128 lower-case hexadecimal digits",
            )?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (host, name) = split_host(path)?;
    check_host(&host)?;
    check_name(&name)?;
    let tag = match (tag, &digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference { repository: Repository { host, name }, tag, digest })
}

/// The first component is a host if it looks like one; otherwise all of it is a name on Docker Hub.
fn split_host(path: &str) -> Result<(String, String), &'static str> {
    let (host, name) = match path.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => (first, rest.to_owned()),
        _ => (DOCKER_HUB, path.to_owned()),
    };
    if host != DOCKER_HUB && host != "index.docker.io" {
        return Ok((host.to_owned(), name));
    }
    if name.len() == 64 && name.bytes().all(is_lower_hex) {
        return Err("64 hexadecimal digits are an image's ID, which a registry doesn't know");
    }
    let name = if name.contains('/') || name.is_empty() { name } else { format!("library/{name}") };
    Ok((DOCKER_HUB.to_owned(), name))
}

fn looks_like_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Checks a host with an optional port; what passes can be put into a URL as it is.
fn check_host(host: &str) -> Result<(), &'static str> {
    const BAD: &str = "the host must be a DNS name or an address, with an optional :port";
    if host.is_empty() || host.len() > MAX_HOST {
        return Err(BAD);
    }
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, behind) = rest.split_once(']').ok_or(BAD)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| BAD)?;
            ("", behind.strip_prefix(':').or(if behind.is_empty() { None } else { Some("") }))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with('+')) {
        return Err("the host's port must be a number from 0 to 65535");
    }
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.starts_with('[') || name.split('.').all(label_ok) { Ok(()) } else { Err(BAD) }
}

/// Checks a repository's name: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by slashes.
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("the repository's name is missing");
    }
    if name.len() > MAX_NAME {
        return Err("the repository's name has more than 255 characters");
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository's name must be in lower case");
    }
    if name.split('/').all(component_ok) {
        Ok(())
    } else {
        Err(
            "the repository's name must be lower-case letters and digits, joined by single . or /, one or two _, or any number of -",
        )
    }
}

fn component_ok(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separator = String::new();
    let mut before = false; // whether a letter or digit came already
    for byte in component.bytes() {
        if alphanumeric(byte) {
            let ok = separator.is_empty()
                || matches!(separator.as_str(), "." | "_" | "__")
                || separator.bytes().all(|b| b == b'-');
            if !ok || (!before && !separator.is_empty()) {
                return false;
            }
            separator.clear();
            before = true;
        } else if matches!(byte, b'.' | b'_' | b'-') {
            separator.push(char::from(byte));
        } else {
            return false;
        }
    }
    before && separator.is_empty()
}

/// Checks a tag: a letter, digit or underscore, then up to 127 of those, dots and hyphens.
fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let ok = tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
    if ok {
        Ok(())
    } else {
        Err("the tag must be 1 to 128 letters, digits, _, . and -, not beginning with . or -")
    }
}

impl Reference {
    /// What goes behind `manifests/` in a URL: the digest if there is one, else the tag.
    pub fn manifest_part(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            // Parsing always sets one of the two; a hand-made value gets what a user would mean.
            (None, None) => "latest",
        }
    }
}

impl Repository {
    /// A repository on a host, both checked as in a reference.
    ///
    /// # Errors
    /// When host or name is malformed.
    pub fn new(host: impl Into<String>, name: impl Into<String>) -> Result<Self, ReferenceError> {
        let new = Self { host: host.into(), name: name.into() };
        new.check().map_err(|what| ReferenceError { text: new.to_string(), what })?;
        Ok(new)
    }

    /// Whether both fields are well-formed, so that they can go into a URL: they are public, and anybody sets them.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        check_host(&self.host)?;
        check_name(&self.name)
    }
}

/// Whether `part` can go behind `manifests/`: a tag or a digest.
pub(crate) fn check_part(part: &str) -> Result<(), &'static str> {
    if part.contains(':') {
        part.parse::<Digest>().map(|_| ()).map_err(|_| "it is neither a tag nor a digest")
    } else {
        check_tag(part)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
