//! The venue with its lines, as a connection driver meets it: what is on its way, what is asked for, what is answered.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    market::{Line, Market, Sent},
    plan::Setting,
};
use crate::{
    intake::{Ask, Link, Step},
    policy::Random,
    protocol::{Covered, GapId},
    row::{Mark, Numbering, Origin, Position, StreamKey, Table, Timestamp},
    spool::LeftBy,
};

/// A row of a numbered stream.
#[derive(Debug, Default)]
pub(super) struct Trade {
    /// Which record of the venue it is.
    pub(super) record: u64,
    /// What the history of a dense stream does not tell: there a repeat is known by its number. Where numbers jump, only an
    /// equal row is one.
    pub(super) detail: Option<u64>,
}

crate::row!(Trade => "trades", [record, detail]);

/// A row of a stream that has no numbers.
#[derive(Debug, Default)]
pub(super) struct Quote {
    /// Which record of the venue it is.
    pub(super) record: u64,
}

crate::row!(Quote => "quotes", [record]);

/// The streams: a busy one, one that goes quiet early, one that is numbered anew, one whose numbers jump, and one without.
pub(super) const STREAMS: [(&str, Numbering); 5] = [
    ("A", Numbering::Sequence),
    ("B", Numbering::Sequence),
    ("C", Numbering::Sequence),
    ("D", Numbering::Ordered),
    ("E", Numbering::Unnumbered),
];

pub(super) const SECOND: i64 = 1_000_000_000;

/// How far the history lags behind.
pub(super) const LAG: i64 = 3;

/// When the venue's time begins, in seconds.
pub(super) const BEGAN: i64 = 1_600_000_000;

/// A line on which a record waits for longer vouches for nothing.
const LONGEST_WAY: i64 = 60;

/// When stream B goes quiet, in seconds from the beginning.
const QUIET_AFTER: i64 = 60;

pub(super) struct Venue {
    pub(super) market: Market,
    pub(super) lines: [Line; 2],
    requests: Vec<Request>,
    next_session: u32,
    lags: bool,
    memory: i64,
    uneven: i64,
    /// Gaps that nobody can fill any more.
    pub(super) gave_up: Vec<GapId>,
    /// Records that have come live, in their order, by session.
    pub(super) delivered: BTreeMap<u32, Vec<usize>>,
}

/// A request on its way to the venue and back.
#[derive(Debug)]
struct Request {
    line: usize,
    ask: Ask,
    stream: usize,
    range: (i64, i64),
    /// What the venue has to remember for a whole answer.
    oldest: i64,
    /// Records that the venue answered with, and whether that was all; `None` while the request is on its way.
    reply: Option<(Vec<usize>, bool)>,
}

pub(super) fn tables() -> Vec<Table> {
    vec![Table::of::<Trade>(), Table::of::<Quote>()]
}

impl Venue {
    pub(super) fn new(setting: &Setting) -> Self {
        let mut market = Market::new(&STREAMS.map(|(_, numbering)| numbering));
        market.now = BEGAN;
        Self {
            market,
            lines: Default::default(),
            requests: Vec::new(),
            next_session: 1,
            lags: setting.lags,
            memory: setting.memory,
            uneven: setting.uneven,
            gave_up: Vec::new(),
            delivered: BTreeMap::new(),
        }
    }

    /// Nothing lags any more.
    pub(super) fn heal(&mut self) {
        self.lags = false;
    }

    /// The process at the other end is gone.
    pub(super) fn hang_up(&mut self) {
        self.lines = Default::default();
        self.requests.clear();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.lines.iter().all(|line| line.wire.is_empty())
    }

    /// Makes a record; returns which.
    pub(super) fn make(&mut self, random: &mut Random) -> Option<usize> {
        let stream = [0, 0, 0, 1, 2, 3, 3, 4][random.below(8) as usize];
        if stream == 1 && self.market.now > BEGAN + QUIET_AFTER {
            return None;
        }
        let numbering = STREAMS[stream].1;
        let skip = random.below(40) == 0 || (numbering == Numbering::Ordered && random.below(3) == 0);
        let is_dense = numbering == Numbering::Sequence;
        let early = if is_dense { random.below(1 + self.uneven as u64) as i64 } else { 0 };
        let record = self.market.make(stream, skip && numbering != Numbering::Unnumbered, early);
        // A venue leaves a record out on its lines; what is dense shows it, unless it is the last of its numbering.
        if stream > 1 || random.below(20) > 0 {
            self.send(stream, record);
        }
        Some(record)
    }

    /// Makes the last record of a dense stream, which shows what is missing before it.
    pub(super) fn make_last(&mut self, stream: usize) {
        let record = self.market.make(stream, false, 0);
        self.send(stream, record);
    }

    fn send(&mut self, stream: usize, record: usize) {
        for line in self.lines.iter_mut().filter(|line| line.subscribed.contains(&stream)) {
            line.wire.push_back(Sent::Record(record));
        }
    }

    pub(super) fn connect(&mut self, line: usize, link: &mut Link) {
        // Only dense streams may come on two lines, and only while the venue does not number them anew.
        let streams = if line == 0 { 0..STREAMS.len() } else { 0..2 };
        let now = self.market.now;
        let line = &mut self.lines[line];
        if line.session.is_none() {
            line.session = Some(self.next_session);
            self.next_session += 1;
            link.step(Step::Opened);
        }
        let missing: Vec<usize> = streams.into_iter().filter(|stream| !line.subscribed.contains(stream)).collect();
        for stream in missing {
            line.subscribed.push(stream);
            line.wire.push_back(Sent::Confirmed { stream, at: now });
        }
    }

    pub(super) fn cut(&mut self, line: usize, link: &mut Link, why: &str) {
        if self.lines[line].session.is_some() {
            self.lines[line] = Line::default();
            self.requests.retain(|request| request.line != line);
            link.step(Step::Ended { why: why.to_owned() });
        }
    }

    pub(super) fn leave(&mut self, line: usize, link: &mut Link, random: &mut Random) {
        let stream = random.below(STREAMS.len() as u64) as usize;
        let Line { session, subscribed, wire } = &mut self.lines[line];
        let waits = |sent: &Sent| matches!(sent, Sent::Confirmed { stream: other, .. } if *other == stream);
        if session.is_some() && subscribed.contains(&stream) && !wire.iter().any(waits) {
            subscribed.retain(|other| *other != stream);
            link.step(Step::Left { streams: vec![key(stream)], by: LeftBy::Choice });
        }
    }

    /// Hands the next thing on a line to its link; returns whether there was one.
    pub(super) fn deliver(&mut self, line: usize, link: &mut Link, wall: Timestamp) -> bool {
        if self.lines[line].session.is_none() {
            return false;
        }
        let sent = self.lines[line].wire.pop_front();
        match sent {
            None => {}
            Some(Sent::Confirmed { stream, at }) => {
                let streams = vec![Covered { key: key(stream), numbering: STREAMS[stream].1 }];
                link.step(Step::Confirmed { streams, at: Timestamp(at * SECOND) });
            }
            Some(Sent::Record(record)) => {
                link.outbox().begin(wall, Origin::Live);
                let session = self.lines[line].session.unwrap_or_default();
                self.delivered.entry(session).or_default().push(record);
                self.emit(record, Origin::Live, link);
            }
        }
        let is_late = |sent: &Sent| match sent {
            Sent::Confirmed { .. } => false,
            Sent::Record(record) => self.market.made[*record].ts + LONGEST_WAY < self.market.now,
        };
        // The line is alive, and nothing is on its way for longer than records are.
        if !self.lines[line].wire.iter().any(is_late) {
            link.step(Step::Alive { at: wall });
        }
        sent.is_some()
    }

    fn emit(&self, record: usize, origin: Origin, link: &mut Link) {
        let made = self.market.made[record];
        let (symbol, position) = (STREAMS[made.stream].0, self.market.position(record));
        let mark = Mark { symbol, position, ts_event: Timestamp(made.ts * SECOND) };
        match position {
            Position::Unnumbered => link.outbox().emit(mark, &Quote { record: record as u64 }),
            _ => {
                let has_detail = origin == Origin::Live || STREAMS[made.stream].1 != Numbering::Sequence;
                link.outbox().emit(mark, &Trade { record: record as u64, detail: has_detail.then_some(7) });
            }
        }
    }

    /// A repeat, or two records in the wrong order.
    pub(super) fn misdeliver(&mut self, line: usize, random: &mut Random) {
        let is_dense = |record: usize| STREAMS[self.market.made[record].stream].1 == Numbering::Sequence;
        let is_numbered = |record: usize| STREAMS[self.market.made[record].stream].1 != Numbering::Unnumbered;
        let wire = &mut self.lines[line].wire;
        match (wire.front().copied(), wire.get(1).copied()) {
            (Some(Sent::Record(first)), _) if random.below(2) == 0 && is_numbered(first) => {
                wire.push_front(Sent::Record(first));
            }
            // Where numbers jump, nothing shows that one is still to come; and no venue mixes up two numberings.
            (Some(Sent::Record(a)), Some(Sent::Record(b)))
                if is_dense(a) && is_dense(b) && self.market.made[a].epoch == self.market.made[b].epoch =>
            {
                wire.swap(0, 1);
            }
            _ => {}
        }
    }

    /// Asks for one of the gaps that are due.
    pub(super) fn ask(&mut self, asks: &[Ask], links: &mut [Link], random: &mut Random) {
        let Some(line) = (0..self.lines.len()).find(|line| self.lines[*line].session.is_some()) else { return };
        let now = Instant::now();
        let is_out = |ask: &Ask| self.requests.iter().any(|request| request.ask.gap.id == ask.gap.id);
        let is_due = |ask: &&Ask| ask.not_before.is_none_or(|at| at <= now) && !is_out(ask);
        let due: Vec<&Ask> = asks.iter().filter(is_due).collect();
        if due.is_empty() {
            return;
        }
        let ask = due[random.below(due.len() as u64) as usize];
        let gap = &ask.gap;
        let since = gap.since.0.div_euclid(SECOND);
        let from = gap.after.map_or(since, |after| since.min(after.ts_event.0 / SECOND));
        // A request by numbers brings what its times alone would not.
        let wider = if gap.numbering == Numbering::Sequence { self.uneven } else { 0 };
        // Between two numbers nothing is shown without both of them.
        let oldest = if gap.before.is_some() { from } else { since } - wider;
        if oldest < self.market.now - self.memory {
            self.gave_up.push(gap.id);
            links[line].step(Step::Lost { gap: gap.id, why: "venue forgot".to_owned() });
            return;
        }
        let Some(stream) = STREAMS.iter().position(|(symbol, _)| **symbol == *gap.stream.symbol) else { return };
        let to = gap.before.map_or(i64::MAX, |edge| edge.ts_event.0 / SECOND);
        let range = (from - wider, to.saturating_add(wider));
        self.requests.push(Request { line, ask: ask.clone(), stream, range, oldest, reply: None });
    }

    pub(super) fn answer(&mut self, random: &mut Random) {
        let Some(at) = self.requests.iter().position(|request| request.reply.is_none()) else { return };
        let Request { stream, range, oldest, ask, .. } = &self.requests[at];
        // Only between known numbers can a history be caught that lags more than the venue says.
        let is_between = ask.gap.after.is_some() && ask.gap.before.is_some();
        let can_be_caught = STREAMS[*stream].1 == Numbering::Sequence && is_between;
        let lag = if self.lags && can_be_caught && random.below(3) == 0 { 30 } else { LAG };
        let mut rows = self.market.history(*stream, *range, ask.gap.after.is_none(), (lag, self.memory));
        let mut is_complete = *oldest >= self.market.now - self.memory;
        // A page, in either order.
        if random.below(3) == 0 {
            rows.reverse();
        }
        if rows.len() > 4 && random.below(3) == 0 {
            rows.truncate(4);
            is_complete = false;
        }
        self.requests[at].reply = Some((rows, is_complete));
    }

    /// Hands an answer to the link of its session.
    pub(super) fn receive(&mut self, links: &mut [Link], wall: Timestamp) {
        let Some(at) = self.requests.iter().position(|request| request.reply.is_some()) else { return };
        let Request { line, ask, reply, .. } = self.requests.swap_remove(at);
        let Some((records, is_complete)) = reply else { return };
        let link = &mut links[line];
        link.outbox().begin(wall, Origin::Backfill);
        records.into_iter().for_each(|record| self.emit(record, Origin::Backfill, link));
        let (gap, number) = (ask.gap.id, ask.number);
        link.step(Step::Asked { gap });
        if is_complete {
            link.step(Step::Answered { gap, ask: number });
        }
    }
}

pub(super) fn key(stream: usize) -> StreamKey {
    let (symbol, numbering) = STREAMS[stream];
    StreamKey::new(if numbering == Numbering::Unnumbered { "quotes" } else { "trades" }, symbol)
}
