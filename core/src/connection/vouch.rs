//! What the log is told of confirmed and ended channels: the same live and in a replay.

use std::{collections::HashSet, time::Duration};

use crate::{
    intake::{Link, Step},
    protocol::{Covered, Protocol},
    row::{StreamKey, Timestamp},
};

/// Channels that were confirmed one after the other, at one time of the venue: one step.
#[derive(Debug, Default)]
pub(super) struct Confirmations {
    place: usize,
    at: Timestamp,
    streams: Vec<Covered>,
}

impl Confirmations {
    /// Adds the streams of a channel that was confirmed before the record `place`.
    pub(super) fn add(&mut self, link: &mut Link, place: usize, at: Timestamp, streams: Vec<Covered>) {
        if self.at != at {
            self.enter(link);
        }
        if self.streams.is_empty() {
            (self.place, self.at) = (place, at);
        }
        self.streams.extend(streams);
    }

    /// Enters what was added: something else comes next.
    pub(super) fn enter(&mut self, link: &mut Link) {
        if !self.streams.is_empty() {
            let streams = std::mem::take(&mut self.streams);
            link.step_before(self.place, Step::Confirmed { streams, at: self.at });
        }
    }
}

/// Returns what the log is told of something that cannot be read.
pub(super) fn malformed(raw: &[u8], error: &str) -> Step {
    Step::Malformed { raw: raw[..raw.len().min(LONGEST_RAW)].to_vec(), error: error.to_owned() }
}

/// Returns the streams of ended channels, without those that another channel still carries.
pub(super) fn ended_streams<'c>(
    protocol: &dyn Protocol,
    ended: &[String],
    vouched: impl Iterator<Item = &'c str>,
) -> Vec<StreamKey> {
    let keys = |channel: &str| protocol.streams(channel).into_iter().map(|covered| covered.key);
    let mut gone: Vec<StreamKey> = ended.iter().flat_map(|channel| keys(channel)).collect();
    let still = vouched.filter(|channel| !ended.iter().any(|ended| ended == channel));
    let kept: HashSet<StreamKey> = still.flat_map(keys).collect();
    gone.retain(|key| !kept.contains(key));
    gone
}

/// What is kept of a frame that cannot be read.
const LONGEST_RAW: usize = 64 << 10;
/// How often the log hears that frames still come.
pub(super) const ALIVE_EVERY: Duration = Duration::from_secs(1);
