//! Which open gaps are to be asked for now.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    intake::Ask,
    policy::Backoff,
    protocol::{Gap, GapId},
    row::Timestamp,
};

/// Orders gaps as the board does: what the venue forgets first comes first.
type Age = (Timestamp, GapId);

/// The open gaps of a source as intake shows them, without those that are taken care of. Reads no clock.
///
/// A gap that was asked for is shown to the protocol again only when intake has worked off the answer: the board then
/// shows it changed, or no longer. Where answers bring nothing, or none comes, the pauses grow.
#[derive(Debug)]
pub(super) struct Backfill {
    asks: Arc<[Ask]>,
    /// Where a gap stands in `asks`.
    places: HashMap<GapId, usize>,
    held: HashMap<GapId, Hold>,
    /// For each host the gaps that a request to it was refused room for, as the protocol put them together, by the first of
    /// them.
    queued: BTreeMap<String, BTreeMap<Age, Vec<GapId>>>,
    backoff: Backoff,
    seed: u64,
    /// Nobody writes on the board any more.
    is_deaf: bool,
}

/// Why a gap is not shown to the protocol.
#[derive(Debug, Default)]
struct Hold {
    /// Ends then; `None` while a request waits or is out.
    until: Option<Instant>,
    /// The gap as it was when the last answer to it was handed over, and when that was.
    settling: Option<(Ask, Instant)>,
    /// Answers in a row that changed nothing.
    in_vain: u32,
    /// The calls that got no answer, in a row.
    failed: Option<Backoff>,
}

impl Hold {
    /// Returns when the gap may be shown again, now that the board shows it so.
    fn free_at(&self, ask: &Ask) -> Option<Instant> {
        let until = self.until?;
        match &self.settling {
            // The answer is worked off: one that brought something is followed by the next question at once.
            Some((was, at)) if was != ask => Some(match ask.gap.dry_replies {
                0 => *at,
                dry => *at + growing(dry - 1),
            }),
            Some(_) | None => Some(until),
        }
    }
}

impl Backfill {
    /// Returns a backfill without gaps. Calls without an answer are made again after pauses that grow from `first` to
    /// `longest`.
    pub(super) fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Self {
            asks: Vec::new().into(),
            places: HashMap::new(),
            held: HashMap::new(),
            queued: BTreeMap::new(),
            backoff: Backoff::new(first, longest),
            seed,
            is_deaf: false,
        }
    }

    /// Takes what the board shows now.
    pub(super) fn show(&mut self, asks: Arc<[Ask]>) {
        self.asks = asks;
        self.places = self.asks.iter().enumerate().map(|(place, ask)| (ask.gap.id, place)).collect();
        let places = &self.places;
        // The answer may have closed it; a request that is out keeps its mark until it ends.
        self.held.retain(|id, hold| places.contains_key(id) || hold.until.is_none());
    }

    /// Returns the gaps to show to the protocol, in the board's order.
    pub(super) fn due(&self, now: Instant) -> Vec<Gap> {
        let is_due = |ask: &&Ask| self.due_at(ask, now).is_some_and(|at| at <= now);
        self.asks.iter().filter(is_due).map(|ask| ask.gap.clone()).collect()
    }

    /// Holds gaps for which a request waits or is out.
    pub(super) fn fetching(&mut self, gaps: &[GapId]) {
        for id in gaps {
            self.held.entry(*id).or_default().until = None;
        }
    }

    /// Holds gaps until there is room for a request to this host: then the protocol is asked anew.
    pub(super) fn queue(&mut self, host: String, gaps: Vec<GapId>) {
        self.fetching(&gaps);
        let first = gaps.iter().filter_map(|id| self.ask(*id)).map(|ask| (ask.gap.since, ask.gap.id)).min();
        let Some(first) = first else { return };
        self.queued.entry(host).or_default().insert(first, gaps);
    }

    /// Frees as many requests' gaps of each host as there is room for, the oldest first.
    pub(super) fn admit(&mut self, room: impl Fn(&str) -> usize, now: Instant) {
        if self.queued.is_empty() {
            return;
        }
        for (host, queued) in &mut self.queued {
            let freed = (0..room(host)).map_while(|_| queued.pop_first());
            for gap in freed.flat_map(|(_, gaps)| gaps) {
                if let Some(hold) = self.held.get_mut(&gap) {
                    (hold.until, hold.settling) = (Some(now), None);
                }
            }
        }
        self.queued.retain(|_, queued| !queued.is_empty());
        let places = &self.places;
        self.held.retain(|id, hold| places.contains_key(id) || hold.until.is_none());
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
            let hold = self.held.entry(id).or_default();
            let is_same = hold.settling.as_ref().is_some_and(|(was, _)| *was == ask);
            hold.in_vain = if is_same { hold.in_vain.saturating_add(1) } else { 0 };
            hold.settling = Some((ask, now));
            hold.until = Some(now + growing(hold.in_vain));
            hold.failed = None;
        }
    }

    /// Holds gaps whose request got no answer, and returns for how long: then the protocol decides anew. All of them for
    /// the same time, since one request was worth it.
    pub(super) fn failed(&mut self, gaps: &[GapId], retry_after: Option<Duration>, now: Instant) -> Duration {
        let failed = gaps.iter().filter_map(|id| self.held.get(id)?.failed.as_ref()).max_by_key(|past| past.attempt());
        let seed = self.seed ^ gaps.first().map_or(0, |gap| gap.0);
        let mut failed = failed.cloned().unwrap_or_else(|| self.backoff.clone().seeded(seed));
        let pause = failed.failed(retry_after);
        for id in gaps {
            let hold = self.held.entry(*id).or_default();
            (hold.until, hold.settling, hold.failed) = (Some(now + pause), None, Some(failed.clone()));
        }
        pause
    }

    /// Holds gaps until the board shows them changed, or for this long.
    pub(super) fn hold(&mut self, gaps: impl IntoIterator<Item = GapId>, pause: Duration, now: Instant) {
        for id in gaps {
            let Some(ask) = self.ask(id).cloned() else { continue };
            let (until, settling) = (Some(now + pause), Some((ask, now)));
            self.held.insert(id, Hold { until, settling, ..Hold::default() });
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
        self.queued.clear();
    }

    /// Returns when a gap falls due that is not due now.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        self.asks.iter().filter_map(|ask| self.due_at(ask, now)).filter(|at| *at > now).min()
    }

    /// Returns how many gaps are open.
    pub(super) fn open(&self) -> usize {
        self.asks.len()
    }

    /// Returns when a gap is due; `None` while a request for it waits or is out.
    fn due_at(&self, ask: &Ask, now: Instant) -> Option<Instant> {
        let free = self.held.get(&ask.gap.id).map_or(Some(now), |hold| hold.free_at(ask))?;
        Some(ask.not_before.map_or(free, |at| at.max(free)))
    }

    fn ask(&self, gap: GapId) -> Option<&Ask> {
        self.places.get(&gap).map(|place| &self.asks[*place])
    }
}

fn growing(times: u32) -> Duration {
    SETTLE.saturating_mul(1 << times.min(10)).min(LONGEST_SETTLE)
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
        let mut backfill = backfill();
        backfill.show([Ask { not_before: Some(start + SECOND), ..ask(1, 0) }, ask(2, 0)].into());
        assert_eq!(due(&backfill, start), [2]);
        assert_eq!(backfill.next_at(start), Some(start + SECOND));
        assert_eq!(due(&backfill, start + SECOND), [1, 2], "in the board's order");
    }

    #[test]
    fn a_gap_that_is_asked_for_is_not_shown_until_its_answer_is_worked_off() {
        let start = Instant::now();
        let mut backfill = backfill();
        backfill.show([ask(1, 0)].into());
        backfill.fetching(&[GapId(1)]);
        assert_eq!(due(&backfill, start + SECOND * 100), [0_u64; 0], "a request is out");
        backfill.show([ask(1, 1)].into());
        assert_eq!(due(&backfill, start), [0_u64; 0], "a live record changed it, the request is still out");

        backfill.settle([GapId(1)], start);
        assert_eq!(due(&backfill, start + SECOND / 2), [0_u64; 0], "the board has not moved yet");
        backfill.show([Ask { number: 2, ..ask(1, 0) }].into());
        assert_eq!(due(&backfill, start + SECOND / 2), [1], "it has, and the answer brought something");
    }

    #[test]
    fn answers_that_bring_nothing_are_followed_by_growing_pauses_though_the_board_moves() {
        let start = Instant::now();
        let mut backfill = backfill();
        let mut now = start;
        let mut pauses = Vec::new();
        for dry in 0..8 {
            backfill.show([ask(1, dry)].into());
            assert_eq!(due(&backfill, now), [1]);
            backfill.settle([GapId(1)], now);
            for moved in 0..100 {
                backfill.show([Ask { number: moved, ..ask(1, dry + 1) }].into());
            }
            let next = backfill.next_at(now).unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_request_without_an_answer_is_put_anew_for_all_its_gaps_together_after_growing_pauses() {
        let mut now = Instant::now();
        let mut backfill = backfill();
        backfill.show([ask(1, 0), ask(2, 0)].into());
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            backfill.fetching(&[GapId(1), GapId(2)]);
            let pause = backfill.failed(&[GapId(1), GapId(2)], None, now);
            backfill.show([ask(1, 1), ask(2, 0)].into());
            assert!(pause.is_zero() || due(&backfill, now).is_empty(), "whatever the board shows");
            now += pause;
            assert_eq!(due(&backfill, now), [1, 2]);
            longest = longest.max(pause);
        }
        assert!(longest > SECOND * 30, "{longest:?}");
        let pause = backfill.failed(&[GapId(1)], Some(SECOND * 100), now);
        assert!(pause >= SECOND * 100, "the venue asked for it");
    }

    #[test]
    fn gaps_for_which_a_host_has_no_room_are_shown_again_together_when_it_has() {
        let start = Instant::now();
        let mut backfill = backfill();
        backfill.show([ask(1, 0), ask(2, 0), ask(3, 0)].into());
        backfill.queue("slow".to_owned(), vec![GapId(1), GapId(3)]);
        backfill.queue("slow".to_owned(), vec![GapId(2)]);
        backfill.admit(|_| 0, start);
        assert_eq!(due(&backfill, start + SECOND * 100), [0_u64; 0]);
        backfill.admit(|host| usize::from(host == "slow"), start);
        assert_eq!(due(&backfill, start), [1, 3]);
        backfill.admit(|_| 1, start);
        assert_eq!(due(&backfill, start), [1, 2, 3]);
    }

    #[test]
    fn of_gaps_that_a_host_has_no_room_for_the_oldest_are_free_first_whenever_they_came() {
        let start = Instant::now();
        let mut backfill = backfill();
        let old = |id, seconds| Ask { gap: Gap { since: Timestamp(seconds), ..ask(id, 0).gap }, ..ask(id, 0) };
        backfill.show([old(7, 1), old(3, 2), old(5, 3)].into());
        for gap in [3, 5, 7] {
            backfill.queue("slow".to_owned(), vec![GapId(gap)]);
        }
        let mut freed = Vec::new();
        for _ in 0..3 {
            backfill.admit(|_| 1, start);
            freed.extend(due(&backfill, start));
            backfill.fetching(&freed.iter().copied().map(GapId).collect::<Vec<_>>());
        }
        assert_eq!(freed, [7, 3, 5]);
    }

    #[test]
    fn a_board_that_never_moves_delays_the_next_question_more_each_time() {
        let start = Instant::now();
        let mut backfill = backfill();
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
        let mut backfill = backfill();
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
        let mut backfill = backfill();
        backfill.show([Ask { number: 7, ..ask(1, 0) }].into());
        assert_eq!(backfill.numbers(&[GapId(1), GapId(9)]), [(GapId(1), 7)], "one that is closed is left out");
    }

    fn backfill() -> Backfill {
        Backfill::new(SECOND, SECOND * 60, 1)
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
