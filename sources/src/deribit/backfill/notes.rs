//! What the replies of this session said about each gap, and so which host to ask next, from where, and when to give up.

use std::{collections::HashMap, time::Duration};

use tidegate_core::{
    protocol::{Edge, Gap, GapId},
    row::Timestamp,
};

use super::{super::selection::later, number, page::Page};

/// What the replies of this session said.
#[derive(Debug)]
pub(super) struct Notes {
    has_history: bool,
    of: HashMap<GapId, Note>,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Host {
    /// Remembers about a day.
    #[default]
    Main,
    /// Remembers everything, some time later.
    History,
}

/// Where a page begins. It must hold that trade, or one of that time, unless nothing older can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At a number.
    Number(u64),
    /// At a time.
    Time(Timestamp),
    /// At the time up to which nothing is missing: whatever comes first is what was made first since.
    Since(Timestamp),
}

/// What the replies said about one gap.
#[derive(Debug, Default)]
struct Note {
    next: Host,
    /// Whether to ask by time: after the venue has numbered anew, numbers name other trades.
    by_time: bool,
    /// Where the pages that follow each other, from the edge of the gap on, have come to.
    reached: Option<Place>,
    /// Whether one of these pages held the trade behind the gap.
    end_is_held: bool,
    /// Whether one of these pages held a trade that cannot be read.
    is_partial: bool,
    /// Whether the main host was asked to the end of what it has.
    main_is_exhausted: bool,
    /// How often, and when last, the host that remembers longest had nothing of the edge.
    forgotten: u32,
    forgotten_at: Option<Timestamp>,
    /// Everything was fetched, but not everything could be read.
    is_unreadable: bool,
}

/// What the main host remembers for certain, of "about 24 hours".
const REMEMBERED: Duration = Duration::from_secs(23 * 3600);
/// A trade that is younger than this may not have reached the hosts yet.
const SETTLED: Duration = Duration::from_secs(3600);
/// So many times, so far apart, both hosts must have been without the edge of a gap.
const LOST_AFTER: u32 = 2;
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// More gaps than this are not kept in mind; it only saves requests.
const MOST: usize = 100_000;

impl Notes {
    pub(super) fn new(has_history: bool) -> Self {
        Self { has_history, of: HashMap::new() }
    }

    pub(super) fn clear(&mut self) {
        self.of.clear();
    }

    /// Returns whether the gap was asked for already.
    pub(super) fn has(&self, gap: &Gap) -> bool {
        self.of.contains_key(&gap.id)
    }

    /// Returns the host to ask.
    pub(super) fn host(&self, gap: &Gap) -> Host {
        self.of.get(&gap.id).map_or(Host::Main, |note| note.next)
    }

    /// Returns from where to ask, forwards or, without a left edge, backwards.
    pub(super) fn begin(&self, gap: &Gap, now: Timestamp) -> Option<Place> {
        let note = self.of.get(&gap.id);
        let reached = note.and_then(|note| note.reached);
        if self.host(gap) == Host::Main && is_vouched(gap, now) {
            return Some(reached.unwrap_or(Place::Since(gap.since)));
        }
        let by_time = self.is_by_time(gap, now);
        let Some(after) = gap.after else {
            let begin = if by_time { Some(Place::Since(gap.since)) } else { number(gap.before).map(Place::Number) };
            return reached.or(begin);
        };
        if by_time {
            return Some(reached.unwrap_or(Place::Time(after.ts_event)));
        }
        // All below the left edge is there, so it may be ahead of what the pages had.
        let edge = after.position.number()?;
        match reached {
            Some(Place::Number(reached)) if reached > edge => Some(Place::Number(reached)),
            _ => Some(Place::Number(edge)),
        }
    }

    /// Returns whether the next page is asked for by time. Without a left edge nothing in a page shows that the host has all from
    /// then on: it must remember that.
    pub(super) fn is_by_time(&self, gap: &Gap, now: Timestamp) -> bool {
        let Some(note) = self.of.get(&gap.id).filter(|note| note.by_time) else { return false };
        let is_begun_by_number = matches!(note.reached, Some(Place::Number(_)));
        gap.after.is_some() || !is_begun_by_number && (note.next == Host::History || remembers(gap, now))
    }

    /// Returns why nothing can be done about a gap any more.
    pub(super) fn lost(&self, gap: &Gap, now: Timestamp) -> Option<&'static str> {
        let note = self.of.get(&gap.id)?;
        if note.is_unreadable {
            return Some("a trade in it cannot be read; it is kept raw");
        }
        let newest = gap.before.map_or(gap.since, |before| before.ts_event.max(gap.since));
        let is_forgotten = note.forgotten >= LOST_AFTER && later(newest, SETTLED) < now;
        is_forgotten.then_some("the venue forgot")
    }

    /// Notes that a request came to nothing: the other host is next. That says nothing of what the venue has.
    pub(super) fn failed(&mut self, gaps: &[Gap], host: Host) {
        let has_history = self.has_history;
        for gap in gaps {
            self.note(gap.id).turn(host, has_history);
        }
    }

    /// Notes that a host does not know the instrument any more.
    pub(super) fn unknown(&mut self, gaps: &[Gap], host: Host, now: Timestamp) {
        let has_history = self.has_history;
        for gap in gaps {
            self.note(gap.id).in_vain(host, has_history, now);
        }
    }

    /// Notes gaps that a request for many did not answer: each is asked for by itself.
    pub(super) fn failed_sweep(&mut self, gaps: &[GapId]) {
        for &gap in gaps {
            self.note(gap);
        }
    }

    /// Notes what a page says about a gap, and returns whether it answers it.
    pub(super) fn on_page(&mut self, gap: &Gap, page: &Page<'_>, host: Host, now: Timestamp) -> bool {
        let has_history = self.has_history;
        let (begin, by_time) = (self.begin(gap, now), self.is_by_time(gap, now));
        let note = self.note(gap.id);
        if host == Host::Main {
            note.main_is_exhausted = !page.has_more;
        }
        if begin.is_some_and(|begin| !note.begins_at(begin, gap, page)) {
            note.in_vain(host, has_history, now);
            return false;
        }
        note.is_partial |= page.is_partial;
        note.end_is_held |= gap.before.is_some_and(|before| page.holds(gap, before));
        let by_number = matches!(begin, Some(Place::Number(_)));
        let step = if gap.after.is_some() || by_time {
            note.forwards(gap, page, by_number)
        } else {
            note.backwards(gap, page, host, now)
        };
        match step {
            Step::Whole if note.is_partial => note.is_unreadable = true,
            Step::Whole => return self.answered(gap),
            Step::NextPage => note.next = host,
            Step::OlderHost if has_history => note.next = Host::History,
            Step::OlderHost | Step::OtherHost => note.in_vain(host, has_history, now),
        }
        false
    }

    fn answered(&mut self, gap: &Gap) -> bool {
        self.of.remove(&gap.id);
        true
    }

    fn note(&mut self, gap: GapId) -> &mut Note {
        if self.of.len() >= MOST && !self.of.contains_key(&gap) {
            self.of.clear();
        }
        self.of.entry(gap).or_default()
    }
}

impl Note {
    /// Goes to the other host and begins anew there.
    fn turn(&mut self, host: Host, has_history: bool) {
        (self.reached, self.end_is_held, self.is_partial) = (None, false, false);
        if host == Host::Main && has_history {
            self.next = Host::History;
            return;
        }
        self.next = Host::Main;
        self.by_time = !self.by_time;
        self.main_is_exhausted = false;
    }

    /// Returns whether a page begins where the one before it ended, or at the edge of the gap: at the very trade, since
    /// after the venue has numbered anew another one may have its number.
    fn begins_at(&self, begin: Place, gap: &Gap, page: &Page<'_>) -> bool {
        let edge = gap.after.or(gap.before).filter(|edge| self.reached.is_none() || begin == number_of(*edge));
        match (edge, begin) {
            (_, Place::Since(_)) => true,
            (Some(edge), _) => page.holds(gap, edge),
            (None, Place::Number(number)) => page.of(gap).any(|trade| trade.trade_seq.0 == number),
            (None, Place::Time(time)) => page.of(gap).any(|trade| trade.ts_event() == time),
        }
    }

    /// Counts a walk that came to its end without the edges; soon after another one it tells nothing new.
    fn in_vain(&mut self, host: Host, has_history: bool, now: Timestamp) {
        let is_news = self.forgotten_at.is_none_or(|at| later(at, LOOK_AGAIN) <= now);
        if is_news && (host == Host::History || !has_history) {
            self.forgotten += 1;
            self.forgotten_at = Some(now);
        }
        self.turn(host, has_history);
    }

    /// Takes a page that begins where the last one ended.
    fn forwards(&mut self, gap: &Gap, page: &Page<'_>, by_number: bool) -> Step {
        let is_bounded = gap.before.is_some();
        if page.has_more && !(self.end_is_held && page.is_sorted) {
            let last = page.of(gap).last().map(|trade| match by_number {
                true => Place::Number(trade.trade_seq.0),
                false => Place::Time(trade.ts_event()),
            });
            return self.go_on(last);
        }
        let is_whole = if is_bounded { self.end_is_held } else { self.main_is_exhausted };
        if is_whole { Step::Whole } else { Step::OtherHost }
    }

    /// The same, from the right end of a baseline to the newest trade before its time, or to the first that ever was.
    fn backwards(&mut self, gap: &Gap, page: &Page<'_>, host: Host, now: Timestamp) -> Step {
        let lowest = page.of(gap).map(|trade| Place::Number(trade.trade_seq.0)).next();
        let reaches_back = page.of(gap).any(|trade| trade.ts_event() < gap.since);
        if page.has_more && !reaches_back {
            return self.go_on(lowest);
        }
        if host == Host::Main && !reaches_back && !remembers(gap, now) {
            self.reached = lowest.or(self.reached);
            return Step::OlderHost;
        }
        let is_whole = host == Host::Main || gap.before.is_some() || self.main_is_exhausted;
        if is_whole { Step::Whole } else { Step::OtherHost }
    }

    /// Notes how far the pages have come; a page that did not come farther is the last one of this host.
    fn go_on(&mut self, reached: Option<Place>) -> Step {
        if reached.is_none() || reached == self.reached {
            return Step::OtherHost;
        }
        self.reached = reached;
        Step::NextPage
    }
}

/// What a page means for a gap.
enum Step {
    /// The pages hold all of it.
    Whole,
    /// There is one more.
    NextPage,
    /// This host has no more, and that is not all.
    OtherHost,
    /// The same, and the history host goes on where this one ended.
    OlderHost,
}

fn number_of(edge: Edge) -> Place {
    Place::Number(edge.position.number().unwrap_or_default())
}

/// Returns whether the main host still has all from the gap's time on.
fn remembers(gap: &Gap, now: Timestamp) -> bool {
    later(gap.since, REMEMBERED) > now
}

/// Returns whether the main host has forgotten the left edge and remembers all that may be missing, since a session has
/// vouched for the time between. Only then the time says what is owed: a number is right whatever the clocks say. And what
/// lies between two numbers is absent only where both are shown.
fn is_vouched(gap: &Gap, now: Timestamp) -> bool {
    let is_forgotten = |after: Edge| after.ts_event < gap.since && later(after.ts_event, REMEMBERED) <= now;
    gap.before.is_none() && gap.after.is_some_and(is_forgotten) && remembers(gap, now)
}
