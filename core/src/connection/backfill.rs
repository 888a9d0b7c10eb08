//! Which open gaps are to be asked for now.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    intake::Ask,
    protocol::{Gap, GapId},
};

/// The open gaps of a source as intake shows them, without those that are taken care of. Reads no clock.
///
/// A gap that was asked for is shown to the protocol again only when intake has worked off the answer: the board then
/// shows it changed, or no longer.
#[derive(Debug, Default)]
pub(super) struct Backfill {
    asks: Arc<[Ask]>,
    /// Where a gap stands in `asks`.
    places: HashMap<GapId, usize>,
    held: HashMap<GapId, Hold>,
    /// Nobody writes on the board any more.
    is_deaf: bool,
}

/// Why a gap is not shown to the protocol.
#[derive(Debug)]
struct Hold {
    /// The gap as it was when the last answer to it was handed over.
    settling: Option<Ask>,
    /// Ends then, whatever the board shows; `None` while a request waits or is out.
    until: Option<Instant>,
    /// Answers in a row that changed nothing.
    in_vain: u32,
}

impl Backfill {
    /// Takes what the board shows now.
    pub(super) fn show(&mut self, asks: Arc<[Ask]>) {
        self.asks = asks;
        self.places = self.asks.iter().enumerate().map(|(place, ask)| (ask.gap.id, place)).collect();
        let (asks, places) = (&self.asks, &self.places);
        self.held.retain(|id, hold| match places.get(id) {
            // The answer may have closed it; a request that is out keeps its mark until it ends.
            None => hold.until.is_none(),
            Some(&place) => hold.until.is_none() || hold.settling.as_ref().is_none_or(|was| *was == asks[place]),
        });
    }

    /// Returns the gaps to show to the protocol, in the board's order.
    pub(super) fn due(&self, now: Instant) -> Vec<Gap> {
        let is_due = |ask: &&Ask| {
            let in_time = ask.not_before.is_none_or(|at| at <= now);
            in_time && self.held.get(&ask.gap.id).is_none_or(|hold| hold.until.is_some_and(|at| at <= now))
        };
        self.asks.iter().filter(is_due).map(|ask| ask.gap.clone()).collect()
    }

    /// Holds gaps for which a request waits or is out.
    pub(super) fn fetching(&mut self, gaps: &[GapId]) {
        for id in gaps {
            let hold = self.held.entry(*id).or_insert(Hold { settling: None, until: None, in_vain: 0 });
            hold.until = None;
        }
    }

    /// Returns those of the gaps that are still open, each with the number under which it is shown now.
    pub(super) fn numbers(&self, gaps: &[GapId]) -> Vec<(GapId, u64)> {
        gaps.iter().filter_map(|id| self.ask(*id)).map(|ask| (ask.gap.id, ask.number)).collect()
    }

    /// Returns those of the gaps that are still open, as they are now.
    pub(super) fn current(&self, gaps: &[(GapId, u64)]) -> Vec<Gap> {
        gaps.iter().filter_map(|(id, _)| self.ask(*id)).map(|ask| ask.gap.clone()).collect()
    }

    /// Holds gaps until intake has worked off what was handed over for them, but not for ever: each answer that changes
    /// nothing doubles the pause.
    pub(super) fn settle(&mut self, gaps: impl IntoIterator<Item = GapId>, now: Instant) {
        for id in gaps {
            let Some(ask) = self.ask(id).cloned() else {
                self.held.remove(&id);
                continue;
            };
            let hold = self.held.entry(id).or_insert(Hold { settling: None, until: None, in_vain: 0 });
            let is_same = hold.settling.as_ref() == Some(&ask);
            hold.in_vain = if is_same { hold.in_vain.saturating_add(1) } else { 0 };
            hold.settling = Some(ask);
            let pause = SETTLE.saturating_mul(1 << hold.in_vain.min(10)).min(LONGEST_SETTLE);
            hold.until = Some(now + pause);
        }
    }

    /// Holds gaps until the board shows them changed, or for this long.
    pub(super) fn hold(&mut self, gaps: impl IntoIterator<Item = GapId>, pause: Duration, now: Instant) {
        for id in gaps {
            let Some(ask) = self.ask(id).cloned() else { continue };
            let until = Some(now + pause);
            self.held.insert(id, Hold { settling: Some(ask), until, in_vain: 0 });
        }
    }

    /// Returns whether nobody writes on the board any more.
    pub(super) fn is_deaf(&self) -> bool {
        self.is_deaf
    }

    /// Notes that nobody writes on the board any more.
    pub(super) fn deafen(&mut self) {
        self.is_deaf = true;
    }

    /// Forgets what was asked for: the session is over, and its answers will not be used.
    pub(super) fn session_ended(&mut self) {
        self.held.clear();
    }

    /// Returns when a gap falls due that is not due now.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        let when = |ask: &Ask| match self.held.get(&ask.gap.id) {
            Some(Hold { until: None, .. }) => None,
            Some(Hold { until: Some(until), .. }) => Some(ask.not_before.map_or(*until, |at| at.max(*until))),
            None => ask.not_before,
        };
        self.asks.iter().filter_map(when).filter(|at| *at > now).min()
    }

    /// Returns how many gaps are open.
    pub(super) fn open(&self) -> usize {
        self.asks.len()
    }

    fn ask(&self, gap: GapId) -> Option<&Ask> {
        self.places.get(&gap).map(|place| &self.asks[*place])
    }
}

const SETTLE: Duration = Duration::from_secs(1);
const LONGEST_SETTLE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use crate::row::{Numbering, StreamKey, Timestamp};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn shows_a_gap_when_its_time_has_come_and_not_before() {
        let start = Instant::now();
        let mut backfill = Backfill::default();
        backfill.show([Ask { not_before: Some(start + SECOND), ..ask(1, 0) }, ask(2, 0)].into());
        assert_eq!(due(&backfill, start), [2]);
        assert_eq!(backfill.next_at(start), Some(start + SECOND));
        assert_eq!(due(&backfill, start + SECOND), [1, 2], "in the board's order");
    }

    #[test]
    fn a_gap_that_is_asked_for_is_not_shown_until_its_answer_is_worked_off() {
        let start = Instant::now();
        let mut backfill = Backfill::default();
        backfill.show([ask(1, 0)].into());
        backfill.fetching(&[GapId(1)]);
        assert_eq!(due(&backfill, start + SECOND * 100), [0_u64; 0], "a request is out");
        backfill.show([ask(1, 1)].into());
        assert_eq!(due(&backfill, start), [0_u64; 0], "a live record changed it, the request is still out");

        backfill.settle([GapId(1)], start);
        assert_eq!(due(&backfill, start + SECOND / 2), [0_u64; 0], "the board has not moved yet");
        backfill.show([ask(1, 2)].into());
        assert_eq!(due(&backfill, start + SECOND / 2), [1], "it has");
    }

    #[test]
    fn a_board_that_never_moves_delays_the_next_question_more_each_time() {
        let start = Instant::now();
        let mut backfill = Backfill::default();
        backfill.show([ask(1, 0)].into());
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            backfill.settle([GapId(1)], now);
            let next = backfill.next_at(now).unwrap();
            pauses.push((next - now).as_secs());
            now = next;
            assert_eq!(due(&backfill, now), [1]);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_closed_gap_is_forgotten_and_one_of_an_ended_session_is_free_again() {
        let start = Instant::now();
        let mut backfill = Backfill::default();
        backfill.show([ask(1, 0), ask(2, 0)].into());
        backfill.settle([GapId(1)], start);
        backfill.show([ask(2, 0)].into());
        assert!(backfill.held.is_empty());
        backfill.fetching(&[GapId(2)]);
        backfill.session_ended();
        assert_eq!(due(&backfill, start), [2]);
    }

    #[test]
    fn an_answer_counts_under_the_number_of_the_time_when_it_was_asked_for() {
        let mut backfill = Backfill::default();
        backfill.show([Ask { number: 7, ..ask(1, 0) }].into());
        assert_eq!(backfill.numbers(&[GapId(1), GapId(9)]), [(GapId(1), 7)], "one that is closed is left out");
    }

    fn due(backfill: &Backfill, now: Instant) -> Vec<u64> {
        backfill.due(now).iter().map(|gap| gap.id.0).collect()
    }

    fn ask(id: u64, dry_replies: u32) -> Ask {
        let gap = Gap {
            id: GapId(id),
            stream: StreamKey::new("trades", "X"),
            numbering: Numbering::Sequence,
            after: None,
            before: None,
            since: Timestamp(0),
            dry_replies,
        };
        Ask { gap, number: 1, not_before: None }
    }
}
