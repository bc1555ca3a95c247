//! What daemon and helper say to each other: requests and replies as JSON, each behind its length (32 bits, little
//! endian). Replies come in any order; the number says which request they answer.

use std::io::{self, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest message in bytes. The longest real one is a mount of some hundred layers by paths of a few hundred bytes.
pub(super) const MAX_MESSAGE: u32 = 1 << 20;

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub id: u64,
    pub op: Op,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Op {
    /// Mount the EROFS image `table`, whose data lie in the file `device`, at the directory `target`.
    Erofs { table: PathBuf, device: PathBuf, target: PathBuf, directio: bool },
    /// Mount an overlay of `lowers`, the topmost first, read-only at `target`.
    Overlay { lowers: Vec<PathBuf>, target: PathBuf },
    /// Mount the directory `source` at the directory `target` too, read-only.
    Bind { source: PathBuf, target: PathBuf },
    /// Mount the directory `source` of the FUSE tree at the directory `target` too, read-only.
    Folder { source: PathBuf, target: PathBuf },
    /// Take away everything that is mounted at `target`, lazily where something uses it.
    Unmount { target: PathBuf },
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reply {
    pub id: u64,
    /// Nothing, or what went wrong.
    pub failure: Option<Failure>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// The step, the kernel's words, and what the kernel's log lines for this mount say.
    pub message: String,
}

/// A message with its length before it.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message).map_err(io::Error::other)?;
    let len = u32::try_from(body.len()).ok().filter(|len| *len <= MAX_MESSAGE);
    let len = len.ok_or_else(|| io::Error::other("a message to the mount helper is too long"))?;
    let mut bytes = Vec::with_capacity(body.len() + 4);
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The next message, or `None` at the end.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut len = [0; 4];
    match from.read_exact(&mut len) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let len = u32::from_le_bytes(len);
    if len > MAX_MESSAGE {
        return Err(io::Error::other(format!("a message of {len} bytes, the limit is {MAX_MESSAGE}")));
    }
    let mut body = vec![0; len as usize];
    from.read_exact(&mut body)?;
    serde_json::from_slice(&body).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let request = Request {
            id: 7,
            op: Op::Erofs { table: "/t".into(), device: "/d".into(), target: "/m".into(), directio: true },
        };
        let mut bytes = encode(&request).expect("short");
        bytes.extend(encode(&Reply { id: 7, failure: None }).expect("short"));
        let mut from = bytes.as_slice();
        assert_eq!(read(&mut from).expect("a request"), Some(request));
        assert_eq!(read(&mut from).expect("a reply"), Some(Reply { id: 7, failure: None }));
        assert_eq!(read::<Reply>(&mut from).expect("the end"), None);
    }

    #[test]
    fn a_length_that_makes_no_sense_is_refused() {
        for bytes in
            [&[0xff; 8][..], &[0, 0, 16, 0][..], &[2, 0, 0, 0, b'{'][..], &[2, 0, 0, 0, b'[', b']'][..]]
        {
            assert!(read::<Reply>(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }
}
