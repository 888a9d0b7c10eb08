//! Continuity as bytes: what a segment's head holds, so that the last segment alone restores it.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Continuity, Session, absence::Listening, stream::Stream, streams::Streams};
use crate::{Error, Result};

/// The first byte. A reader knows all versions that were ever released: this is the first one.
const VERSION: u8 = 2;

#[derive(Serialize)]
struct Written<'a> {
    sources: &'a [Arc<str>],
    streams: Vec<(u32, &'a Stream)>,
    next_stream: u32,
    sessions: &'a BTreeMap<u32, Session>,
    listening: &'a BTreeMap<u16, Listening>,
    next_session: u32,
    next_gap: u64,
}

#[derive(Deserialize)]
struct Read {
    sources: Vec<Arc<str>>,
    streams: Vec<(u32, Stream)>,
    next_stream: u32,
    sessions: BTreeMap<u32, Session>,
    listening: BTreeMap<u16, Listening>,
    next_session: u32,
    next_gap: u64,
}

impl Continuity {
    /// Returns all that is known, as bytes.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        let Self { sources, streams, sessions, listening, next_session, next_gap, .. } = self;
        let written = Written {
            sources,
            streams: streams.iter().collect(),
            next_stream: streams.next(),
            sessions,
            listening,
            next_session: *next_session,
            next_gap: *next_gap,
        };
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
                let message = format!("the snapshot has version {version}, this program knows {VERSION}");
                return Err(Error::permanent(message));
            }
        };
        let Read { sources, streams, next_stream, sessions, listening, next_session, next_gap } = read;
        let streams_so_far = Streams::from(next_stream);
        let mut restored =
            Self { sources, streams: streams_so_far, sessions, listening, next_session, next_gap, ..Self::default() };
        for (id, stream) in streams {
            restored.by_key.insert((stream.source, stream.key.clone()), id);
            restored.streams.insert(id, stream);
        }
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
            && self.listening == other.listening
            && self.next_session == other.next_session
            && self.next_gap == other.next_gap
    }
}
