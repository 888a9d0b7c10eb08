//! A window as a delivery sees it: a log.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_core::{
    Error, Result,
    delivery::{Extent, Log, Seen},
    spool::{Boot, Item, SpoolPosition, Standing},
};

use super::{Ask, Found, Message, Phase, ROWS, STEP, State, What, Window, offset_of};
use crate::kafka::decode::{Decoder, Row};

/// The delivery's end of a window. The reader ends when it is dropped.
pub(in super::super) struct PartitionLog {
    window: Arc<Window>,
    ask: Ask,
}

impl PartitionLog {
    pub(super) fn new(window: Arc<Window>, ask: Ask) -> Self {
        Self { window, ask }
    }

    /// Returns what tells the partition's history from others.
    pub(in super::super) fn history(&self) -> Boot {
        self.window.state().found.boot
    }
}

impl Log for PartitionLog {
    fn look(&mut self) -> Result<()> {
        let found = (self.ask)()?;
        let mut state = self.window.state();
        if state.found.boot != found.boot {
            // Nothing of the old topic may be taken for the new one's.
            state.begin_anew(offset_of(found.low));
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

    /// Has it read from there on. Before, it would be filled with what nobody asks for, and stay full.
    fn begin(&mut self, position: SpoolPosition) {
        let mut state = self.window.state();
        state.seek(position.offset);
        if state.phase == Phase::Idle {
            state.phase = Phase::Open;
        }
        drop(state);
        self.window.changed.notify_all();
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
        while state.at < upto && !state.has_more() && state.phase == Phase::Open {
            if began.elapsed() > PATIENCE {
                let trouble = state.trouble.as_deref().unwrap_or("its broker gives nothing");
                return Err(Error::transient(format!("{} cannot be read: {trouble}", window.name)));
            }
            state = window.wait(state, STEP);
        }
        let State { found, decoder, messages, at, confirmed, .. } = &mut *state;
        let upto = upto.min(*confirmed);
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
        self.window.state().phase = Phase::Closed;
        self.window.changed.notify_all();
    }
}

/// How long a delivery waits for what it reads a second time.
const PATIENCE: Duration = Duration::from_secs(10);
