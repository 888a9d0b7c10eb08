//! The head of a segment: all that a reader needs to know before the first entry.
//!
//! ```text
//! segment := head padding head entries
//! head    := "TIDESPL1" version:u32 len:u32 crc:u32 postcard(SegmentHead)
//! ```
//!
//! Written twice, each in pages of its own: the checksums of the entries are seeded with the segment's id, so a head that
//! rots would take them all along.

use std::{io, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Boot,
    disk::{Disk, DiskFile, fault, is_unreadable, read_around, read_full},
};
use crate::{
    Error, Result,
    row::{StreamKey, Table},
};

const MAGIC: [u8; 8] = *b"TIDESPL1";

/// A program reads its own format and all older ones. Since 2 there are `Control::SegmentDropped` and `Control::Skipped`, and
/// `Control::Redrive` holds its row; since 3 there is `Control::Left`; since 4 `Control::Baseline`.
pub(super) const VERSION: u32 = 4;

const PREFIX: usize = 20;

/// The second copy begins in a page of its own.
const PAGE: usize = 4096;

/// The longest head, in bytes: about a million streams. Tests have less memory.
pub(super) const MAX_HEAD: usize = if cfg!(test) { 16 << 20 } else { 256 << 20 };

/// How often a second head is tried for where the first is broken.
const MAX_TRIES: usize = 64;

/// A source, as the pipeline's file named it when the segment was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// The source's name.
    pub name: Arc<str>,
    /// The component's type: the column `venue`.
    pub venue: Arc<str>,
    /// What its rows look like.
    pub tables: Vec<Arc<Table>>,
}

/// What a stream's number stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamInfo {
    /// The source's name.
    pub source: Arc<str>,
    /// The stream within the source.
    pub key: StreamKey,
}

/// The offsets that one boot wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSpan {
    /// The boot.
    pub boot: Boot,
    /// Its first offset.
    pub first: u64,
    /// Its last offset; `u64::MAX` while it runs.
    pub last: u64,
}

/// The head of a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentHead {
    /// Drawn when the spool was made.
    pub spool: u64,
    /// The pipeline's name.
    pub pipeline: String,
    /// Drawn for each segment.
    pub segment: u64,
    /// The offset of the first item.
    pub first: u64,
    /// The last offset before: `first - 1`, but for the first segment of a boot.
    pub previous_end: u64,
    /// The highest offset that was fsynced when the segment was begun.
    pub synced: u64,
    /// The boot that wrote all entries of the segment.
    pub boot: Boot,
    /// All boots that are still of interest, this one last.
    pub boots: Vec<BootSpan>,
    /// Offsets that were dropped because the spool was full, as first and last: those directly before the oldest one, and
    /// those behind it.
    pub dropped: Vec<(u64, u64)>,
    /// The sources.
    pub sources: Vec<SourceInfo>,
    /// The streams known so far, by number.
    pub streams: Vec<(u32, StreamInfo)>,
    /// Continuity before the first item, as intake wrote it; absent where a segment had to be begun in the middle of
    /// an append.
    pub snapshot: Option<Vec<u8>>,
}

impl SegmentHead {
    /// Returns the bytes, both copies.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut head = Vec::with_capacity(4096 + 2 * self.snapshot.as_ref().map_or(0, Vec::len));
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&[0; 8]);
        let encoded = postcard::to_extend(self, head);
        let mut head = encoded.map_err(|cause| Error::permanent("cannot write a segment's head").because(cause))?;
        let len = head.len() - PREFIX;
        if len > MAX_HEAD {
            return Err(Error::permanent(format!("a segment's head of {len} bytes is over the limit")));
        }
        head[12..16].copy_from_slice(&(len as u32).to_le_bytes());
        let crc = checksum(&head);
        head[16..20].copy_from_slice(&crc.to_le_bytes());
        let len = head.len();
        head.resize(len.next_multiple_of(PAGE), 0);
        head.extend_from_within(..len);
        Ok(head)
    }
}

/// A head with the place where the entries begin.
#[derive(Debug)]
pub(super) struct FoundHead {
    pub(super) head: SegmentHead,
    pub(super) entries_at: u64,
}

/// Reads the head of a segment; `None` where neither copy can be read.
///
/// # Errors
///
/// `Config` for a format that is newer than the program; `Transient` when the file cannot be read.
pub(super) fn read_head(disk: &dyn Disk, name: &str, file: &dyn DiskFile) -> Result<Option<FoundHead>> {
    let tried = try_read(file).map_err(|cause| fault("read", disk, name, cause))?;
    if let Some(Found::Newer(version)) = tried {
        let place = disk.place();
        return Err(Error::config(format!(
            "`{place}/{name}` has format {version}, this program knows up to {VERSION}"
        )));
    }
    Ok(tried.and_then(|found| match found {
        Found::Head(found) => Some(*found),
        Found::Newer(_) => None,
    }))
}

enum Found {
    Head(Box<FoundHead>),
    Newer(u32),
}

fn try_read(file: &dyn DiskFile) -> io::Result<Option<Found>> {
    let file_len = file.len()?;
    // The medium may not give the one, and have the other.
    let failed = match read_copy(file, 0, file_len) {
        Ok(None) => None,
        Err(error) if is_unreadable(&error) => Some(error),
        found => return found,
    };
    let mut lost = Vec::new();
    let mut block = vec![0; 64 << 10];
    let mut tries = 0;
    let mut at = 1;
    while at < file_len.min(MAX_HEAD as u64 + PREFIX as u64) && tries < MAX_TRIES {
        let n = read_around(file, &mut block, at, &mut lost)?;
        let Some(found) = block[..n].windows(MAGIC.len()).position(|window| window == MAGIC) else {
            if n < block.len() {
                break;
            }
            at += (n - MAGIC.len() + 1) as u64;
            continue;
        };
        tries += 1;
        at += found as u64;
        match read_copy(file, at, file_len) {
            Ok(None) => {}
            Err(error) if is_unreadable(&error) => {}
            found => return found,
        }
        at += 1;
    }
    failed.map_or(Ok(None), Err)
}

/// Reads the copy that begins at `at`.
fn read_copy(file: &dyn DiskFile, at: u64, file_len: u64) -> io::Result<Option<Found>> {
    let mut prefix = [0; PREFIX];
    if read_full(file, &mut prefix, at)? < PREFIX || prefix[..8] != MAGIC {
        return Ok(None);
    }
    let number = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
    let (version, len, crc) = (number(8), number(12) as usize, number(16));
    if len > MAX_HEAD || at + (PREFIX + len) as u64 > file_len {
        return Ok(None);
    }
    let mut head = vec![0; PREFIX + len];
    if read_full(file, &mut head, at)? < head.len() || checksum(&head) != crc {
        return Ok(None);
    }
    if version > VERSION {
        return Ok(Some(Found::Newer(version)));
    }
    let Ok(decoded) = postcard::from_bytes(&head[PREFIX..]) else { return Ok(None) };
    let second_at = if at == 0 { head.len().next_multiple_of(PAGE) as u64 } else { at };
    let entries_at = second_at + head.len() as u64;
    Ok(Some(Found::Head(Box::new(FoundHead { head: decoded, entries_at }))))
}

/// The checksum covers all but the magic and itself.
fn checksum(head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[8..16]), &head[PREFIX..])
}
