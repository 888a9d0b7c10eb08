//! The part of a partition that is in memory, as a [`Log`]: a reader fills it behind the newest message, a delivery reads it.
//!
//! ```text
//! messages: … dropped once read │ kept, may be read again │ not read yet │ ← pushed by the reader, as long as there is room
//!                             start                       at            end
//! ```

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tidegate_core::{
    Error, Result,
    delivery::{Extent, Log, Poison, Seen},
    row::Table,
    spool::{Boot, Item, SpoolPosition, Standing},
};
use tokio::sync::watch;

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
    /// The partition's name, for messages.
    name: String,
}

/// The delivery's end of a window. The reader ends when it is dropped.
pub(super) struct PartitionLog {
    window: Arc<Window>,
    ask: Ask,
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
    end: u64,
    /// Where the reader has to begin anew.
    restart: Option<u64>,
    is_frozen: bool,
    is_closed: bool,
    /// Whether the reader has said that there is no more for now.
    is_at_end: bool,
    /// What the reader is in trouble with.
    trouble: Option<String>,
    /// Rows that were read since somebody asked.
    rows: u64,
}

#[derive(Debug)]
struct Message {
    /// The offset of its last row.
    end: u64,
    bytes: usize,
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
    pub(super) fn open(name: &str, source: &str, tables: Vec<Table>, ask: Ask) -> Result<(Arc<Self>, PartitionLog)> {
        let found = ask()?;
        let at = offset_of(found.low);
        let (readable, _) = watch::channel(SpoolPosition { boot: found.boot, offset: 0 });
        let state = State {
            found,
            decoder: Decoder::new(source, tables),
            messages: VecDeque::new(),
            bytes: 0,
            start: at,
            at,
            end: at,
            restart: Some(at),
            is_frozen: false,
            is_closed: false,
            is_at_end: false,
            trouble: None,
            rows: 0,
        };
        let window =
            Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), readable, name: name.to_owned() });
        Ok((window.clone(), PartitionLog { window, ask }))
    }

    /// Returns up to where may be read at once.
    pub(super) fn readable(&self) -> watch::Receiver<SpoolPosition> {
        self.readable.subscribe()
    }

    /// Lets nothing more in: what is there is delivered, and the rest is somebody else's.
    pub(super) fn freeze(&self) {
        self.state().is_frozen = true;
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

    /// Returns the offset of ours behind the newest message, where all that the partition has was read.
    pub(super) fn end_if_all(&self) -> Option<u64> {
        let state = self.state();
        state.is_at_end.then_some(state.end)
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
        state.trouble = None;
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
            state.push(Message { end, bytes: 0, what: What::Lost(lost) });
        }
        self.tell(&state);
    }

    /// Says that what the reader wanted to read is gone: it begins anew with the oldest that there is.
    pub(super) fn is_gone(&self) {
        let mut state = self.state();
        state.restart = Some(state.end);
    }

    /// Adds the next message, at an offset of Kafka's.
    pub(super) fn push(&self, message: Incoming<'_>) {
        let mut state = self.state();
        let (_, _, offset) = message.place;
        let end = offset_of(offset + 1);
        if state.restart.is_some() || state.is_frozen || end <= state.end {
            return;
        }
        (state.trouble, state.is_at_end) = (None, false);
        let bytes = message.value.map_or(0, <[u8]>::len) + message.key.map_or(0, <[u8]>::len) + OVERHEAD;
        let what = match state.decoder.decode(message) {
            Decoded::Rows(rows) => {
                state.rows += rows.len() as u64;
                What::Rows(rows)
            }
            Decoded::Poison(poison) => What::Poison(poison),
            Decoded::Undeclared(why) => What::Undeclared(why),
        };
        state.push(Message { end, bytes, what });
        self.tell(&state);
    }

    /// Says that there is no more for now.
    pub(super) fn at_end(&self) {
        let mut state = self.state();
        if state.restart.is_some() {
            return;
        }
        (state.trouble, state.is_at_end) = (None, true);
        let readable = self.readable.borrow().offset;
        if state.end < readable && !state.is_frozen {
            // What was read once, and is to be read again, was compacted meanwhile.
            state.push(Message { end: readable, bytes: 0, what: What::Lost(0) });
            self.tell(&state);
        }
    }

    /// Says that a message cannot be read, though it is there: nothing behind it is read, either.
    pub(super) fn damaged(&self, what: &str) {
        let mut state = self.state();
        if state.is_frozen || state.restart.is_some() {
            return;
        }
        let why = format!("{} cannot be read behind offset {}: {what}", self.name, kafkas(state.end));
        let end = state.end + 1;
        state.push(Message { end, bytes: 0, what: What::Undeclared(why) });
        state.is_frozen = true;
        self.tell(&state);
    }

    /// Says what the reader is in trouble with. The next message ends it.
    pub(super) fn trouble(&self, what: String) {
        self.state().trouble = Some(what);
    }

    fn tell(&self, state: &State) {
        // It never goes back: what is read a second time is waited for.
        let is_news = state.end > self.readable.borrow().offset;
        if is_news {
            self.readable.send_replace(SpoolPosition { boot: state.found.boot, offset: state.end });
        }
        self.changed.notify_all();
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
        if self.is_closed {
            return Order::End;
        }
        if self.is_frozen {
            return Order::Wait;
        }
        if let Some(position) = self.restart {
            return Order::Begin(kafkas(position));
        }
        if self.has_room() { Order::Read } else { Order::Wait }
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

    fn push(&mut self, message: Message) {
        (self.end, self.bytes) = (message.end, self.bytes + message.bytes);
        self.messages.push_back(message);
    }

    /// Goes to a place: in the window, or else by way of the reader.
    fn seek(&mut self, position: u64) {
        let is_inside = self.start <= position && position <= self.end && self.restart.is_none();
        if !is_inside {
            self.messages.clear();
            (self.bytes, self.start, self.end) = (0, position, position);
            (self.restart, self.is_at_end) = (Some(position), false);
        }
        self.at = position;
    }

    fn has_more(&self) -> bool {
        self.messages.back().is_some_and(|newest| newest.end > self.at)
    }

    fn position(&self, offset: u64) -> SpoolPosition {
        SpoolPosition { boot: self.found.boot, offset }
    }
}

impl PartitionLog {
    /// Returns what tells the partition's history from others.
    pub(super) fn history(&self) -> Boot {
        self.window.state().found.boot
    }
}

impl Log for PartitionLog {
    fn look(&mut self) -> Result<()> {
        let found = (self.ask)()?;
        let mut state = self.window.state();
        if state.found.boot != found.boot {
            // Nothing of the old topic may be taken for the new one's.
            let at = offset_of(found.low);
            state.messages.clear();
            (state.bytes, state.start, state.at, state.end) = (0, at, at, at);
            state.restart = Some(at);
        }
        state.found = found;
        Ok(())
    }

    fn extent(&self) -> Extent {
        let state = self.window.state();
        let Found { low, high, .. } = state.found;
        Extent { first: state.position(offset_of(low)), last: state.position(offset_of(high)) }
    }

    fn standing(&self, position: SpoolPosition) -> Standing {
        let Extent { first, last } = self.extent();
        if position == SpoolPosition::START {
            Standing::Retained
        } else if position.boot != last.boot {
            Standing::OtherBoot
        } else if position.offset > last.offset {
            Standing::Ahead
        } else if position.offset < first.offset {
            // By the topic's own retention: nobody can bring it back, and waiting would lose more.
            Standing::Dropped
        } else {
            Standing::Retained
        }
    }

    fn seek(&mut self, position: SpoolPosition) -> Result<()> {
        self.window.state().seek(position.offset);
        self.window.changed.notify_all();
        Ok(())
    }

    fn read(&mut self, upto: u64, visit: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>) -> Result<()> {
        let window = &*self.window;
        let (mut state, began) = (window.state(), Instant::now());
        // It was there once, and is being read again.
        while state.at < upto && !state.has_more() && !state.is_frozen {
            if began.elapsed() > PATIENCE {
                let trouble = state.trouble.as_deref().unwrap_or("its broker gives nothing");
                return Err(Error::transient(format!("{} cannot be read: {trouble}", window.name)));
            }
            state = window.wait(state, STEP);
        }
        let State { found, decoder, messages, at, .. } = &mut *state;
        let first = messages.partition_point(|message| message.end <= *at);
        let mut showing = Showing { boot: found.boot, at, visit };
        for message in messages.range(first..).take_while(|message| message.end <= upto) {
            if showing.message(message, decoder)?.is_break() {
                break;
            }
        }
        window.changed.notify_all();
        Ok(())
    }

    /// Nobody lets go of anything for it.
    fn claim(&mut self, _: &str, _: u64, _: u64) {}

    fn passed(&mut self, _: u64) {}

    fn entered(&self) -> u64 {
        0
    }
}

/// Shows what messages hold.
struct Showing<'a> {
    boot: Boot,
    /// Behind what was shown last.
    at: &'a mut u64,
    visit: &'a mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
}

impl Showing<'_> {
    fn message(&mut self, message: &Message, decoder: &Decoder) -> Result<ControlFlow<()>> {
        let position = self.position(message.end);
        Ok(match &message.what {
            What::Undeclared(why) => return Err(Error::permanent(why.clone())),
            What::Lost(lost) => self.show(message.end, Seen::Void { position, lost: *lost }),
            What::Poison(poison) => self.item(message.end, Seen::Poison { position, poison }),
            What::Rows(rows) => self.rows(message.end, rows, decoder),
        })
    }

    fn rows(&mut self, end: u64, rows: &[Row], decoder: &Decoder) -> ControlFlow<()> {
        let first = end - ROWS + 1;
        for (number, row) in rows.iter().enumerate() {
            let offset = if number + 1 == rows.len() { end } else { first + number as u64 };
            if offset <= *self.at {
                continue;
            }
            let item = Item::Row(row.head, &row.bytes);
            let source = decoder.row_source(row.head.head.stream);
            self.item(offset, Seen::Item { position: self.position(offset), segment: 0, item, source })?;
        }
        ControlFlow::Continue(())
    }

    /// Shows something at an offset, and before it that nothing stands between: messages that were aborted, compacted or end a
    /// transaction, and what is left free for the rows of one.
    fn item(&mut self, offset: u64, seen: Seen<'_>) -> ControlFlow<()> {
        if offset > *self.at + 1 {
            self.show(offset - 1, Seen::Void { position: self.position(offset - 1), lost: 0 })?;
        }
        self.show(offset, seen)
    }

    fn show(&mut self, offset: u64, seen: Seen<'_>) -> ControlFlow<()> {
        (self.visit)(seen)?;
        *self.at = offset;
        ControlFlow::Continue(())
    }

    fn position(&self, offset: u64) -> SpoolPosition {
        SpoolPosition { boot: self.boot, offset }
    }
}

impl Drop for PartitionLog {
    fn drop(&mut self) {
        self.window.state().is_closed = true;
        self.window.changed.notify_all();
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

/// How long a delivery waits for what it reads a second time.
const PATIENCE: Duration = Duration::from_secs(10);
