//! Where a layer's tar headers lie and what an index says of each, in a file: a layer of 5,000 entries has 160 KB of them, and a
//! span's few are looked up when it comes. `headers` says what they mean.
//!
//! The file: 16 bytes of header (magic, number of regions), 32 bytes for each region in the order of the stream (where it ends,
//! the length of the data behind it, the hash of the entry), and the CRC-32 of all that. All numbers are little endian. A region
//! begins where the data of the one before it ends. It is made from the zTOC and can be made again: nobody waits for the disk,
//! and one that was torn or damaged has another checksum.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use crate::open_files::LazyFile;

const MAGIC: [u8; 8] = *b"SPNDHD01";
const HEADER_LEN: usize = 16;
const REGION_LEN: usize = 32;
const CRC_LEN: usize = 4;

/// Regions that are read at a time: a page of them.
const STEP: u64 = 128;

/// How much is read at a time for the checksum, in bytes.
const CHECK_LEN: usize = 64 << 10;

/// What data and headers are padded to, in bytes.
const BLOCK: u64 = 512;

/// How much of an entry's hash is kept.
pub(super) const HASH_LEN: usize = 16;

/// The hash of what is compared of an entry.
pub(super) type Hash = [u8; HASH_LEN];

/// One entry's header with its extension blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    /// Where it lies in the stream.
    pub start: u64,
    pub end: u64,
    /// Length of the data behind it.
    pub size: u64,
    /// What the index says of the entry.
    pub hash: Hash,
}

impl Region {
    /// Where the next one begins.
    pub(super) fn next(&self) -> u64 {
        self.end.saturating_add(self.size).checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
    }
}

/// The regions of a layer; in order, without overlap.
#[derive(Debug)]
pub(super) struct Regions {
    file: LazyFile,
    count: u64,
}

/// The file of these regions, which are in order.
pub(super) fn encode(regions: &[Region]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + regions.len() * REGION_LEN + CRC_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(regions.len() as u64).to_le_bytes());
    for region in regions {
        bytes.extend_from_slice(&region.end.to_le_bytes());
        bytes.extend_from_slice(&region.size.to_le_bytes());
        bytes.extend_from_slice(&region.hash);
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|at| bytes[at]))
}

/// Length of the file of `count` regions, up to its checksum.
fn checked_len(count: u64) -> Option<u64> {
    count.checked_mul(REGION_LEN as u64)?.checked_add(HEADER_LEN as u64)
}

impl Regions {
    /// Those in `file`; `None` when they aren't what was written.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn open(file: LazyFile) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER_LEN];
        match file.get()?.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let regions = Self { file, count: number(&header[8..]) };
        Ok(if header.starts_with(&MAGIC) && regions.are_intact()? { Some(regions) } else { None })
    }

    /// Whether the file is what was written.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn are_intact(&self) -> io::Result<bool> {
        let file = self.file.get()?;
        let len = checked_len(self.count)
            .filter(|len| file.metadata().is_ok_and(|found| found.len() == *len + CRC_LEN as u64));
        let Some(len) = len else { return Ok(false) };
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; usize::try_from(len).map_or(CHECK_LEN, |len| len.min(CHECK_LEN))];
        let mut at = 0;
        while at < len {
            let part = usize::try_from(len - at).map_or(buffer.len(), |left| left.min(buffer.len()));
            file.read_exact_at(&mut buffer[..part], at)?;
            hasher.update(&buffer[..part]);
            at += part as u64;
        }
        let mut crc = [0; CRC_LEN];
        file.read_exact_at(&mut crc, len)?;
        Ok(hasher.finalize() == u32::from_le_bytes(crc))
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// Those with these numbers, which are there; and so many before them that each one's beginning is known.
    fn read(&self, numbers: Range<u64>) -> io::Result<Vec<Region>> {
        // The one before says where the first begins.
        let from = numbers.start.saturating_sub(1);
        let len = usize::try_from(numbers.end.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.saturating_mul(REGION_LEN)];
        self.file.get()?.read_exact_at(&mut bytes, HEADER_LEN as u64 + from * REGION_LEN as u64)?;
        // That of the one before isn't known, nor wanted, unless it is the very first.
        let mut start = 0;
        let regions = bytes.chunks_exact(REGION_LEN).map(|region| {
            let hash = std::array::from_fn(|at| region[16 + at]);
            let region = Region { start, end: number(region), size: number(&region[8..]), hash };
            start = region.next();
            // The checksum was right when it was opened; the disk may be another today.
            if region.start > region.end {
                let what = format!("{} is damaged", self.file.path().display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            Ok(region)
        });
        let regions = regions.collect::<io::Result<Vec<Region>>>()?;
        let before = usize::from(numbers.start > 0);
        Ok(regions.into_iter().skip(before).collect())
    }

    /// Where the region `number` ends.
    fn end_of(&self, number: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.get()?.read_exact_at(&mut bytes, HEADER_LEN as u64 + number * REGION_LEN as u64)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Calls `seen` with each that has a part of `span` of the stream, and its number, until that fails.
    ///
    /// # Errors
    /// When the file can't be read; inside, what `seen` says.
    pub(super) fn each_in<E>(
        &self,
        span: &Range<u64>,
        mut seen: impl FnMut(u64, &Region) -> Result<(), E>,
    ) -> io::Result<Result<(), E>> {
        // The first that doesn't end before it.
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.end_of(middle)? <= span.start { low = middle + 1 } else { high = middle }
        }
        self.each_from(low, |number, region| {
            if region.start >= span.end {
                return Some(Ok(()));
            }
            seen(number, region).err().map(Err)
        })
        .map(|ended| ended.unwrap_or(Ok(())))
    }

    /// Calls `seen` with each from number `first` on, until that gives something.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(super) fn each_from<T>(
        &self,
        first: u64,
        mut seen: impl FnMut(u64, &Region) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let mut next = first;
        while next < self.count {
            let end = self.count.min(next + STEP);
            for (number, region) in (next..end).zip(self.read(next..end)?) {
                if let Some(found) = seen(number, &region) {
                    return Ok(Some(found));
                }
            }
            next = end;
        }
        Ok(None)
    }

    /// The last one; `None` when there is none.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(super) fn last(&self) -> io::Result<Option<Region>> {
        let Some(last) = self.count.checked_sub(1) else { return Ok(None) };
        Ok(self.read(last..self.count)?.pop())
    }

    /// The file is deleted, or another takes its place.
    pub(super) fn hold(&self) {
        self.file.hold();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn file(bytes: &[u8]) -> LazyFile {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file.into()
    }

    /// Regions with headers and data of these lengths, in blocks and bytes.
    fn regions(lens: &[(u64, u64)]) -> Vec<Region> {
        let mut start = 0;
        let regions = lens.iter().map(|(header, size)| {
            let region = Region { start, end: start + header * BLOCK, size: *size, hash: [7; HASH_LEN] };
            start = region.next();
            region
        });
        regions.collect()
    }

    fn all(regions: &Regions) -> Vec<Region> {
        let mut all = Vec::new();
        let ended = regions.each_from(0, |number, region| {
            assert_eq!(number, all.len() as u64);
            all.push(*region);
            None::<()>
        });
        assert_eq!(ended.expect("reads"), None);
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_span_has_the_regions_that_overlap_it(
            lens in proptest::collection::vec((1..4_u64, 0..3000_u64), 0..400),
            spans in proptest::collection::vec((0..1_000_000_u64, 1..100_000_u64), 1..8),
        ) {
            let want = regions(&lens);
            let have = Regions::open(file(&encode(&want))).expect("reads").expect("intact");
            prop_assert_eq!(have.len(), want.len() as u64);
            prop_assert_eq!(&all(&have), &want);
            prop_assert_eq!(have.last().expect("reads"), want.last().copied());
            for (start, len) in spans {
                let span = start..start + len;
                let mut seen = Vec::new();
                let ended = have.each_in(&span, |number, region| {
                    seen.push((usize::try_from(number).expect("few"), *region));
                    Ok::<(), ()>(())
                });
                prop_assert_eq!(ended.expect("reads"), Ok(()));
                let overlap = want.iter().copied().enumerate();
                let overlap: Vec<_> =
                    overlap.filter(|(_, region)| region.start < span.end && region.end > span.start).collect();
                prop_assert_eq!(seen, overlap);
            }
        }
    }

    #[test]
    fn damage_is_seen() {
        let whole = encode(&regions(&[(1, 10), (2, 0), (1, 600)]));
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert!(Regions::open(file(&bytes)).expect("reads").is_none(), "byte {at}");
        }
        for len in 0..whole.len() {
            assert!(Regions::open(file(&whole[..len])).expect("reads").is_none(), "{len} bytes");
        }
        assert!(Regions::open(file(&[&whole[..], b"x"].concat())).expect("reads").is_none());
        // A number of regions that no file holds.
        let mut bytes = whole.clone();
        bytes[8..16].fill(0xff);
        assert!(Regions::open(file(&bytes)).expect("reads").is_none());
        assert!(Regions::open(file(&encode(&[]))).expect("reads").is_some(), "none is fine");
    }
}
