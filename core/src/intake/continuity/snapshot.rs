//! Continuity as bytes: what a segment's head holds, so that the last segment alone restores it.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Continuity, Session, stream::Stream};
use crate::{Error, Result};

/// The first byte. A reader knows all older versions.
const VERSION: u8 = 1;

#[derive(Serialize)]
struct Written<'a> {
    sources: &'a [Arc<str>],
    streams: &'a [Stream],
    sessions: &'a BTreeMap<u32, Session>,
    next_session: u32,
    next_gap: u64,
}

#[derive(Deserialize)]
struct Read {
    sources: Vec<Arc<str>>,
    streams: Vec<Stream>,
    sessions: BTreeMap<u32, Session>,
    next_session: u32,
    next_gap: u64,
}

impl Continuity {
    /// Returns all that is known, as bytes.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        let Self { sources, streams, sessions, next_session, next_gap, .. } = self;
        let written = Written { sources, streams, sessions, next_session: *next_session, next_gap: *next_gap };
        postcard::to_extend(&written, vec![VERSION]).expect("a vector takes every byte, and every part can be written")
    }

    /// Restores what [`Continuity::snapshot`] has written; nothing is known after no bytes at all.
    ///
    /// # Errors
    ///
    /// `Permanent` when the bytes were written by a newer version, or are none of ours.
    pub(crate) fn restore(bytes: &[u8]) -> Result<Self> {
        let read: Read = match bytes.split_first() {
            None => return Ok(Self::default()),
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|error| {
                Error::permanent("the snapshot in the segment's head cannot be read").because(error)
            })?,
            Some((version, _)) => {
                let message = format!("the snapshot has version {version}, this program knows up to {VERSION}");
                return Err(Error::permanent(message));
            }
        };
        let Read { sources, streams, sessions, next_session, next_gap } = read;
        let by_key = streams.iter().zip(0..).map(|(stream, id)| ((stream.source, stream.key.clone()), id)).collect();
        let mut restored = Self { sources, streams, sessions, next_session, next_gap, by_key, ..Self::default() };
        restored.index_gaps();
        Ok(restored)
    }
}

impl PartialEq for Continuity {
    /// Compares what is known; the rest follows from it.
    fn eq(&self, other: &Self) -> bool {
        self.sources == other.sources
            && self.streams == other.streams
            && self.sessions == other.sessions
            && self.next_session == other.next_session
            && self.next_gap == other.next_gap
    }
}
