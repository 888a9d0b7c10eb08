//! What is known of one stream's time: marks, each of which holds until the next one. So nothing overlaps, and nothing is
//! left out.

use std::sync::Arc;

use serde::Serialize;

use crate::row::Timestamp;

/// What is known of a stretch of a stream's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All that the venue sent is in the spool, or was: it came live, or is proved never to have been.
    Received,
    /// Something was missing, and the venue's history has given it.
    Backfilled,
    /// Something may be missing, and is asked for.
    Open,
    /// Numbers are missing that the venue never gave.
    Absent,
    /// Something is missing, or may be, that could have been had and cannot any more.
    Lost,
    /// Nobody can tell: nobody listened to what the venue does not repeat, or the spool does not say.
    Unknown,
    /// It was not subscribed to, on purpose.
    NotSubscribed,
    /// The market was closed, by its schedule: nothing was to come.
    Closed,
}

/// A state with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) state: State,
    pub(crate) why: Option<Arc<str>>,
    pub(crate) joined: Option<Joined>,
}

/// What a stretch was before it was joined of several that lie long ago: between them all was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Joined {
    /// How many stretches.
    pub parts: usize,
    /// For how many nanoseconds in all the state held.
    pub lasted: i64,
}

/// From when on something is known. It holds until the next mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) from: Timestamp,
    pub(crate) known: Known,
}

/// The end of a stream's marks; what lies before was settled, and only the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Timeline {
    /// Growing in time, at least one; no two neighbours say the same.
    marks: Vec<Mark>,
    /// From when on the store has something else.
    changed: Option<Timestamp>,
}

impl State {
    /// All of them, with their names.
    pub const ALL: [(Self, &str); 8] = [
        (Self::Received, "received"),
        (Self::Backfilled, "backfilled"),
        (Self::Open, "open"),
        (Self::Absent, "absent"),
        (Self::Lost, "lost"),
        (Self::Unknown, "unknown"),
        (Self::NotSubscribed, "not_subscribed"),
        (Self::Closed, "closed"),
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    /// Returns the state of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
    }

    /// Returns whether all that the venue sent is there.
    pub fn is_complete(self) -> bool {
        matches!(self, Self::Received | Self::Backfilled | Self::Absent)
    }

    /// Returns whether something that the venue sent may not be there. Where nothing was to come neither holds.
    pub fn is_broken(self) -> bool {
        matches!(self, Self::Open | Self::Lost | Self::Unknown)
    }
}

impl Known {
    pub(crate) fn new(state: State) -> Self {
        Self { state, why: None, joined: None }
    }

    pub(crate) fn because(state: State, why: &str) -> Self {
        Self { state, why: Some(why.into()), joined: None }
    }
}

impl Joined {
    /// Returns what the store has of it.
    pub(super) fn stored(parts: Option<i64>, lasted: Option<i64>) -> Option<Self> {
        let (parts, lasted) = parts.zip(lasted)?;
        Some(Self { parts: usize::try_from(parts).unwrap_or(usize::MAX), lasted })
    }
}

impl Timeline {
    /// Returns one that begins.
    pub(crate) fn new(from: Timestamp, known: Known) -> Self {
        Self { marks: vec![Mark { from, known }], changed: Some(from) }
    }

    /// Returns the end of one that the store has; `None` without a mark.
    pub(crate) fn stored(marks: Vec<Mark>) -> Option<Self> {
        (!marks.is_empty()).then_some(Self { marks, changed: None })
    }

    /// Returns the marks.
    pub(crate) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Returns the last mark, which holds until now.
    pub(crate) fn last(&self) -> &Mark {
        self.marks.last().expect("there is one from the beginning, and none is removed but for another")
    }

    /// Returns the stretches of a state; the last one may be without an end, which is that of all time.
    pub(crate) fn stretches(&self, state: State) -> Vec<(Timestamp, Timestamp)> {
        let ends = self.marks.iter().skip(1).map(|mark| mark.from).chain([Timestamp(i64::MAX)]);
        let of_state = self.marks.iter().zip(ends).filter(|(mark, _)| mark.known.state == state);
        of_state.map(|(mark, end)| (mark.from, end)).collect()
    }

    /// From `at` on something else is known.
    pub(crate) fn turn(&mut self, at: Timestamp, known: Known) {
        let at = at.max(self.last().from);
        self.paint((at, Timestamp(i64::MAX)), |_| Some(known.clone()));
    }

    /// Changes what is known between two times, where `change` has something to say.
    pub(crate) fn paint(
        &mut self,
        (from, to): (Timestamp, Timestamp),
        change: impl Fn(&Known) -> Option<Known>,
    ) -> bool {
        let from = from.max(self.marks[0].from);
        if from >= to {
            return false;
        }
        let first = self.split(from);
        let end = if to == Timestamp(i64::MAX) { self.marks.len() } else { self.split(to) };
        let mut painted = None;
        for mark in &mut self.marks[first..end] {
            if let Some(known) = change(&mark.known).filter(|known| mark.known != *known) {
                painted = painted.or(Some(mark.from));
                mark.known = known;
            }
        }
        for index in (first.max(1)..=end.min(self.marks.len() - 1)).rev() {
            if self.marks[index].known == self.marks[index - 1].known {
                self.marks.remove(index);
            }
        }
        // A mark may be gone that stood there.
        self.changed = match (self.changed, painted) {
            (Some(changed), Some(painted)) => Some(changed.min(painted)),
            (changed, painted) => changed.or(painted),
        };
        painted.is_some()
    }

    /// Makes a mark at a time that is not before the first; returns where it is.
    fn split(&mut self, at: Timestamp) -> usize {
        let index = self.marks.partition_point(|mark| mark.from < at);
        if self.marks.get(index).is_none_or(|mark| mark.from > at) {
            let known = self.marks[index - 1].known.clone();
            self.marks.insert(index, Mark { from: at, known });
        }
        index
    }

    /// Returns what the store has to learn: from when on its marks are void, and those that take their place.
    pub(crate) fn changes(&self) -> Option<(Timestamp, &[Mark])> {
        let changed = self.changed?;
        let first = self.marks.partition_point(|mark| mark.from < changed);
        Some((changed, &self.marks[first..]))
    }

    /// The store has learnt all.
    pub(crate) fn saved(&mut self) {
        self.changed = None;
        let open = self.marks.iter().position(|mark| mark.known.state == State::Open).unwrap_or(usize::MAX);
        // The one before it too: they may become one.
        let settled = self.marks.len().saturating_sub(KEPT).min(open.saturating_sub(1));
        self.marks.drain(..settled);
    }
}

/// So many marks are kept in memory at least: what comes late changes no older ones.
pub(super) const KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Timeline {
        let mut marks = text.split(' ').map(|mark| {
            let (state, from) = mark.split_at(1);
            (Timestamp(from.parse().unwrap()), known(state))
        });
        let (from, first) = marks.next().unwrap();
        let mut line = Timeline::new(from, first);
        marks.for_each(|(from, known)| line.turn(from, known));
        line
    }

    fn known(state: &str) -> Known {
        Known::new(match state {
            "r" => State::Received,
            "b" => State::Backfilled,
            "o" => State::Open,
            "l" => State::Lost,
            _ => State::Unknown,
        })
    }

    fn shown(line: &Timeline) -> String {
        let mark = |mark: &Mark| format!("{}{}", &mark.known.state.name()[..1], mark.from.0);
        line.marks().iter().map(mark).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_known_anew_holds_between_two_times_and_neighbours_that_say_the_same_are_one() {
        let mut painted = line("r0 o10 r20");
        assert!(painted.paint((Timestamp(12), Timestamp(15)), |_| Some(known("l"))));
        assert_eq!(shown(&painted), "r0 o10 l12 o15 r20");
        assert!(painted.paint((Timestamp(0), Timestamp(30)), |old| (old.state == State::Open).then(|| known("r"))));
        assert_eq!(shown(&painted), "r0 l12 r15");
        assert!(painted.paint((Timestamp(12), Timestamp(15)), |_| Some(known("r"))));
        assert_eq!(shown(&painted), "r0", "a stream without a gap is one interval that grows");
        assert!(!painted.paint((Timestamp(3), Timestamp(3)), |_| Some(known("l"))), "no time, no change");
    }

    #[test]
    fn time_never_goes_back() {
        let mut turned = line("r10");
        turned.turn(Timestamp(5), known("o"));
        assert_eq!(shown(&turned), "o10");
        assert!(turned.paint((Timestamp(0), Timestamp(12)), |_| Some(known("l"))));
        assert_eq!(shown(&turned), "l10 o12", "nothing is said of a time before the first mark");
    }

    #[test]
    fn the_store_learns_what_has_changed_and_memory_forgets_what_is_settled() {
        let mut kept = line("r0 o10 r20");
        kept.saved();
        assert_eq!(kept.changes(), None);
        kept.paint((Timestamp(10), Timestamp(20)), |_| Some(known("r")));
        let (from, marks) = kept.changes().unwrap();
        assert_eq!((from, marks.len()), (Timestamp(10), 0), "the mark at 10 is gone, and none takes its place");

        let mut long = line("r0");
        for n in 1..100 {
            long.turn(Timestamp(n), known(if n % 2 == 1 { "b" } else { "r" }));
        }
        long.saved();
        assert_eq!(long.marks().len(), KEPT);
        long.paint((Timestamp(90), Timestamp(91)), |_| Some(known("o")));
        (100..200).for_each(|n| long.turn(Timestamp(n), known(if n % 2 == 1 { "b" } else { "r" })));
        long.saved();
        assert_eq!(long.stretches(State::Open).len(), 1, "what is open is not settled");
    }
}
