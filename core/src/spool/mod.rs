//! The spool: one durable, segmented, append-only log per pipeline, and the only memory.
//!
//! ```text
//!  intake ── ItemBuffer ──→ SpoolWriter ── write ──→ 00000000000000000001.seg  head entry entry …
//!                             │    ↑                 00000000000000412345.seg  head entry entry …
//!                          SyncJob, on another thread                            │
//!                             └─ fsynced up to here ──→ SpoolReader, Cursor ←────┘
//! ```
//!
//! - [`Recovery`] opens: locks the directory, finds the end, tells a torn tail (cut) from corruption (reported), shows what
//!   came after the last snapshot of continuity, and begins a new boot.
//! - [`SpoolWriter`] appends entries, begins segments, lets old ones go. It never waits for the disk to be safe: that is
//!   what a [`SyncJob`] is for.
//! - [`Cursor`] reads what is durable, and nothing else.
//!
//! Offsets are counted from 1, one for each item. They are never used twice, so a boot that follows a torn tail leaves some
//! out.

mod buffer;
mod claims;
mod cursor;
pub mod disk;
mod entry;
mod files;
mod head;
pub mod inspect;
mod item;
mod position;
mod recovery;
mod reserve;
mod retention;
mod scan;
mod shared;
mod survey;
mod sync;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod whole;
mod writer;

pub use buffer::ItemBuffer;
pub use claims::Claim;
pub use cursor::{Cursor, SpoolReader, Standing, Step, Unreadable};
pub use entry::{EntryView, Items, MAX_ENTRY};
pub use head::{BootSpan, SegmentHead, SourceInfo, StreamInfo};
pub use item::{Control, GapOutcome, Item, LeftBy, RowHead};
pub use position::{Boot, Cause, SpoolPosition};
pub use recovery::{Begun, Recovery, RecoveryReport, SpoolOptions};
pub use retention::{Floor, Housekeeping, Loss, OldSegment};
pub use sync::{SyncDone, SyncJob};
pub use writer::{Append, SpoolLimits, SpoolWriter};
