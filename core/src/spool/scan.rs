//! Reads the entries of one segment in large blocks, and finds the next good one behind a bad one.

use std::{io, sync::Arc};

use super::{
    Boot,
    disk::{DiskFile, read_around, read_full},
    entry::{HEADER, Header, MAGIC, is_sound},
};

/// How much is read at once.
const BLOCK: usize = 256 << 10;

/// A buffer that had to grow beyond this for one entry is given back.
const KEPT: usize = 2 << 20;

/// What stands at a place of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A good entry: [`Scanner::entry`] has its bytes.
    Entry(Header),
    /// Bytes that are no entry, from a place up to the next entry or the end.
    Bad { from: u64, to: u64 },
    /// Nothing more below the limit.
    End,
}

/// Walks over the entries of a segment.
#[derive(Debug)]
pub(super) struct Scanner {
    file: Arc<dyn DiskFile>,
    seed: u32,
    boot: Boot,
    /// Where the next entry is expected.
    at: u64,
    /// Bytes of the file from `start` on, of which `filled` are there.
    buffer: Vec<u8>,
    start: u64,
    filled: usize,
    /// The last entry that was found, as a place in the buffer.
    entry: (usize, usize),
    /// Whether a sector that cannot be read is no entry, instead of an error.
    reads_around: bool,
    /// Such sectors, as places in the file.
    unreadable: Vec<(u64, u64)>,
}

impl Scanner {
    pub(super) fn new(file: Arc<dyn DiskFile>, seed: u32, boot: Boot, at: u64) -> Self {
        Self {
            file,
            seed,
            boot,
            at,
            buffer: Vec::new(),
            start: at,
            filled: 0,
            entry: (0, 0),
            reads_around: false,
            unreadable: Vec::new(),
        }
    }

    /// From here on a sector that cannot be read costs the entries that have a part of it.
    pub(super) fn read_around(&mut self) {
        self.reads_around = true;
    }

    /// Returns the places that could not be read.
    pub(super) fn unreadable(&self) -> &[(u64, u64)] {
        &self.unreadable
    }

    /// Returns the place behind what was found last.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Returns the whole bytes of the entry that was found last.
    pub(super) fn entry(&self) -> &[u8] {
        &self.buffer[self.entry.0..self.entry.1]
    }

    /// Finds that entry once more at the next call.
    pub(super) fn step_back(&mut self) {
        self.at -= (self.entry.1 - self.entry.0) as u64;
    }

    /// Goes on to another file with the buffer of this one.
    pub(super) fn enter(&mut self, file: Arc<dyn DiskFile>, seed: u32, boot: Boot, at: u64) {
        let buffer = std::mem::take(&mut self.buffer);
        *self = Self { buffer, ..Self::new(file, seed, boot, at) };
    }

    /// Looks at what comes next; nothing from `limit` on is read.
    pub(super) fn next(&mut self, limit: u64) -> io::Result<Found> {
        if self.at >= limit {
            return Ok(Found::End);
        }
        if let Some(header) = self.entry_at(self.at, limit)? {
            self.at += header.len as u64;
            return Ok(Found::Entry(header));
        }
        let from = self.at;
        self.at = self.seek(from + 1, limit)?;
        Ok(Found::Bad { from, to: self.at })
    }

    /// Returns the place of the first good entry at or behind `at`, or the limit.
    fn seek(&mut self, mut at: u64, limit: u64) -> io::Result<u64> {
        while at + HEADER as u64 <= limit {
            let block = self.bytes(at, HEADER, limit)?;
            if block.len() < HEADER {
                break;
            }
            let Some(skip) = block.windows(MAGIC.len()).position(|window| window == MAGIC) else {
                at += (block.len() - MAGIC.len() + 1) as u64;
                continue;
            };
            at += skip as u64;
            if self.entry_at(at, limit)?.is_some() {
                return Ok(at);
            }
            at += 1;
        }
        Ok(limit)
    }

    fn entry_at(&mut self, at: u64, limit: u64) -> io::Result<Option<Header>> {
        let boot = self.boot;
        let Some(header) = Header::read(self.bytes(at, HEADER, limit)?, boot) else { return Ok(None) };
        if at + header.len as u64 > limit {
            return Ok(None);
        }
        let seed = self.seed;
        let bytes = self.bytes(at, header.len, limit)?;
        if bytes.len() < header.len || !is_sound(&bytes[..header.len], seed) {
            return Ok(None);
        }
        let start = (at - self.start) as usize;
        self.entry = (start, start + header.len);
        Ok(Some(header))
    }

    /// Returns the bytes from `at` on: at least `n` of them where the limit allows it, and what else is in memory.
    fn bytes(&mut self, at: u64, n: usize, limit: u64) -> io::Result<&[u8]> {
        let there = at >= self.start && at + n as u64 <= self.start + self.filled as u64;
        if !there {
            self.fill(at, n, limit)?;
        }
        // A file that is shorter than the limit has nothing here.
        let start = ((at - self.start) as usize).min(self.filled);
        let end = usize::try_from(limit - self.start).unwrap_or(usize::MAX).clamp(start, self.filled.max(start));
        Ok(&self.buffer[start..end])
    }

    /// Reads a block that begins at `at`, keeping what is in memory of it.
    fn fill(&mut self, at: u64, n: usize, limit: u64) -> io::Result<()> {
        let known = at >= self.start && at < self.start + self.filled as u64;
        let kept = if known {
            let from = (at - self.start) as usize;
            self.buffer.copy_within(from..self.filled, 0);
            self.filled - from
        } else {
            0
        };
        (self.start, self.filled) = (at, kept);
        let wanted = usize::try_from(limit - at).unwrap_or(usize::MAX).min(n.max(BLOCK));
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        } else if self.buffer.len() > KEPT && wanted <= BLOCK {
            self.buffer.truncate(BLOCK.max(kept));
            self.buffer.shrink_to_fit();
        }
        if wanted > kept {
            let (rest, from) = (&mut self.buffer[kept..wanted], at + kept as u64);
            self.filled = kept
                + match self.reads_around {
                    true => read_around(&*self.file, rest, from, &mut self.unreadable)?,
                    false => read_full(&*self.file, rest, from)?,
                };
        }
        Ok(())
    }
}
