//! Writes flatbuffers as Go's library does, to the byte: objects in the order of the calls, from the end of the buffer
//! to its start; fields of a table in the order they are added; equal vtables once.
//!
//! The bytes are kept in reverse, so that the growing end is the end of a `Vec`; positions are counted from the
//! buffer's end, as the format's offsets are while it grows.

use std::collections::HashMap;

/// A position, counted from the end of the finished buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position(u32);

/// A flatbuffer in the making.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    /// The finished buffer's bytes, last one first.
    reversed: Vec<u8>,
    /// The largest alignment asked for so far.
    alignment: usize,
    /// Vtables that were written: offsets of the fields in their tables, and where they lie.
    vtables: HashMap<Vec<u16>, Position>,
}

/// A table in the making: which field lies where.
#[derive(Debug)]
pub(crate) struct TableBuilder<'b> {
    builder: &'b mut Builder,
    /// Where the table ends.
    end: Position,
    slots: Vec<Option<Position>>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { reversed: Vec::new(), alignment: 1, vtables: HashMap::new() }
    }

    fn position(&self) -> Position {
        // A zTOC is built from one that was decoded, or from a layer whose index is far below 4 GiB.
        Position(u32::try_from(self.reversed.len()).expect("a zTOC has less than 4 GiB"))
    }

    /// Pads so that after `extra` more bytes the position is a multiple of `size`.
    fn align(&mut self, size: usize, extra: usize) {
        self.alignment = self.alignment.max(size);
        let padded = (self.reversed.len() + extra).next_multiple_of(size) - extra;
        self.reversed.resize(padded, 0);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.reversed.extend(bytes.iter().rev());
    }

    /// An offset word that points to `target`.
    fn put_offset(&mut self, target: Position) {
        self.align(4, 0);
        let offset = self.position().0 - target.0 + 4;
        self.put(&offset.to_le_bytes());
    }

    fn put_count(&mut self, count: usize) -> Position {
        let count = u32::try_from(count).expect("a zTOC has less than 4 GiB");
        self.put(&count.to_le_bytes());
        self.position()
    }

    /// A string: the bytes, with a zero after them that isn't counted.
    pub(crate) fn string(&mut self, bytes: &[u8]) -> Position {
        self.align(4, bytes.len() + 1);
        self.put(&[0]);
        self.put(bytes);
        self.put_count(bytes.len())
    }

    /// A vector of bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Position {
        self.align(4, bytes.len());
        self.put(bytes);
        self.put_count(bytes.len())
    }

    /// A vector of offsets.
    pub(crate) fn offsets(&mut self, targets: &[Position]) -> Position {
        self.align(4, targets.len() * 4);
        for &target in targets.iter().rev() {
            self.put_offset(target);
        }
        self.put_count(targets.len())
    }

    /// Begins a table of `fields` fields.
    pub(crate) fn table(&mut self, fields: usize) -> TableBuilder<'_> {
        let end = self.position();
        TableBuilder { builder: self, end, slots: vec![None; fields] }
    }

    /// The finished buffer, whose root is `root`.
    pub(crate) fn finish(mut self, root: Position) -> Vec<u8> {
        self.align(self.alignment, 4);
        self.put_offset(root);
        self.reversed.reverse();
        self.reversed
    }
}

impl TableBuilder<'_> {
    fn scalar(mut self, id: usize, bytes: &[u8], is_default: bool) -> Self {
        if !is_default {
            self.builder.align(bytes.len(), 0);
            self.builder.put(bytes);
            self.slots[id] = Some(self.builder.position());
        }
        self
    }

    /// Adds a byte, unless it is the field's default.
    pub(crate) fn u8(self, id: usize, value: u8, default: u8) -> Self {
        self.scalar(id, &value.to_le_bytes(), value == default)
    }

    /// Adds 32 bits without sign, unless 0.
    pub(crate) fn u32(self, id: usize, value: u32) -> Self {
        self.scalar(id, &value.to_le_bytes(), value == 0)
    }

    /// Adds 32 bits with sign, unless 0.
    pub(crate) fn i32(self, id: usize, value: i32) -> Self {
        self.scalar(id, &value.to_le_bytes(), value == 0)
    }

    /// Adds 64 bits with sign, unless 0.
    pub(crate) fn i64(self, id: usize, value: i64) -> Self {
        self.scalar(id, &value.to_le_bytes(), value == 0)
    }

    /// Adds a size, unless 0. What doesn't fit the format's sign (no size can be so large) is cut to the largest.
    pub(crate) fn size(self, id: usize, value: u64) -> Self {
        self.i64(id, i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// Adds an offset to something already written.
    pub(crate) fn offset(mut self, id: usize, target: Position) -> Self {
        self.builder.put_offset(target);
        self.slots[id] = Some(self.builder.position());
        self
    }

    /// Writes the table's head: the offset of its vtable, and the vtable if none like it was written before.
    pub(crate) fn end(self) -> Position {
        let Self { builder, end, mut slots } = self;
        builder.align(4, 0);
        builder.put(&[0; 4]); // the vtable's offset, known below
        let start = builder.position();
        while slots.last() == Some(&None) {
            slots.pop();
        }
        let distance = |slot: &Option<Position>| slot.map_or(0, |field| start.0 - field.0);
        let fields: Vec<u16> = slots
            .iter()
            .map(|slot| u16::try_from(distance(slot)).expect("a table of 14 fields has under 200 bytes"))
            .collect();
        let vtable = builder.vtables.get(&fields).copied().unwrap_or_else(|| {
            for field in fields.iter().rev() {
                builder.put(&field.to_le_bytes());
            }
            let len = u16::try_from(start.0 - end.0).expect("a table of 14 fields has under 200 bytes");
            builder.put(&len.to_le_bytes());
            let vtable_len = u16::try_from(fields.len() * 2 + 4).expect("14 fields at most");
            builder.put(&vtable_len.to_le_bytes());
            let vtable = builder.position();
            builder.vtables.insert(fields, vtable);
            vtable
        });
        // From the table back to its vtable: positive when the vtable lies before the table.
        let back = vtable.0.wrapping_sub(start.0).to_le_bytes();
        let word = start.0 as usize - 4;
        for (byte, value) in builder.reversed[word..word + 4].iter_mut().rev().zip(back) {
            *byte = value;
        }
        start
    }
}
