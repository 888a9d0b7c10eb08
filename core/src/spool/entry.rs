//! The frame of an entry: what is written around its items, and what is checked when it is read.
//!
//! ```text
//! magic:u32 len:u32 crc:u32 boot:u64 first:u64 count:u32 synced:u64 mono:i64 items
//! ```
//!
//! `len` is that of the whole entry; `crc` is over all behind it and is seeded with the segment, so that an old block
//! under a new name is never taken for an entry. Integers are little-endian.

use std::sync::Arc;

use super::{Boot, Item, SourceInfo, item::read_item};
use crate::row::Reader;

/// Length of what stands before the items.
pub(super) const HEADER: usize = 48;

/// The longest entry, in bytes.
pub const MAX_ENTRY: usize = 16 << 20;

/// Fewer bytes than this no item has: a control item of one byte.
pub(super) const MIN_ITEM: u64 = 6;

pub(super) const MAGIC: [u8; 4] = *b"TEn\xe7";

/// What an entry says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Of the whole entry.
    pub(super) len: usize,
    pub(super) boot: Boot,
    pub(super) first: u64,
    pub(super) count: u32,
    /// The highest offset that was fsynced when the entry was written.
    pub(super) synced: u64,
    /// Monotonic nanoseconds since the boot.
    pub(super) mono: i64,
}

impl Header {
    pub(super) fn last(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }

    /// Writes the header in front of the items: `entry` holds room for it, then them.
    pub(super) fn write(&self, entry: &mut [u8], seed: u32) {
        entry[..4].copy_from_slice(&MAGIC);
        entry[4..8].copy_from_slice(&(self.len as u32).to_le_bytes());
        entry[12..20].copy_from_slice(&self.boot.0.to_le_bytes());
        entry[20..28].copy_from_slice(&self.first.to_le_bytes());
        entry[28..32].copy_from_slice(&self.count.to_le_bytes());
        entry[32..40].copy_from_slice(&self.synced.to_le_bytes());
        entry[40..48].copy_from_slice(&self.mono.to_le_bytes());
        sign(entry, seed);
    }

    /// Reads a header whose entry may be anything; `None` where it cannot be one of this boot.
    pub(super) fn read(bytes: &[u8], boot: Boot) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.bytes(4)? != MAGIC {
            return None;
        }
        let len = reader.u32()? as usize;
        reader.u32()?;
        let header = Self {
            len,
            boot: Boot(reader.u64()?),
            first: reader.u64()?,
            count: reader.u32()?,
            synced: reader.u64()?,
            mono: reader.i64()?,
        };
        let possible = (HEADER..=MAX_ENTRY).contains(&len)
            && header.boot == boot
            && header.count > 0
            && header.first > 0
            && header.first.checked_add(u64::from(header.count)).is_some()
            && header.synced < header.first;
        possible.then_some(header)
    }
}

/// Writes the checksum of an entry. Also for one that moves to another segment.
pub(super) fn sign(entry: &mut [u8], seed: u32) {
    let crc = crc32c::crc32c_append(seed, &entry[12..]);
    entry[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// Returns whether a whole entry is as it was written.
pub(super) fn is_sound(entry: &[u8], seed: u32) -> bool {
    entry[8..12] == crc32c::crc32c_append(seed, &entry[12..]).to_le_bytes()
}

/// Returns what the checksums of a segment begin with.
pub(super) fn seed(segment: u64) -> u32 {
    crc32c::crc32c(&segment.to_le_bytes())
}

/// One entry, as a reader sees it.
#[derive(Debug, Clone)]
pub struct EntryView<'a> {
    /// The opening of the spool that wrote it.
    pub boot: Boot,
    /// The offset of its first item that was not read before.
    pub first: u64,
    /// The offset of its last item.
    pub last: u64,
    /// Monotonic nanoseconds between the boot and the entry.
    pub mono: i64,
    /// The first offset of its segment: changes where a new segment begins.
    pub segment: u64,
    /// The sources as they were when it was written. The same address: the same sources.
    pub sources: &'a Arc<[SourceInfo]>,
    items: Items<'a>,
}

impl<'a> EntryView<'a> {
    /// Takes an entry apart, without the items up to the offset `behind`.
    pub(super) fn new(
        header: &Header,
        entry: &'a [u8],
        (segment, sources): (u64, &'a Arc<[SourceInfo]>),
        behind: u64,
    ) -> Self {
        let mut items = Items::of(header, entry);
        while items.offset <= behind && items.next().is_some() {}
        let (boot, last, mono) = (header.boot, header.last(), header.mono);
        Self { boot, first: header.first.max(behind + 1), last, mono, segment, sources, items }
    }

    /// Returns the items with their offsets.
    pub fn items(&self) -> Items<'a> {
        self.items.clone()
    }
}

/// The items of an entry, each with its offset. Ends early where bytes were written by a faulty program.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    reader: Reader<'a>,
    offset: u64,
    left: u32,
}

impl<'a> Items<'a> {
    /// Returns the items of a whole entry.
    pub(super) fn of(header: &Header, entry: &'a [u8]) -> Self {
        Self { reader: Reader::new(&entry[HEADER..]), offset: header.first, left: header.count }
    }

    /// Returns how many items are still to come; more than 0 behind the end: they cannot be read.
    pub fn left(&self) -> u32 {
        self.left
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = (u64, Item<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let item = read_item(&mut self.reader)?;
        let offset = self.offset;
        self.offset += 1;
        self.left -= 1;
        Some((offset, item))
    }
}
