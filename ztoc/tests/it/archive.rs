//! A writer of tars, small and able to write what no tool would.

/// How what a header has no room for is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// PAX records.
    Pax,
    /// GNU's long names and numbers in base 256.
    Gnu,
}

/// One entry.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) format: Format,
    /// The type byte.
    pub(crate) kind: u8,
    pub(crate) name: Vec<u8>,
    pub(crate) linkname: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds and nanoseconds; GNU has no room for these.
    pub(crate) mtime: (i64, u32),
    pub(crate) device: (u32, u32),
    /// Only with PAX.
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    pub(crate) data: Vec<u8>,
}

impl std::fmt::Debug for Item {
    /// On one line, as a listing has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, link) = (String::from_utf8_lossy(&self.name), String::from_utf8_lossy(&self.linkname));
        let Self { format, mode, uid, gid, mtime, device, xattrs, .. } = self;
        write!(
            f,
            "{format:?} {} {name:?} {link:?} {mode:o} {uid}:{gid} {mtime:?} {device:?}",
            char::from(self.kind)
        )?;
        write!(f, " {} bytes, {xattrs:?}", self.data.len())
    }
}

impl Item {
    pub(crate) fn new(kind: u8, name: impl Into<Vec<u8>>) -> Self {
        Self {
            format: Format::Pax,
            kind,
            name: name.into(),
            linkname: Vec::new(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (1_600_000_000, 0),
            device: (0, 0),
            xattrs: Vec::new(),
            data: Vec::new(),
        }
    }

    fn write(&self, tar: &mut Vec<u8>) {
        let mut records = Vec::new();
        match self.format {
            Format::Pax => {
                let mut record = |key: &str, value: &[u8]| records.extend(record(key, value));
                for (key, text) in [("path", &self.name), ("linkpath", &self.linkname)] {
                    if text.len() > 100 || !text.is_ascii() {
                        record(key, text);
                    }
                }
                for (key, value) in [("uid", self.uid), ("gid", self.gid)] {
                    if value >= 1 << 21 {
                        record(key, value.to_string().as_bytes());
                    }
                }
                let (seconds, nanoseconds) = self.mtime;
                if nanoseconds != 0 || seconds < 0 {
                    record("mtime", pax_time(seconds, nanoseconds).as_bytes());
                }
                for (name, value) in &self.xattrs {
                    record(&format!("SCHILY.xattr.{name}"), value);
                }
                if !records.is_empty() {
                    extension(tar, b'x', &records);
                }
            }
            Format::Gnu => {
                for (kind, text) in [(b'L', &self.name), (b'K', &self.linkname)] {
                    if text.len() > 100 {
                        extension(tar, kind, &[text, &b"\0"[..]].concat());
                    }
                }
            }
        }
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, &self.number::<8>(i64::try_from(self.uid).unwrap()));
        put(116, &self.number::<8>(i64::try_from(self.gid).unwrap()));
        put(124, format!("{:011o}\0", self.data.len()).as_bytes());
        put(136, &self.number::<12>(self.mtime.0));
        put(156, &[self.kind]);
        put(157, &self.linkname[..self.linkname.len().min(100)]);
        put(257, if self.format == Format::Pax { b"ustar\x0000" } else { b"ustar  \0" });
        put(329, format!("{:07o}\0", self.device.0).as_bytes());
        put(337, format!("{:07o}\0", self.device.1).as_bytes());
        tar.extend(seal(block));
        tar.extend(&self.data);
        pad(tar);
    }

    /// A number as its field of `N` bytes has it: in octal, or where that is too short, as the format has it.
    fn number<const N: usize>(&self, value: i64) -> [u8; N] {
        let fits = value >= 0 && value < 1 << ((N - 1) * 3);
        if !fits && self.format == Format::Gnu {
            let mut field = [if value < 0 { 0xff } else { 0 }; N];
            let bytes = value.to_be_bytes();
            let len = N.min(bytes.len());
            field[N - len..].copy_from_slice(&bytes[bytes.len() - len..]);
            field[0] |= 0x80;
            return field;
        }
        let digits = format!("{:0width$o}\0", if fits { value } else { 0 }, width = N - 1);
        digits.into_bytes().try_into().unwrap()
    }
}

/// A tar of `items`.
pub(crate) fn tar(items: &[Item]) -> Vec<u8> {
    let mut tar = Vec::new();
    items.iter().for_each(|item| item.write(&mut tar));
    tar.extend([0; 1024]);
    tar
}

/// A time as PAX has it: below 0 the decimals count downwards, too.
fn pax_time(seconds: i64, nanoseconds: u32) -> String {
    if seconds < 0 && nanoseconds != 0 {
        let sign = if seconds == -1 { "-0" } else { "" };
        return format!(
            "{sign}{}.{:09}",
            if seconds == -1 { String::new() } else { (seconds + 1).to_string() },
            1_000_000_000 - nanoseconds
        );
    }
    format!("{seconds}.{nanoseconds:09}")
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let len = (rest..).find(|len| len - len.to_string().len() == rest).unwrap();
    [len.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

fn extension(tar: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"extension");
    put(124, format!("{:011o}\0", body.len()).as_bytes());
    put(156, &[kind]);
    put(257, if kind == b'x' { b"ustar\x0000" } else { b"ustar  \0" });
    tar.extend(seal(block));
    tar.extend(body);
    pad(tar);
}

fn seal(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn pad(tar: &mut Vec<u8>) {
    tar.resize(tar.len().next_multiple_of(512), 0);
}
