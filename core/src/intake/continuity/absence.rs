//! Since when nobody has listened to a source, and what of that time nobody can repeat.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Continuity, Session};
use crate::row::{Numbering, Timestamp};

/// Whether anybody listens to a source: follows from control items alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listening {
    /// Up to when a session vouched for what came, by the venue's clock: ours may be set meanwhile.
    heard: Option<Timestamp>,
    /// Set from the end of a session to the next confirmation: tables of which nobody can repeat a record.
    cut: Option<BTreeSet<Arc<str>>>,
}

/// A time in which nobody listened, that has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Absence {
    /// How long; `None` where the log does not say.
    pub(crate) length: Option<Duration>,
    /// Tables of which nobody can repeat a record, in order.
    pub(crate) unrepeatable: Vec<Arc<str>>,
}

impl Continuity {
    /// Returns the absence that ends with a confirmation at this time of the venue, if it ends one.
    pub(crate) fn absence_until(&self, source: &str, venue_at: Timestamp) -> Option<Absence> {
        let Listening { heard, cut } = self.listening_of(source)?;
        // Where the venue's own clock went back nobody knows.
        let nanos = |since: Timestamp| u64::try_from(i128::from(venue_at.0) - i128::from(since.0)).ok();
        let length = heard.and_then(nanos).map(Duration::from_nanos);
        Some(Absence { length, unrepeatable: cut.as_ref()?.iter().cloned().collect() })
    }

    /// Returns whether a session of the source was cut off, and none has been confirmed since.
    pub(crate) fn is_absent(&self, source: &str) -> bool {
        self.listening_of(source).is_some_and(|listening| listening.cut.is_some())
    }

    fn listening_of(&self, source: &str) -> Option<&Listening> {
        let source = self.sources.iter().position(|known| &**known == source)?;
        self.listening.get(&(source as u16))
    }

    /// A session vouches for what comes from here on.
    pub(super) fn listen(&mut self, source: u16, venue_at: Timestamp) {
        self.listening_mut().insert(source, Listening { heard: Some(venue_at), cut: None });
    }

    /// A session has vouched for what came until then, by this machine's clock.
    pub(super) fn hear(&mut self, session: u32, at: Timestamp) {
        let Some(&Session { source, ahead: Some(ahead), .. }) = self.sessions.get(&session) else { return };
        let at = Timestamp(at.0.saturating_sub(ahead));
        let listening = self.listening_mut().entry(source).or_default();
        listening.heard = listening.heard.max(Some(at));
    }

    /// A session is about to end.
    pub(super) fn miss(&mut self, session: u32) {
        let Some(source) = self.sessions.get(&session).map(|session| session.source) else { return };
        let unrepeatable = self.unrepeatable(session);
        self.listening_mut().entry(source).or_default().cut.get_or_insert_default().extend(unrepeatable);
    }

    /// Returns the tables of a session's streams of which nobody can repeat a record.
    fn unrepeatable(&self, session: u32) -> BTreeSet<Arc<str>> {
        let streams = self.sessions.get(&session).map_or(&[][..], |session| &session.streams);
        let streams = streams.iter().filter_map(|&id| self.streams.get(id));
        let repeatable = |numbering| matches!(numbering, Numbering::Sequence | Numbering::Ordered);
        streams.filter(|stream| !repeatable(stream.numbering())).map(|stream| stream.key.table.clone()).collect()
    }
}
