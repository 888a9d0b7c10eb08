//! What intake does, without a spool: decide, log, apply. Checks the fold at every step.

use crate::{
    intake::continuity::{Continuity, Drop, OpenAsk, Verdict, steps::Confirmation},
    protocol::GapId,
    row::{Head, Numbering, Origin, Position, StreamKey, Timestamp},
    spool::{Boot, Control, GapOutcome, LeftBy, RowHead},
};

pub(super) const SOURCE: &str = "venue";

/// An item of the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Logged {
    Control(Control),
    Row(RowHead, u32),
}

#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) continuity: Continuity,
    pub(super) log: Vec<Logged>,
    pub(super) dropped: Vec<Drop>,
    pub(super) conflicts: u64,
    pub(super) now: i64,
    /// A snapshot, and how much of the log was in it.
    head: (Vec<u8>, usize),
    pub(super) checked: bool,
}

impl Host {
    pub(super) fn new() -> Self {
        Self { checked: true, ..Self::default() }
    }

    pub(super) fn at(&self) -> Timestamp {
        Timestamp(self.now * 1_000_000_000)
    }

    pub(super) fn stream(&mut self, symbol: &str) -> u32 {
        let key = StreamKey::new("trades", symbol);
        if let Some(id) = self.continuity.stream_id(SOURCE, &key) {
            return id;
        }
        let id = self.continuity.next_stream();
        self.log([Control::Stream { id, source: SOURCE.into(), key }]);
        id
    }

    pub(super) fn log(&mut self, controls: impl IntoIterator<Item = Control>) {
        for control in controls {
            self.continuity.apply(&control);
            self.log.push(Logged::Control(control));
        }
    }

    pub(super) fn decide(&mut self, decide: impl FnOnce(&Continuity, Timestamp, &mut Vec<Control>)) {
        let mut controls = Vec::new();
        decide(&self.continuity, self.at(), &mut controls);
        self.log(controls);
        self.check();
    }

    pub(super) fn confirm(&mut self, session: u32, line: u16, streams: &[(u32, Numbering)], venue_at: i64) {
        let confirmation = Confirmation {
            session,
            source: SOURCE.into(),
            line,
            streams: streams.to_vec(),
            venue_at: Timestamp(venue_at),
        };
        self.decide(|continuity, at, out| continuity.confirmed(confirmation, at, out));
    }

    /// Frames still come.
    pub(super) fn alive(&mut self, session: u32) {
        let at = self.at();
        self.decide(|_, _, out| out.push(Control::Alive { session, at }));
    }

    pub(super) fn end(&mut self, session: u32) {
        self.decide(|continuity, at, out| continuity.ended(session, "cut", at, out));
    }

    pub(super) fn leave(&mut self, session: u32, stream: u32) {
        self.decide(|continuity, at, out| continuity.left(session, (vec![stream], LeftBy::Choice), at, out));
    }

    pub(super) fn answered(&mut self, gap: GapId, ask: u64) {
        self.decide(|continuity, at, out| continuity.answered(gap, ask, at, out));
    }

    pub(super) fn lost(&mut self, gap: GapId) {
        self.decide(|continuity, at, out| continuity.lost(gap, "venue forgot", at, out));
    }

    /// The process was killed and starts again: all that is known comes from the log.
    pub(super) fn boot(&mut self) {
        self.continuity = self.restored();
        let boot = Control::Boot { boot: Boot(1), at: self.at(), version: String::new() };
        self.log([boot]);
        self.decide(Continuity::booted);
    }

    /// A new segment begins.
    pub(super) fn roll(&mut self) {
        self.head = (self.continuity.snapshot(), self.log.len());
    }

    pub(super) fn live(&mut self, session: u32, stream: u32, position: Position, ts: i64, hash: u32) -> bool {
        self.rows(session, Origin::Live, &[(stream, position, ts, hash)]) == 1
    }

    /// Rows of one reply.
    pub(super) fn history(&mut self, session: u32, rows: &[(u32, Position, i64, u32)]) -> usize {
        self.rows(session, Origin::Backfill, rows)
    }

    fn rows(&mut self, session: u32, origin: Origin, rows: &[(u32, Position, i64, u32)]) -> usize {
        let neighbours = crate::intake::neighbour::Neighbours::of(
            &self.continuity,
            rows.iter().map(|&(stream, position, ts, _)| (stream, position, Timestamp(ts), origin)),
        );
        let mut kept = 0;
        for &(stream, position, ts, hash) in rows {
            let head = Head { stream, position, ts_event: Timestamp(ts), ts_recv: self.at(), origin };
            let row = RowHead { head, session, line: 0, epoch: 0 };
            kept += usize::from(self.row(row, hash, neighbours.of_stream(stream)));
        }
        self.check();
        kept
    }

    fn row(&mut self, row: RowHead, hash: u32, neighbour: Option<u64>) -> bool {
        let mut controls = Vec::new();
        let verdict = self.continuity.judge(&row, hash, neighbour, self.at(), &mut controls);
        self.log(controls);
        match verdict {
            Verdict::Keep { epoch, conflict } => {
                self.conflicts += u64::from(conflict);
                let row = RowHead { epoch, ..row };
                self.continuity.apply_row(&row, hash);
                self.log.push(Logged::Row(row, hash));
            }
            Verdict::Drop(why) => self.dropped.push(why),
        }
        let mut closed = Vec::new();
        self.continuity.filled(row.head.stream, self.at(), &mut closed);
        self.log(closed);
        matches!(verdict, Verdict::Keep { .. })
    }

    pub(super) fn asks(&self) -> Vec<OpenAsk> {
        self.continuity.open_gaps(SOURCE).collect()
    }

    /// Returns the only open gap.
    pub(super) fn only(&self) -> OpenAsk {
        let asks = self.asks();
        assert_eq!(asks.len(), 1, "one gap is open: {asks:?}");
        asks[0].clone()
    }

    /// Returns the numbers between the edges of the only open gap, as far as they are known.
    pub(super) fn hull(&self) -> (Option<u64>, Option<u64>) {
        let gap = self.only().gap;
        (gap.after.and_then(|edge| edge.position.number()), gap.before.and_then(|edge| edge.position.number()))
    }

    pub(super) fn outcomes(&self) -> Vec<GapOutcome> {
        let outcome = |item: &Logged| match item {
            Logged::Control(Control::GapClosed { outcome, .. }) => Some(outcome.clone()),
            Logged::Control(_) | Logged::Row(..) => None,
        };
        self.log.iter().filter_map(outcome).collect()
    }

    /// Returns the numbers of the rows of a stream, in the order of the log.
    pub(super) fn stored(&self, stream: u32) -> Vec<u64> {
        let number = |item: &Logged| match item {
            Logged::Row(row, _) if row.head.stream == stream => row.head.position.number(),
            Logged::Control(_) | Logged::Row(..) => None,
        };
        self.log.iter().filter_map(number).collect()
    }

    fn restored(&self) -> Continuity {
        let mut continuity = Continuity::restore(&self.head.0).expect("a snapshot of this version");
        fold(&mut continuity, &self.log[self.head.1..]);
        continuity
    }

    /// I5: the log says what memory says. I6: so does the last segment alone.
    pub(super) fn check(&self) {
        if !self.checked {
            return;
        }
        let mut all = Continuity::default();
        fold(&mut all, &self.log);
        assert!(all == self.continuity, "the log and memory differ:\n{all:#?}\n{:#?}", self.continuity);
        assert!(self.restored() == self.continuity, "a snapshot and what follows differ from memory");
    }
}

fn fold(continuity: &mut Continuity, log: &[Logged]) {
    for item in log {
        match item {
            Logged::Control(control) => continuity.apply(control),
            Logged::Row(row, hash) => continuity.apply_row(row, *hash),
        }
    }
}
