//! What an entry holds: rows and control items, each with one offset.
//!
//! ```text
//! item    := kind:u8 body
//! row     := 0 flags:u8 stream:u32 session:u32 line:u16 ts_event:i64 ts_recv:i64 len:u32 [epoch:u32] [n:u64] [prev:u64] bytes
//! control := 1 len:u32 postcard(Control)
//! ```

use serde::{Deserialize, Serialize};

use super::{Boot, Cause};
use crate::{
    protocol::{Edge, GapId},
    row::{Head, Numbering, Origin, Position, Reader, StreamKey, Timestamp},
};

const ROW: u8 = 0;
const CONTROL: u8 = 1;

/// What the spool knows of a row besides its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowHead {
    /// As the link gave it, with the pipeline's number for the stream.
    pub head: Head,
    /// The session in which it came.
    pub session: u32,
    /// The source's connection.
    pub line: u16,
    /// How often the venue has numbered the stream anew.
    pub epoch: u32,
}

/// An item of an entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Item<'a> {
    /// A row, in the compact form of its table.
    Row(RowHead, &'a [u8]),
    /// Anything else.
    Control(Control),
}

/// Items that are no rows. The spool is the only memory: what is decided is written down here, and state is a fold.
///
/// New variants are added at the end only: postcard numbers them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Control {
    /// The spool was opened: every session before has ended.
    Boot {
        /// The new boot.
        boot: Boot,
        /// Wall clock.
        at: Timestamp,
        /// The program's version.
        version: String,
    },
    /// A stream got its number.
    Stream {
        /// The number.
        id: u32,
        /// The source's name.
        source: String,
        /// The stream.
        key: StreamKey,
    },
    /// Streams are vouched for from here on.
    Confirmed {
        /// The session, begun here where it is new.
        session: u32,
        /// The source's name.
        source: String,
        /// The source's connection.
        line: u16,
        /// The streams with their numbering; empty for a channel whose streams are not known in advance.
        streams: Vec<(u32, Numbering)>,
        /// The venue's time of the confirmation.
        venue_at: Timestamp,
        /// Wall clock.
        at: Timestamp,
    },
    /// Frames still came.
    Alive {
        /// The session.
        session: u32,
        /// When the last one came, by the wall clock.
        at: Timestamp,
    },
    /// A session is over; every numbered stream of it is open at the right from here on.
    Ended {
        /// The session.
        session: u32,
        /// Why.
        why: String,
        /// Wall clock.
        at: Timestamp,
    },
    /// Streams are no longer subscribed to.
    Unsubscribed {
        /// The session.
        session: u32,
        /// The streams.
        streams: Vec<u32>,
        /// Wall clock.
        at: Timestamp,
    },
    /// A gap is known. One with `after` = `None` asks for the stream's baseline.
    GapOpened {
        /// Its name.
        gap: GapId,
        /// The stream.
        stream: u32,
        /// The last record before it.
        after: Option<Edge>,
        /// The first record behind it; `None` is an open right end.
        before: Option<Edge>,
        /// Nothing older is missing.
        since: Timestamp,
        /// Wall clock.
        at: Timestamp,
    },
    /// A gap is over.
    GapClosed {
        /// Its name.
        gap: GapId,
        /// The stream.
        stream: u32,
        /// How.
        outcome: GapOutcome,
        /// How many rows filled it.
        filled: u64,
        /// Wall clock.
        at: Timestamp,
    },
    /// An answer held both edges of a gap and nothing between: the first of two that show that nothing was there.
    GapEmpty {
        /// The gap.
        gap: GapId,
        /// The stream.
        stream: u32,
        /// Wall clock.
        at: Timestamp,
    },
    /// The venue numbers a stream anew.
    Restart {
        /// The stream.
        stream: u32,
        /// The new epoch.
        epoch: u32,
    },
    /// A frame, or an event of one, that could not be read.
    Malformed {
        /// The source's name.
        source: String,
        /// The session.
        session: u32,
        /// As it came, cut to a limit.
        raw: Vec<u8>,
        /// What was wrong.
        error: String,
        /// Wall clock.
        at: Timestamp,
    },
    /// Rows were thrown away because the spool was full.
    Dropped {
        /// The sinks that had not got them; empty for all: the rows never had offsets.
        sinks: Vec<String>,
        /// Rows by stream.
        rows: Vec<(u32, u64)>,
        /// The first and last offset that went, where they had any.
        offsets: Option<(u64, u64)>,
        /// Wall clock.
        at: Timestamp,
    },
    /// The wall clock moved against the monotonic one.
    ClockStep {
        /// Wall clock, after the step.
        at: Timestamp,
        /// By how many nanoseconds.
        step: i64,
    },
    /// A dead letter goes to one sink again, and to no other. Row and addressee are one item, so that no reader ever has the
    /// one without the other.
    Redrive {
        /// The sink.
        sink: String,
        /// The dead letter's key.
        cause: Cause,
        /// What is known of the row besides its columns.
        head: RowHead,
        /// The row, in the compact form of its table.
        row: Vec<u8>,
    },
    /// A stream is forgotten: nobody subscribes to it, no gap of it is open, and the spool has no row of it any more. Its
    /// number is not given again.
    Retired {
        /// The stream.
        stream: u32,
    },
    /// A segment is no longer part of the spool: it was dropped because the spool was full. What sinks had not got of it is
    /// in the items `Dropped` beside this one, which goes last.
    SegmentDropped {
        /// Its first offset.
        first: u64,
        /// Its last offset.
        last: u64,
    },
    /// A sink never gets these rows: a person has decided so (`tidegate adopt`, `tidegate sink forget`), or they were gone
    /// before the store that lacks them could be fed.
    Skipped {
        /// The sink.
        sink: String,
        /// The first and the last offset.
        offsets: (u64, u64),
        /// Rows by stream, of those that could still be counted.
        rows: Vec<(u32, u64)>,
        /// Why.
        why: String,
        /// Wall clock.
        at: Timestamp,
    },
    /// Streams are no longer subscribed to, and it is known why: what `Unsubscribed` was until format 3.
    Left {
        /// The session.
        session: u32,
        /// The streams.
        streams: Vec<u32>,
        /// By whom, or what.
        by: LeftBy,
        /// Wall clock.
        at: Timestamp,
    },
    /// The venue's history has shown the newest record from before a stream is owed: all behind it is. It is no row here,
    /// since it may have been stored before the stream was forgotten, and was made before anybody asked for it.
    Baseline {
        /// The gap that asks for the beginning.
        gap: GapId,
        /// The stream.
        stream: u32,
        /// The record.
        edge: Edge,
    },
}

/// By whom, or what, streams were left on purpose. New ones are added at the end only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeftBy {
    /// The pipeline's choice has other instruments now: others rank higher. Until 0.1 also: they have expired.
    Choice,
    /// Nobody has subscribed to them since a start: they have expired, or a person has changed the file.
    Start,
    /// The venue has ended them, and is asked for them again.
    Venue,
    /// The market's schedule: nothing is to come.
    Schedule,
    /// They have ended by themselves: expired, or not listed any more.
    Expiry,
}

/// How a gap ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GapOutcome {
    /// Live records showed that nothing is missing, or came late and filled it.
    Live,
    /// The venue's history filled it, or showed that its open end was the end.
    Backfilled,
    /// The venue never made these numbers: two answers held both neighbours and nothing between.
    Absent,
    /// What is missing cannot be had, and why.
    Lost(String),
    /// A linked stream got a new whole state.
    Resynchronised,
}

/// Appends a row to an entry's items.
#[inline]
pub(crate) fn write_row(items: &mut Vec<u8>, row: &RowHead, bytes: &[u8]) {
    let head = &row.head;
    let (kind, n, prev) = match head.position {
        Position::Unnumbered => (0u8, None, None),
        Position::Ordered(n) => (1, Some(n), None),
        Position::Sequence(n) => (2, Some(n), None),
        Position::Linked { id, prev: None } => (3, Some(id), None),
        Position::Linked { id, prev } => (4, Some(id), prev),
    };
    let flags = kind | (head.origin as u8) << 3 | u8::from(row.epoch > 0) << 5;
    items.extend_from_slice(&[ROW, flags]);
    items.extend_from_slice(&head.stream.to_le_bytes());
    items.extend_from_slice(&row.session.to_le_bytes());
    items.extend_from_slice(&row.line.to_le_bytes());
    items.extend_from_slice(&head.ts_event.0.to_le_bytes());
    items.extend_from_slice(&head.ts_recv.0.to_le_bytes());
    items.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    if row.epoch > 0 {
        items.extend_from_slice(&row.epoch.to_le_bytes());
    }
    for number in [n, prev].into_iter().flatten() {
        items.extend_from_slice(&number.to_le_bytes());
    }
    items.extend_from_slice(bytes);
}

/// Appends a control item to an entry's items.
pub(crate) fn write_control(items: &mut Vec<u8>, control: &Control) {
    items.push(CONTROL);
    let len_at = items.len();
    items.extend_from_slice(&[0; 4]);
    let start = items.len();
    let taken = std::mem::take(items);
    *items = postcard::to_extend(control, taken).expect("a vector takes every byte, and no control item can fail");
    let len = (items.len() - start) as u32;
    items[len_at..start].copy_from_slice(&len.to_le_bytes());
}

/// Takes the next item; `None` at the end, or where the bytes were written by a faulty program.
#[inline]
pub(crate) fn read_item<'a>(reader: &mut Reader<'a>) -> Option<Item<'a>> {
    match reader.u8()? {
        ROW => read_row(reader).map(|(head, bytes)| Item::Row(head, bytes)),
        CONTROL => {
            let len = reader.u32()? as usize;
            postcard::from_bytes(reader.bytes(len)?).ok().map(Item::Control)
        }
        _ => None,
    }
}

#[inline]
fn read_row<'a>(reader: &mut Reader<'a>) -> Option<(RowHead, &'a [u8])> {
    let flags = reader.u8()?;
    let stream = reader.u32()?;
    let session = reader.u32()?;
    let line = u16::from_le_bytes(reader.bytes(2)?.try_into().ok()?);
    let ts_event = Timestamp(reader.i64()?);
    let ts_recv = Timestamp(reader.i64()?);
    let len = reader.u32()? as usize;
    let epoch = if flags & 1 << 5 != 0 { reader.u32()? } else { 0 };
    let position = match flags & 7 {
        0 => Position::Unnumbered,
        1 => Position::Ordered(reader.u64()?),
        2 => Position::Sequence(reader.u64()?),
        3 => Position::Linked { id: reader.u64()?, prev: None },
        4 => Position::Linked { id: reader.u64()?, prev: Some(reader.u64()?) },
        _ => return None,
    };
    let origin = match flags >> 3 & 3 {
        0 => Origin::Live,
        1 => Origin::Backfill,
        2 => Origin::Redrive,
        _ => return None,
    };
    let head = Head { stream, position, ts_event, ts_recv, origin };
    Some((RowHead { head, session, line, epoch }, reader.bytes(len)?))
}
