//! The part of a partition that is in memory, as a `Log`: a reader fills it behind the newest message, a delivery reads it.
//!
//! ```text
//! messages: … dropped once read │ kept, may be read again │ not read yet │ not confirmed │ ← pushed, as long as there is room
//!                             start                       at         confirmed          end
//! ```
//!
//! The client follows a topic that is deleted and made again silently, and goes on at the old offset. So a message counts only
//! once it is confirmed: its topic's id was asked for after the message had arrived, and is the one of the opening.

mod log;

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidegate_core::{
    Result,
    delivery::Poison,
    spool::{Boot, SpoolPosition},
};
use tokio::sync::{Notify, watch};

pub(super) use self::log::PartitionLog;

use super::decode::{Decoded, Decoder, Incoming, Row};

/// What is known of a partition by asking for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Tells the topic, and the partition, from others, also of the same name.
    pub(super) boot: Boot,
    /// The oldest offset that it has.
    pub(super) low: i64,
    /// The offset behind the newest message that is decided: committed, or aborted.
    pub(super) high: i64,
}

/// Asks for it. May wait.
pub(super) type Ask = Box<dyn Fn() -> Result<Found> + Send + Sync>;

/// A window on one partition, between its reader and a delivery.
pub(super) struct Window {
    state: Mutex<State>,
    changed: Condvar,
    readable: watch::Sender<SpoolPosition>,
    /// Rung when there is something to confirm.
    bell: Arc<Notify>,
    /// The partition's name, for messages.
    name: String,
}

#[derive(Debug)]
struct State {
    found: Found,
    decoder: Decoder,
    messages: VecDeque<Message>,
    bytes: usize,
    /// All of these are offsets of ours.
    start: u64,
    at: u64,
    confirmed: u64,
    end: u64,
    /// Goes up whenever messages are thrown away: what was asked before says nothing of those that come after.
    era: u64,
    /// Where the reader has to begin anew.
    restart: Option<u64>,
    phase: Phase,
    /// Whether the newest message is one that cannot be read. Whoever goes elsewhere leaves it behind.
    is_damaged: bool,
    /// Whether the reader has said that there is no more for now.
    is_at_end: bool,
    /// How often it has.
    ends: u64,
    /// What the reader is in trouble with.
    trouble: Option<String>,
    /// Rows that were read since somebody asked.
    rows: u64,
}

/// What is done with a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing yet: nobody knows where the store is.
    Idle,
    /// It is filled and read.
    Open,
    /// Nothing more comes in.
    Frozen,
    /// Nobody reads it any more.
    Closed,
}

#[derive(Debug)]
struct Message {
    /// The offset of its last row.
    end: u64,
    bytes: usize,
    /// Who gave it; [`ANY_BROKER`] for what no broker gave.
    broker: i32,
    what: What,
}

#[derive(Debug)]
enum What {
    Rows(Vec<Row>),
    Poison(Box<Poison>),
    Undeclared(String),
    /// So many messages are gone.
    Lost(u64),
}

/// Messages that wait for a question to be asked, and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unconfirmed {
    /// Whom to ask: the broker that gave them. Another one may not know yet that the topic was made again.
    pub(super) broker: i32,
    upto: u64,
    era: u64,
}

/// An end that a reader has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The offset of ours behind the newest message.
    pub(super) offset: u64,
    /// How many ends the reader has come to by then.
    pub(super) count: u64,
}

/// What the reader does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Begin at Kafka's offset.
    Begin(i64),
    /// Give the next message.
    Read,
    /// Nothing for now; time has passed already.
    Wait,
    /// Nothing any more.
    End,
}

impl Window {
    /// Returns a window on a partition, and the log that a delivery reads.
    ///
    /// # Errors
    ///
    /// Those of `ask`.
    pub(super) fn open(name: &str, decoder: Decoder, bell: Arc<Notify>, ask: Ask) -> Result<(Arc<Self>, PartitionLog)> {
        let found = ask()?;
        let at = offset_of(found.low);
        let (readable, _) = watch::channel(SpoolPosition { boot: found.boot, offset: 0 });
        let state = State {
            found,
            decoder,
            messages: VecDeque::new(),
            bytes: 0,
            start: at,
            at,
            confirmed: at,
            end: at,
            era: 0,
            restart: Some(at),
            phase: Phase::Idle,
            is_damaged: false,
            is_at_end: false,
            ends: 0,
            trouble: None,
            rows: 0,
        };
        let (state, changed, name) = (Mutex::new(state), Condvar::new(), name.to_owned());
        let window = Arc::new(Self { state, changed, readable, bell, name });
        Ok((window.clone(), PartitionLog::new(window, ask)))
    }

    /// Returns up to where may be read at once.
    pub(super) fn readable(&self) -> watch::Receiver<SpoolPosition> {
        self.readable.subscribe()
    }

    /// Lets nothing more in: what is there is delivered, and the rest is somebody else's.
    pub(super) fn freeze(&self) {
        self.state().freeze();
        self.changed.notify_all();
    }

    /// Returns how many rows were read since it was asked last.
    pub(super) fn rows(&self) -> u64 {
        std::mem::take(&mut self.state().rows)
    }

    /// Returns what the reader is in trouble with.
    pub(super) fn trouble_now(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// Returns the end, where all that the partition had was read. Another end than the last time is another value: the client
    /// tells of each once.
    pub(super) fn end_if_all(&self) -> Option<End> {
        let state = self.state();
        state.is_at_end.then_some(End { offset: state.end, count: state.ends })
    }

    /// Nothing waits, so what the reader was in trouble with is over.
    pub(super) fn is_well(&self) {
        self.state().trouble = None;
    }

    /// Returns the oldest messages that are not confirmed, of one broker.
    pub(super) fn unconfirmed(&self) -> Option<Unconfirmed> {
        let state = self.state();
        if state.phase == Phase::Closed {
            return None;
        }
        let mut waiting =
            state.messages.range(state.messages.partition_point(|message| message.end <= state.confirmed)..);
        let Message { broker, end, .. } = *waiting.next()?;
        let upto = waiting.take_while(|message| message.broker == broker).last().map_or(end, |message| message.end);
        Some(Unconfirmed { broker, upto, era: state.era })
    }

    /// Takes note of an answer that was asked for after these messages had arrived: they are of this history.
    pub(super) fn confirm(&self, unconfirmed: Unconfirmed, history: Boot) {
        let mut state = self.state();
        if unconfirmed.era != state.era {
            return;
        }
        if history != state.found.boot {
            // The next opening says what it means. Until then nothing more of it is read.
            state.throw_away();
            state.freeze();
            state.trouble = Some("its topic was deleted and made again".to_owned());
            return;
        }
        (state.confirmed, state.trouble) = (unconfirmed.upto, None);
        // It never goes back: what is read a second time is waited for.
        if state.confirmed > self.readable.borrow().offset {
            self.readable.send_replace(state.position(state.confirmed));
        }
        self.changed.notify_all();
    }

    /// Takes note that nobody can say whose these messages are: they are read again, from a broker that answers.
    pub(super) fn doubt(&self, unconfirmed: Unconfirmed, why: String) {
        let mut state = self.state();
        if unconfirmed.era == state.era && state.phase == Phase::Open {
            state.read_again(why);
        }
    }

    /// Returns what the reader does next; waits a moment where there is nothing to do.
    pub(super) fn order(&self) -> Order {
        let mut state = self.state();
        if state.order() == Order::Wait {
            state = self.wait(state, STEP);
        }
        state.order()
    }

    /// Says that the reader begins at an offset of Kafka's, as it was ordered: `low` is the oldest that there is.
    pub(super) fn begun(&self, at: i64, low: i64) {
        let mut state = self.state();
        if state.restart.map(kafkas) != Some(at) {
            // It was sent elsewhere meanwhile.
            return;
        }
        state.restart = None;
        state.found.low = low;
        if at < low {
            // Nobody knows which of these offsets were messages.
            let lost = (low - at).unsigned_abs();
            tracing::error!(
                partition = self.name,
                lost,
                "lost {} no longer has its offsets {at} to {}: they were deleted before they were stored, {lost} at most",
                self.name,
                low - 1
            );
            let end = offset_of(low);
            self.add(&mut state, Message { end, bytes: 0, broker: ANY_BROKER, what: What::Lost(lost) });
        }
        self.changed.notify_all();
    }

    /// Has the reader begin anew behind what it has read.
    pub(super) fn begin_anew(&self) {
        let mut state = self.state();
        state.restart = Some(state.end);
    }

    /// Says that there is no such offset as was to be read next, of a partition that begins with `low`, and ends with `high` now.
    /// If the oldest messages were deleted it begins anew with the oldest that there are. If it ends behind that offset nobody can
    /// tell why the client was refused, and it asks once more.
    pub(super) fn is_gone(&self, low: i64, high: i64) {
        let mut state = self.state();
        if state.phase != Phase::Open || state.restart.is_some() || state.is_damaged {
            return;
        }
        if offset_of(low) <= state.end && offset_of(high) < state.end {
            self.is_cut(&mut state, high);
        } else {
            state.restart = Some(state.end);
        }
    }

    /// Says that the partition has ended before Kafka's offset `at`, where it was ordered to begin, and for so long that it is no
    /// broker that is behind.
    pub(super) fn has_ended_before(&self, at: i64, high: i64) {
        let mut state = self.state();
        if state.phase == Phase::Open && !state.is_damaged && state.restart.map(kafkas) == Some(at) {
            state.restart = None;
            self.is_cut(&mut state, high);
        }
    }

    /// The newest messages are lost: what comes takes their offsets, so nothing behind them is read.
    fn is_cut(&self, state: &mut State, high: i64) {
        let (name, at) = (&self.name, kafkas(state.end));
        let why = format!(
            "{name} was read up to offset {at}, and ended before it since (it ends at {high} now): its brokers have lost its newest \
             messages, and others may have taken their offsets, which nobody has read"
        );
        self.stop_behind(state, why);
    }

    /// Nothing behind what was read is read: who comes to it is told why.
    fn stop_behind(&self, state: &mut State, why: String) {
        let end = state.end + 1;
        self.add(state, Message { end, bytes: 0, broker: ANY_BROKER, what: What::Undeclared(why) });
        state.is_damaged = true;
    }

    /// Adds the next message, at an offset of Kafka's, as a broker gave it.
    pub(super) fn push(&self, broker: i32, message: Incoming<'_>) {
        let mut state = self.state();
        let (_, _, offset) = message.place;
        let end = offset_of(offset + 1);
        if state.restart.is_some() || state.phase != Phase::Open || state.is_damaged || end <= state.end {
            return;
        }
        state.is_at_end = false;
        let bytes = message.value.map_or(0, <[u8]>::len) + message.key.map_or(0, <[u8]>::len) + OVERHEAD;
        let what = match state.decoder.decode(message) {
            Decoded::Rows(rows) => {
                state.rows += rows.len() as u64;
                What::Rows(rows)
            }
            Decoded::Poison(poison) => What::Poison(poison),
            Decoded::Undeclared(why) => What::Undeclared(why),
        };
        self.add(&mut state, Message { end, bytes, broker, what });
    }

    /// Returns whether the end that the reader has come to is one below what was read once: then only what the broker says of
    /// its end tells whether what was read was compacted since, or the broker lacks it.
    pub(super) fn has_had_more(&self) -> bool {
        let state = self.state();
        state.restart.is_none() && state.end < self.readable.borrow().offset
    }

    /// Says that there is no more for now, with the broker's end of the partition, an offset of Kafka's, where it
    /// [has had more](Self::has_had_more). Returns whether that is to be believed; if not it is read again.
    pub(super) fn at_end(&self, high: Option<i64>) -> bool {
        let mut state = self.state();
        if state.restart.is_some() {
            return true;
        }
        let readable = self.readable.borrow().offset;
        let is_short = state.end < readable && state.phase == Phase::Open && !state.is_damaged;
        if is_short && high.is_none_or(|high| offset_of(high) < readable) {
            // A leader that is behind, or was elected although it lacked messages: they may come yet, and are not passed over.
            let (end, once) = (kafkas(state.end), kafkas(readable));
            let name = &self.name;
            state.read_again(format!(
                "{name} ends at offset {end}, and was read up to {once} once: its leader lacks messages"
            ));
            return false;
        }
        (state.is_at_end, state.ends) = (true, state.ends + 1);
        if state.confirmed == state.end {
            state.trouble = None;
        }
        if is_short {
            // What was read once, and is to be read again, was compacted meanwhile.
            self.add(&mut state, Message { end: readable, bytes: 0, broker: ANY_BROKER, what: What::Lost(0) });
        }
        true
    }

    /// Says that a message cannot be read, though it is there: nothing behind it is read, either.
    pub(super) fn damaged(&self, what: &str) {
        let mut state = self.state();
        if state.phase != Phase::Open || state.is_damaged || state.restart.is_some() {
            return;
        }
        let why = format!("{} cannot be read behind offset {}: {what}", self.name, kafkas(state.end));
        self.stop_behind(&mut state, why);
    }

    /// Says what the reader is in trouble with. The next message that counts ends it.
    pub(super) fn trouble(&self, what: String) {
        self.state().trouble = Some(what);
    }

    fn add(&self, state: &mut State, message: Message) {
        (state.end, state.bytes) = (message.end, state.bytes + message.bytes);
        state.messages.push_back(message);
        self.bell.notify_one();
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    /// A panic while it was held, as of a visitor's, leaves nothing that is half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn order(&mut self) -> Order {
        match (self.phase, self.restart) {
            (Phase::Closed, _) => Order::End,
            (Phase::Idle | Phase::Frozen, _) => Order::Wait,
            (Phase::Open, Some(position)) => Order::Begin(kafkas(position)),
            (Phase::Open, None) if !self.is_damaged && self.has_room() => Order::Read,
            (Phase::Open, None) => Order::Wait,
        }
    }

    fn freeze(&mut self) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Frozen;
        }
    }

    /// Lets go of what was read, where there is too much.
    fn has_room(&mut self) -> bool {
        while self.bytes > ROOM {
            let Some(oldest) = self.messages.front().filter(|oldest| oldest.end <= self.at) else { return false };
            (self.start, self.bytes) = (oldest.end, self.bytes - oldest.bytes);
            self.messages.pop_front();
        }
        true
    }

    /// Has the reader begin anew behind what is confirmed.
    fn read_again(&mut self, why: String) {
        self.throw_away();
        (self.restart, self.trouble) = (Some(self.confirmed), Some(why));
    }

    /// Lets go of what is not confirmed.
    fn throw_away(&mut self) {
        while let Some(newest) = self.messages.pop_back_if(|newest| newest.end > self.confirmed) {
            self.bytes -= newest.bytes;
        }
        (self.start, self.end) = (self.start.min(self.confirmed), self.confirmed);
        (self.is_at_end, self.is_damaged, self.era) = (false, false, self.era + 1);
    }

    /// Lets go of everything, to go on at a place.
    fn begin_anew(&mut self, position: u64) {
        self.messages.clear();
        (self.bytes, self.start, self.confirmed, self.end) = (0, position, position, position);
        (self.restart, self.is_at_end, self.is_damaged) = (Some(position), false, false);
        (self.at, self.era) = (position, self.era + 1);
    }

    /// Goes to a place: in the window, or else by way of the reader.
    fn seek(&mut self, position: u64) {
        let is_inside = self.start <= position && position <= self.end;
        if is_inside {
            self.at = position;
        } else {
            self.begin_anew(position);
        }
    }

    fn has_more(&self) -> bool {
        self.confirmed > self.at
    }

    fn position(&self, offset: u64) -> SpoolPosition {
        SpoolPosition { boot: self.found.boot, offset }
    }
}

/// Returns the offset of ours that stands before a message at an offset of Kafka's.
pub(super) fn offset_of(kafkas: i64) -> u64 {
    kafkas.max(0).unsigned_abs().saturating_mul(ROWS)
}

/// Returns the offset of Kafka's of the message that comes next behind an offset of ours, or holds it.
pub(super) fn kafkas(ours: u64) -> i64 {
    i64::try_from(ours / ROWS).unwrap_or(i64::MAX)
}

/// How many rows a message may have: so many offsets of ours are one of Kafka's.
pub(super) const ROWS: u64 = 1_000_000;

/// How many bytes of messages are kept. Once it is full, nothing more is read before the delivery has read on.
const ROOM: usize = 8 << 20;

/// About what a message takes beside its key and value.
const OVERHEAD: usize = 128;

/// How often whoever waits looks whether that still makes sense.
const STEP: Duration = Duration::from_millis(100);

/// Who is asked about what no broker gave: whichever answers.
pub(super) const ANY_BROKER: i32 = -1;
