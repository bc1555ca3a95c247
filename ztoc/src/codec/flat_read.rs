//! The little of flatbuffers that reading a zTOC needs: tables, scalars, and vectors of bytes and of offsets.
//!
//! Strings are bytes here: names in a tar are no text. Every position is checked against the buffer before it is used;
//! nothing is copied. What the fields mean is the callers' to say.

use crate::Error;

/// A table within a buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table<'a> {
    buf: &'a [u8],
    /// Where the table begins; its vtable's offset word lies there.
    pos: usize,
    /// The vtable's entries: 16-bit offsets from `pos`, one for each field.
    slots: &'a [u8],
}

fn invalid(field: &'static str, what: impl Into<String>) -> Error {
    Error::Invalid { field, what: what.into() }
}

/// The `N` bytes at `pos`.
fn array<const N: usize>(buf: &[u8], pos: usize, field: &'static str) -> Result<[u8; N], Error> {
    pos.checked_add(N)
        .and_then(|end| buf.get(pos..end)?.try_into().ok())
        .ok_or_else(|| invalid(field, format!("lies at byte {pos}, past the end ({} bytes)", buf.len())))
}

/// The position that the offset word at `pos` points to.
fn follow(buf: &[u8], pos: usize, field: &'static str) -> Result<usize, Error> {
    let offset = u32::from_le_bytes(array(buf, pos, field)?);
    usize::try_from(offset)
        .ok()
        .and_then(|offset| pos.checked_add(offset))
        .filter(|&target| target < buf.len())
        .ok_or_else(|| invalid(field, format!("points {offset} bytes on from byte {pos}, past the end")))
}

/// The elements of the vector at `pos`, `width` bytes each, and where they begin.
fn vector<'a>(
    buf: &'a [u8],
    pos: usize,
    width: usize,
    field: &'static str,
) -> Result<(usize, &'a [u8]), Error> {
    let count = u32::from_le_bytes(array(buf, pos, field)?);
    let start = pos + 4; // `array` has read these four bytes
    usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(width))
        .and_then(|len| buf.get(start..start.checked_add(len)?))
        .map(|bytes| (start, bytes))
        .ok_or_else(|| invalid(field, format!("claims {count} elements, more than there are bytes for")))
}

impl<'a> Table<'a> {
    /// The root table of `buf`.
    pub(crate) fn root(buf: &'a [u8], field: &'static str) -> Result<Self, Error> {
        Self::at(buf, follow(buf, 0, field)?, field)
    }

    /// The table at `pos`.
    fn at(buf: &'a [u8], pos: usize, field: &'static str) -> Result<Self, Error> {
        let back = i64::from(i32::from_le_bytes(array(buf, pos, field)?));
        let vtable = i64::try_from(pos)
            .ok()
            .and_then(|pos| usize::try_from(pos - back).ok())
            .ok_or_else(|| invalid(field, format!("its vtable lies {back} bytes before byte {pos}")))?;
        let len = usize::from(u16::from_le_bytes(array(buf, vtable, field)?));
        let slots = len
            .checked_sub(4)
            .filter(|len| len % 2 == 0)
            .and_then(|len| buf.get(vtable + 4..)?.get(..len))
            .ok_or_else(|| invalid(field, format!("its vtable at byte {vtable} claims {len} bytes")))?;
        Ok(Self { buf, pos, slots })
    }

    /// Where field `id` lies, or `None` when the table leaves it out.
    fn slot(&self, id: usize) -> Option<usize> {
        let offset = self.slots.get(id * 2..id * 2 + 2)?;
        match u16::from_le_bytes([offset[0], offset[1]]) {
            0 => None,
            offset => Some(self.pos + usize::from(offset)),
        }
    }

    fn scalar<const N: usize>(&self, id: usize, field: &'static str) -> Result<Option<[u8; N]>, Error> {
        self.slot(id).map(|pos| array(self.buf, pos, field)).transpose()
    }

    /// A byte, `default` when left out.
    pub(crate) fn u8(&self, id: usize, default: u8, field: &'static str) -> Result<u8, Error> {
        Ok(self.scalar(id, field)?.map_or(default, u8::from_le_bytes))
    }

    /// 32 bits without sign, 0 when left out.
    pub(crate) fn u32(&self, id: usize, field: &'static str) -> Result<u32, Error> {
        Ok(self.scalar(id, field)?.map_or(0, u32::from_le_bytes))
    }

    /// 32 bits with sign, 0 when left out.
    pub(crate) fn i32(&self, id: usize, field: &'static str) -> Result<i32, Error> {
        Ok(self.scalar(id, field)?.map_or(0, i32::from_le_bytes))
    }

    /// 64 bits with sign, 0 when left out.
    pub(crate) fn i64(&self, id: usize, field: &'static str) -> Result<i64, Error> {
        Ok(self.scalar(id, field)?.map_or(0, i64::from_le_bytes))
    }

    /// A size or offset: 64 bits whose sign must not be set.
    pub(crate) fn size(&self, id: usize, field: &'static str) -> Result<u64, Error> {
        let value = self.i64(id, field)?;
        u64::try_from(value).map_err(|_| invalid(field, format!("is {value}, below 0")))
    }

    /// A string or vector of bytes; empty when left out.
    pub(crate) fn bytes(&self, id: usize, field: &'static str) -> Result<&'a [u8], Error> {
        Ok(self.located_bytes(id, field)?.1)
    }

    /// A vector of bytes, and where its first byte lies in the buffer.
    pub(crate) fn located_bytes(&self, id: usize, field: &'static str) -> Result<(usize, &'a [u8]), Error> {
        let Some(pos) = self.slot(id) else { return Ok((0, &[])) };
        vector(self.buf, follow(self.buf, pos, field)?, 1, field)
    }

    /// A table; it must be there.
    pub(crate) fn table(&self, id: usize, field: &'static str) -> Result<Self, Error> {
        let pos = self.slot(id).ok_or_else(|| invalid(field, "is missing"))?;
        Self::at(self.buf, follow(self.buf, pos, field)?, field)
    }

    /// A vector of offsets; empty when left out.
    pub(crate) fn offsets(&self, id: usize, field: &'static str) -> Result<Offsets<'a>, Error> {
        let Some(pos) = self.slot(id) else { return Ok(Offsets { buf: self.buf, start: 0, count: 0 }) };
        let (start, bytes) = vector(self.buf, follow(self.buf, pos, field)?, 4, field)?;
        Ok(Offsets { buf: self.buf, start, count: bytes.len() / 4 })
    }
}

/// A vector of offsets to tables or strings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offsets<'a> {
    buf: &'a [u8],
    start: usize,
    count: usize,
}

impl<'a> Offsets<'a> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The elements as tables.
    pub(crate) fn tables(self, field: &'static str) -> impl Iterator<Item = Result<Table<'a>, Error>> {
        self.positions().map(move |pos| Table::at(self.buf, follow(self.buf, pos, field)?, field))
    }

    /// The elements as strings.
    pub(crate) fn strings(self, field: &'static str) -> impl Iterator<Item = Result<&'a [u8], Error>> {
        self.positions().map(move |pos| Ok(vector(self.buf, follow(self.buf, pos, field)?, 1, field)?.1))
    }

    fn positions(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |index| self.start + index * 4)
    }
}
