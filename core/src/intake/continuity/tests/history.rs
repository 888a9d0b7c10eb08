//! Random histories: a venue that makes, a line that is cut, a process that is killed, a history that lags and forgets.
//! Once all is healed, everything that was made since the first confirmation is there, once; and what was said to be
//! absent or lost is.

mod ledger;

use std::collections::BTreeSet;

use super::host::{Host, Logged};
use crate::{
    intake::continuity::OpenAsk,
    policy::Random,
    protocol::GapId,
    row::Numbering,
    sim::market::{Line, Made, Market, Sent},
    spool::{Control, GapOutcome},
};

const STREAMS: [Numbering; 4] = [Numbering::Sequence, Numbering::Sequence, Numbering::Sequence, Numbering::Ordered];
/// How long the history lags, and how long after a confirmation the host asks.
const LAG: i64 = 3;
/// How long the history remembers.
const MEMORY: i64 = 400;
/// A line on which a record waits for longer vouches for nothing: the log is not told that it is alive.
const LONGEST_WAY: i64 = 60;
/// The market's time is in seconds.
const SECOND: i64 = 1_000_000_000;

/// A request on its way to the venue and back.
#[derive(Debug)]
struct Request {
    session: u32,
    gap: GapId,
    number: u64,
    stream: usize,
    range: (i64, i64),
    neighbour: bool,
    is_between: bool,
    /// Records that the venue answered with, and whether that was all; `None` while the request is on its way.
    reply: Option<(Vec<usize>, bool)>,
}

struct World {
    random: Random,
    host: Host,
    market: Market,
    lines: [Line; 2],
    requests: Vec<Request>,
    next_session: u32,
    /// When each gap could be asked for first, by gap and number of the question.
    due: std::collections::BTreeMap<(GapId, u64), i64>,
    /// The number of made records when each stream was confirmed first.
    owed_from: [Option<(usize, i64)>; STREAMS.len()],
    excused: BTreeSet<usize>,
    /// Records that were believed not to be, since the session that was the first one lasted.
    trusted: BTreeSet<usize>,
    /// The stream of each gap that was given up.
    given_up: Vec<usize>,
    lagging: bool,
    /// How long the history remembers.
    memory: i64,
    /// By how many seconds times may go back where numbers grow.
    uneven: i64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut host = Host::new();
        // The fold is compared at every step in one history of a hundred, else at kills and at the end.
        host.checked = seed.is_multiple_of(100);
        let mut world = Self {
            random: Random::new(seed),
            host,
            market: Market::new(&STREAMS),
            lines: Default::default(),
            requests: Vec::new(),
            next_session: 1,
            due: Default::default(),
            owed_from: [None; STREAMS.len()],
            excused: BTreeSet::new(),
            trusted: BTreeSet::new(),
            given_up: Vec::new(),
            lagging: seed.is_multiple_of(3),
            memory: MEMORY,
            uneven: i64::from(!seed.is_multiple_of(2)),
        };
        for symbol in ["A", "B", "C", "D"] {
            world.host.stream(symbol);
        }
        world
    }

    fn roll(&mut self, sides: u64) -> usize {
        self.random.below(sides) as usize
    }

    fn step(&mut self) {
        self.market.now += i64::from(self.random.below(3) == 0);
        self.host.now = self.market.now;
        let line = self.roll(8) / 7;
        match self.roll(100) {
            0..30 => self.make(),
            30..62 => self.deliver(line),
            62..67 => self.connect(line),
            67..69 => self.cut(line),
            69 => self.kill(),
            70..72 => self.host.roll(),
            72..74 => self.leave(line),
            74 => self.restart(),
            75..77 => self.fault(line),
            77..86 => self.ask(),
            86..93 => self.venue_answers(),
            _ => self.receive(),
        }
    }

    fn make(&mut self) {
        // A quiet stream, and one that goes quiet early.
        let stream = [0, 0, 0, 1, 2, 3, 3, 3][self.roll(8)];
        if stream == 1 && self.market.now > 1_100 {
            return;
        }
        let skip = self.roll(40) == 0 || (STREAMS[stream] == Numbering::Ordered && self.roll(3) == 0);
        let early = if STREAMS[stream] == Numbering::Sequence { self.roll(1 + self.uneven as u64) as i64 } else { 0 };
        let record = self.market.make(stream, skip, early);
        // A venue leaves a record out on its lines; what is dense shows it, unless it is the last of its numbering.
        let is_sent = stream > 1 || self.roll(20) > 0;
        if is_sent {
            self.send(stream, record);
        }
    }

    fn send(&mut self, stream: usize, record: usize) {
        for line in self.lines.iter_mut().filter(|line| line.subscribed.contains(&stream)) {
            line.wire.push_back(Sent::Record(record));
        }
    }

    /// Numbers a stream anew of whose present numbering the host has seen a record: before that, nobody could tell.
    fn restart(&mut self) {
        let known = self.host.continuity.streams.get(2).unwrap();
        if known.last.is_some() && known.epoch == self.market.books[2].epoch() {
            self.market.restart(2);
        }
    }

    fn connect(&mut self, line: usize) {
        let session = self.next_session.max(self.host.continuity.next_session());
        let now = self.market.now;
        // Only dense streams may come on two lines, and only while the venue does not number them anew.
        let streams = if line == 0 { 0..STREAMS.len() } else { 0..2 };
        let line = &mut self.lines[line];
        if line.session.is_none() {
            self.next_session = session + 1;
            line.session = Some(session);
        }
        let missing: Vec<usize> = streams.into_iter().filter(|stream| !line.subscribed.contains(stream)).collect();
        for stream in missing {
            line.subscribed.push(stream);
            line.wire.push_back(Sent::Confirmed { stream, at: now });
        }
    }

    fn deliver(&mut self, line: usize) {
        let Some(session) = self.lines[line].session else { return };
        match self.lines[line].wire.pop_front() {
            None => {}
            Some(Sent::Confirmed { stream, at }) => {
                self.host.confirm(session, line as u16, &[(stream as u32, STREAMS[stream])], at * SECOND);
                let first = self.market.made.iter().position(|made| made.ts > at);
                self.owed_from[stream].get_or_insert_with(|| (first.unwrap_or(self.market.made.len()), at));
            }
            Some(Sent::Record(record)) => {
                let made = self.market.made[record];
                let position = self.market.position(record);
                self.host.live(session, made.stream as u32, position, made.ts * SECOND, record as u32);
            }
        }
        self.vouch(line, session);
    }

    /// The line is alive, and nothing is on its way for longer than records are.
    fn vouch(&mut self, line: usize, session: u32) {
        let is_late = |sent: &Sent| match sent {
            Sent::Confirmed { .. } => false,
            Sent::Record(record) => self.market.made[*record].ts + LONGEST_WAY < self.market.now,
        };
        if !self.lines[line].wire.iter().any(is_late) {
            self.host.alive(session);
        }
    }

    /// A repeat, or two records in the wrong order.
    fn fault(&mut self, line: usize) {
        let wire = &mut self.lines[line].wire;
        match (wire.front().copied(), wire.get(1).copied()) {
            (Some(Sent::Record(first)), _) if self.random.below(2) == 0 => wire.push_front(Sent::Record(first)),
            (Some(Sent::Record(a)), Some(Sent::Record(b))) => {
                // Where numbers jump, nothing shows that one is still to come; and no venue mixes up two numberings.
                let (first, second) = (self.market.made[a], self.market.made[b]);
                if first.epoch == second.epoch
                    && [first, second].iter().all(|m| STREAMS[m.stream] == Numbering::Sequence)
                {
                    wire.swap(0, 1);
                }
            }
            _ => {}
        }
    }

    fn cut(&mut self, line: usize) {
        if let Some(session) = self.lines[line].session {
            self.lines[line] = Line::default();
            self.requests.retain(|request| request.session != session);
            self.host.end(session);
        }
    }

    fn kill(&mut self) {
        self.lines = Default::default();
        self.requests.clear();
        self.host.boot();
    }

    fn leave(&mut self, line: usize) {
        let stream = self.roll(STREAMS.len() as u64);
        let Some(session) = self.lines[line].session else { return };
        if self.lines[line].subscribed.contains(&stream) {
            let waits = |sent: &Sent| matches!(sent, Sent::Confirmed { stream: other, .. } if *other == stream);
            if self.lines[line].wire.iter().any(waits) {
                return;
            }
            self.lines[line].subscribed.retain(|&other| other != stream);
            self.host.leave(session, stream as u32);
        }
    }

    fn ask(&mut self) {
        let asks = self.host.asks();
        let now = self.market.now;
        for ask in &asks {
            let pause = if ask.empty_seen_at.is_some() { 61 } else { LAG + 1 };
            self.due.entry((ask.gap.id, ask.number)).or_insert(now + pause);
        }
        let Some(session) = self.lines[0].session.or(self.lines[1].session) else { return };
        let may = |ask: &&OpenAsk| {
            let open = ask.gap.before.is_none();
            let is_known = !self.requests.iter().any(|request| request.gap == ask.gap.id);
            is_known && self.due[&(ask.gap.id, ask.number)] <= now && (!open || ask.is_covered || ask.has_left)
        };
        let due: Vec<&OpenAsk> = asks.iter().filter(may).collect();
        if due.is_empty() {
            return;
        }
        let ask = due[self.random.below(due.len() as u64) as usize];
        let since = ask.gap.since.0.div_euclid(SECOND);
        if since < now - self.memory {
            return self.give_up(ask.gap.id);
        }
        let to = ask.gap.before.map_or(i64::MAX, |edge| edge.ts_event.0 / SECOND);
        // A request by numbers brings what its times alone would not.
        let wider = if ask.gap.numbering == Numbering::Sequence { self.uneven } else { 0 };
        let from = ask.gap.after.map_or(since, |after| since.min(after.ts_event.0 / SECOND));
        let range = (from - wider, to.saturating_add(wider));
        let (gap, number, stream) = (ask.gap.id, ask.number, ask.stream as usize);
        let neighbour = ask.gap.after.is_none();
        let is_between = ask.gap.after.is_some() && ask.gap.before.is_some();
        self.requests.push(Request { session, gap, number, stream, range, neighbour, is_between, reply: None });
    }

    fn give_up(&mut self, gap: GapId) {
        let missing: Vec<usize> = self.missing(gap).collect();
        let given_up = missing.clone();
        self.excused.extend(missing);
        let stream = self.host.continuity.gap_filled(gap).expect("the gap is open").0;
        self.given_up.push(stream as usize);
        self.host.lost(gap);
        if self.host.outcomes().last() == Some(&GapOutcome::Live) {
            self.trusted.extend(given_up);
        }
    }

    /// Returns the made records that lie in a gap.
    fn missing(&self, gap: GapId) -> impl Iterator<Item = usize> {
        let (id, _) = self.host.continuity.gap_filled(gap).expect("the gap is open");
        let stream = self.host.continuity.streams.get(id).unwrap();
        let open = stream.gaps.iter().find(|open| open.id == gap).expect("the gap is open");
        let inside = |(record, made): (usize, &Made)| {
            let is_inside = made.stream == id as usize && made.epoch == open.epoch && open.hole_of(made.n).is_some();
            is_inside.then_some(record)
        };
        self.market.made.iter().enumerate().filter_map(inside).collect::<Vec<_>>().into_iter()
    }

    fn venue_answers(&mut self) {
        let Some(at) = self.requests.iter().position(|request| request.reply.is_none()) else { return };
        // Only between known numbers can a history be caught that lags more than the venue says.
        let request = &self.requests[at];
        let can_be_caught = STREAMS[request.stream] == Numbering::Sequence && request.is_between;
        let lag = if self.lagging && can_be_caught && self.random.below(3) == 0 { 30 } else { LAG };
        let mut rows = self.market.history(request.stream, request.range, request.neighbour, (lag, self.memory));
        // A page, in either order.
        let mut complete = request.range.0 >= self.market.now - self.memory;
        if self.random.below(3) == 0 {
            rows.reverse();
        }
        if rows.len() > 4 && self.random.below(3) == 0 {
            rows.truncate(4);
            complete = false;
        }
        self.requests[at].reply = Some((rows, complete));
    }

    fn receive(&mut self) {
        let Some(at) = self.requests.iter().position(|request| request.reply.is_some()) else { return };
        let request = self.requests.swap_remove(at);
        let Some((records, complete)) = request.reply else { return };
        let row = |record: usize| {
            let ts = self.market.made[record].ts * SECOND;
            (request.stream as u32, self.market.position(record), ts, record as u32)
        };
        let rows: Vec<_> = records.into_iter().map(row).collect();
        self.host.history(request.session, &rows);
        if complete && self.host.continuity.gap_filled(request.gap).is_some() {
            let missing: Vec<usize> = self.missing(request.gap).collect();
            let before = self.host.log.len();
            self.host.answered(request.gap, request.number);
            let says_absent = self.host.log[before..]
                .iter()
                .any(|item| matches!(item, Logged::Control(Control::GapClosed { outcome: GapOutcome::Absent, .. })));
            assert!(!says_absent || missing.is_empty(), "the venue made {missing:?}, which are said to be absent");
        }
    }

    fn heal(&mut self) {
        self.lagging = false;
        self.connect(0);
        for stream in 0..2 {
            let last = self.market.make(stream, false, 0);
            self.send(stream, last);
        }
        for _ in 0..4_000 {
            self.market.now += i64::from(self.random.below(4) == 0);
            self.host.now = self.market.now;
            self.connect(0);
            (0..4).for_each(|_| self.deliver(0));
            self.deliver(1);
            self.ask();
            self.venue_answers();
            self.receive();
            let idle = self.lines.iter().all(|line| line.wire.is_empty());
            if idle && self.requests.is_empty() && self.host.asks().is_empty() {
                return;
            }
        }
        panic!("gaps stay open: {:#?}", self.host.asks());
    }

    fn check(&mut self) {
        self.host.checked = true;
        self.host.check();
        let mut stored = BTreeSet::new();
        for item in &self.host.log {
            let Logged::Row(row, record) = item else { continue };
            let made = self.market.made[*record as usize];
            assert_eq!(row.epoch, made.epoch, "{made:?} is in the wrong numbering");
            assert!(stored.insert(*record as usize), "{made:?} is there twice");
        }
        for (record, made) in self.market.made.iter().enumerate() {
            let is_owed = self.owed_from[made.stream].is_some_and(|(first, at)| record >= first && made.ts > at);
            assert!(
                !is_owed || stored.contains(&record) || self.excused.contains(&record),
                "{record} {made:?} is missing"
            );
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    world.connect(0);
    for _ in 0..300 {
        world.step();
    }
    world.heal();
    world.check();
}

#[test]
fn after_any_history_all_that_was_made_is_there_once() {
    for seed in 0..2_000 {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
