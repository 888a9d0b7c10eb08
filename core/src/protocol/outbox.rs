//! Where a protocol puts what it wants: rows, messages, confirmations.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{Frame, GapId};
use crate::{
    Error,
    row::{Directory, Mark, Origin, Records, Row, StreamKey, Table, Timestamp},
};

/// Everything that a protocol may ask for. Filled during a call, emptied by the driver after it.
#[derive(Debug)]
pub struct Outbox {
    directory: Directory,
    records: Records,
    /// Each with the number of records that were there when it was asked for.
    commands: Vec<(usize, Command)>,
    now: Timestamp,
    origin: Origin,
    /// When each subscribed channel was heard last.
    heard: HashMap<Box<str>, Timestamp, foldhash::fast::FixedState>,
}

/// What a protocol asked for, besides storing records.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Send this text frame.
    Send(String),
    /// Send this text frame, which is shown and recorded nowhere, and the key that it holds.
    SendSecret(String, String),
    /// The handshake is done.
    Ready,
    /// The venue accepted a channel, at this time of its own clock.
    Confirm(String, Timestamp),
    /// The venue will not serve a channel, and why.
    Refuse(String, String),
    /// The venue ended a channel.
    Unsubscribed(String),
    /// Call `on_wake` after this pause.
    WakeAfter(Duration),
    /// Discover anew.
    Rediscover,
    /// The venue numbers this stream anew.
    Restart(StreamKey),
    /// A part of a frame that could not be read, and why.
    Reject(String, String),
    /// Something was left out on purpose.
    Ignore(&'static str),
    /// A reply held everything that the venue has of this gap.
    Answered(GapId),
    /// A line for the log: what happened, in a word, and of what.
    Tell(&'static str, String),
    /// What of the wanted is not to be had, for health; `None` when all is.
    Lacking(Option<String>),
}

impl Outbox {
    /// Returns an outbox for rows of these tables.
    pub fn new(tables: Vec<Table>) -> Self {
        Self {
            directory: Directory::new(tables.into_iter().map(Arc::new).collect()),
            records: Records::default(),
            commands: Vec::new(),
            now: Timestamp::default(),
            origin: Origin::Live,
            heard: HashMap::default(),
        }
    }

    /// Returns the time of this call: for a frame, when it came.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Hands a row to the pipeline.
    ///
    /// # Panics
    ///
    /// If the row's table is not among those of `Protocol::tables`: a fault of the program.
    #[inline]
    pub fn emit<R: Row>(&mut self, mark: Mark<'_>, row: &R) {
        self.directory.push(&mut self.records, mark, self.now, self.origin, row);
    }

    /// Sends a text message to the venue, before any subscription that waits for its turn.
    pub fn send(&mut self, message: impl Into<String>) {
        self.push(Command::Send(message.into()));
    }

    /// Sends a text message that holds a key: a capture has a mark in its place, and what the venue says of it is shown and
    /// recorded without the key.
    pub fn send_secret(&mut self, message: impl Into<String>, key: impl Into<String>) {
        self.push(Command::SendSecret(message.into(), key.into()));
    }

    /// Says that the handshake is done, and channels may be subscribed to.
    pub fn ready(&mut self) {
        self.push(Command::Ready);
    }

    /// Says that the venue accepted a channel, now. A record of a channel does not confirm it.
    pub fn confirm(&mut self, channel: impl Into<String>) {
        self.confirm_at(channel, self.now);
    }

    /// Says that the venue accepted a channel, at a time of the venue's own clock: records from then on are owed.
    pub fn confirm_at(&mut self, channel: impl Into<String>, at: Timestamp) {
        self.push(Command::Confirm(channel.into(), at));
    }

    /// Says that a message of this channel came, with or without records: the channel is not quiet.
    #[inline]
    pub fn heard(&mut self, channel: &str) {
        if let Some(last) = self.heard.get_mut(channel) {
            *last = self.now;
        }
    }

    /// Says that the venue will not serve a channel, and why. The driver reports it, and asks again at the next discovery
    /// that wants it and after pauses that grow.
    pub fn refuse(&mut self, channel: impl Into<String>, reason: impl Into<String>) {
        self.push(Command::Refuse(channel.into(), reason.into()));
    }

    /// Says that the venue has ended a channel: the answer to `unsubscribe`, or of its own will.
    pub fn unsubscribed(&mut self, channel: impl Into<String>) {
        self.push(Command::Unsubscribed(channel.into()));
    }

    /// Asks for one call of `Protocol::on_wake`, in place of an earlier wish.
    pub fn wake_after(&mut self, pause: Duration) {
        self.push(Command::WakeAfter(pause));
    }

    /// Asks for a new discovery: an instrument was listed or has expired.
    pub fn rediscover(&mut self) {
        self.push(Command::Rediscover);
    }

    /// Says that the venue numbers this stream anew from here on, so that smaller numbers are no repeats.
    pub fn restart<R: Row>(&mut self, symbol: &str) {
        self.push(Command::Restart(self.directory.key(R::TABLE, symbol)));
    }

    /// Says that from here on `symbol` means another instrument than before: its streams begin anew.
    pub fn relist(&mut self, symbol: &str, listing: &str) {
        self.directory.relist(symbol, listing);
    }

    /// Keeps a part of a frame raw in the spool: one broken event among fifty good ones.
    pub fn reject(&mut self, raw: impl Into<String>, error: &Error) {
        self.push(Command::Reject(raw.into(), error.to_string()));
    }

    /// Counts something that was understood well enough to leave it out: an unknown method, a channel of no interest.
    pub fn ignore(&mut self, what: &'static str) {
        self.push(Command::Ignore(what));
    }

    /// Says that this reply holds everything that the venue has of a gap: all rows between its edges, with the records
    /// at its edges where they are known (so that nothing lies outside), or, with an open right end, all up to now from
    /// a host that still remembers that time.
    pub fn answered(&mut self, gap: GapId) {
        self.push(Command::Answered(gap));
    }

    /// Says something that a person may want to know later, in one line of the log: what happened, in a word, and the rest.
    pub fn tell(&mut self, what: &'static str, text: impl Into<String>) {
        self.push(Command::Tell(what, text.into()));
    }

    /// Says what of that which is wanted the venue does not have, until it is said otherwise: the source is degraded.
    pub fn lacking(&mut self, what: Option<String>) {
        self.push(Command::Lacking(what));
    }

    fn push(&mut self, command: Command) {
        self.commands.push((self.records.len(), command));
    }
}

/// The driver's side of the outbox.
impl Outbox {
    /// Starts a call: rows emitted from here on came at `now`, in this way.
    pub fn begin(&mut self, now: Timestamp, origin: Origin) {
        self.now = now;
        self.origin = origin;
    }

    /// Takes what was asked for since the last call, in order.
    pub fn take_commands(&mut self) -> impl Iterator<Item = Command> {
        self.commands.drain(..).map(|(_, command)| command)
    }

    /// Takes what was asked for since the last call, each with the number of records in front of it, by exchange with an
    /// empty buffer.
    pub(crate) fn swap_commands(&mut self, empty: &mut Vec<(usize, Command)>) {
        std::mem::swap(&mut self.commands, empty);
    }

    /// Returns whether something was asked for.
    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Begins or ends to note when a channel is heard.
    pub fn watch(&mut self, channel: &str, watched: bool) {
        if watched {
            self.heard.insert(channel.into(), self.now);
        } else {
            self.heard.remove(channel);
        }
    }

    /// Returns each watched channel with the time when it was heard last, or when watching began.
    pub(crate) fn heard_at(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.heard.iter().map(|(channel, at)| (&**channel, *at))
    }

    /// Returns the tables of the rows.
    pub fn tables(&self) -> &[Arc<Table>] {
        self.directory.tables()
    }

    /// Returns the records that were emitted and not taken yet.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Numbers the streams of what comes next from the beginning again. There is no record now.
    pub(crate) fn forget_streams(&mut self) {
        // Also the names of streams whose records were taken back.
        self.records.clear();
        self.directory.forget_streams();
    }

    /// Takes the records away, leaving `empty` to be filled.
    pub(crate) fn swap_records(&mut self, empty: &mut Records) {
        std::mem::swap(&mut self.records, empty);
    }

    /// Takes back the rows of a call that failed, behind the first `len` records.
    pub fn forget_records(&mut self, len: usize) {
        self.records.truncate(len);
    }
}

/// Reads a frame into an outbox, for tests and fuzzers: what a driver does with one frame.
impl Outbox {
    /// Calls `on_frame` as the driver does: a frame that fails leaves no rows behind.
    ///
    /// # Errors
    ///
    /// What the protocol returned.
    pub fn frame(&mut self, protocol: &mut dyn super::Protocol, frame: Frame<'_>, now: Timestamp) -> crate::Result<()> {
        self.begin(now, Origin::Live);
        let before = self.records.len();
        let outcome = protocol.on_frame(frame, self);
        if outcome.is_err() {
            self.records.truncate(before);
        }
        outcome
    }
}
