//! Which open gaps a source's driver is shown, and from when on.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{
    board::Ask,
    continuity::{Continuity, LOOK_AGAIN, OpenAsk},
};
use crate::{
    protocol::GapId,
    row::Numbering,
    rules::{Rule, holds},
};

/// The board of one source.
#[derive(Debug)]
pub(super) struct Board {
    source: Arc<str>,
    /// The tables that the source has rows of.
    tables: Vec<Arc<str>>,
    history_lag: Duration,
    tell: watch::Sender<Arc<[Ask]>>,
    gaps: HashMap<GapId, Shown>,
    /// Streams that no session covers, and for how long sessions had been up when that was seen first.
    uncovered: HashMap<u32, Duration>,
    /// For how long sessions of the source have been up, all together, and until when that is known.
    up_for: Duration,
    looked: Option<Instant>,
    was_up: bool,
}

/// What was found when the board was brought up to date.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// How many gaps there are where something is or may be missing.
    pub(super) open: u64,
    /// Gaps of books that nobody subscribes to any more: nothing will ever end them.
    pub(super) abandoned: Vec<GapId>,
}

/// What is known of a gap besides continuity: how it is being asked for.
#[derive(Debug, Clone)]
struct Shown {
    number: u64,
    not_before: Instant,
    /// Whether nothing was there at the first look.
    is_second_look: bool,
    dry_replies: u32,
    /// How many rows had filled it at the last reply.
    filled: u64,
}

impl Board {
    pub(super) fn new(source: Arc<str>, tables: Vec<Arc<str>>, history_lag: Duration) -> Self {
        let (tell, _) = watch::channel(Vec::new().into());
        let (gaps, up_for, looked) = (HashMap::new(), Duration::ZERO, None);
        let uncovered = HashMap::new();
        Self { source, tables, history_lag, tell, gaps, uncovered, up_for, looked, was_up: false }
    }

    pub(super) fn subscribe(&self) -> super::Asks {
        self.tell.subscribe()
    }

    /// A reply to a request for a gap came: notes whether it brought anything.
    pub(super) fn replied(&mut self, gap: GapId, filled: u64) {
        if let Some(shown) = self.gaps.get_mut(&gap) {
            shown.dry_replies = if filled > shown.filled { 0 } else { shown.dry_replies.saturating_add(1) };
            shown.filled = filled;
        }
    }

    /// Shows what is open now.
    pub(super) fn publish(&mut self, continuity: &Continuity, now: Instant) -> Look {
        let mut gaps = HashMap::new();
        let mut asks = Vec::new();
        let mut look = Look::default();
        let is_up = self.pass(continuity, now);
        // What is not collected any more stays open until it is again: nobody could take an answer.
        let is_collected = |ask: &OpenAsk| self.tables.contains(&ask.gap.stream.table);
        for ask in continuity.open_gaps(&self.source).filter(is_collected) {
            look.open += u64::from(!continuity.is_baseline(ask.gap.id));
            let shown = self.look(&ask, now);
            // What no session has subscribed to anew by then has gone: expired, or no longer wanted. However short each
            // of them was, it is together that they count.
            let is_gone = is_up && !ask.is_covered && self.is_gone(ask.stream);
            if is_gone && ask.gap.numbering == Numbering::Linked {
                look.abandoned.push(ask.gap.id);
                continue;
            }
            gaps.insert(ask.gap.id, shown.clone());
            // An open right end is asked for once somebody listens to what comes behind it, or nobody will any more.
            if ask.gap.before.is_none() && !ask.is_covered && !ask.has_left && !is_gone {
                continue;
            }
            let mut gap = ask.gap;
            gap.dry_replies = shown.dry_replies;
            asks.push(Ask { gap, number: shown.number, not_before: Some(shown.not_before) });
        }
        self.gaps = gaps;
        asks.sort_by_key(|ask| (ask.gap.since, ask.gap.id));
        self.tell.send_if_modified(|shown| {
            let is_new = **shown != *asks;
            if is_new {
                *shown = asks.into();
            }
            is_new
        });
        look
    }

    /// Looks which streams no session covers; returns those that have gone while nobody listened: nobody subscribes to them
    /// anew, and nobody has left them.
    pub(super) fn gone(&mut self, continuity: &Continuity, now: Instant) -> Vec<u32> {
        let is_up = self.pass(continuity, now);
        let since = |id: u32| (id, self.uncovered.get(&id).copied().unwrap_or(self.up_for));
        self.uncovered = continuity.uncovered_streams(&self.source).map(|(id, _)| since(id)).collect();
        let left_alone = continuity.uncovered_streams(&self.source).filter(|(_, has_left)| !has_left);
        left_alone.map(|(id, _)| id).filter(|id| is_up && self.is_gone(*id)).collect()
    }

    fn is_gone(&self, stream: u32) -> bool {
        self.uncovered.get(&stream).is_some_and(|at| self.up_for >= *at + SETTLED)
    }

    /// Counts for how long sessions are up, and returns whether one is.
    fn pass(&mut self, continuity: &Continuity, now: Instant) -> bool {
        let is_up = continuity.is_up(&self.source);
        let since_last = self.looked.map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        self.up_for += if self.was_up { since_last } else { Duration::ZERO };
        (self.looked, self.was_up) = (Some(now), is_up);
        is_up
    }

    fn look(&self, ask: &OpenAsk, now: Instant) -> Shown {
        let is_second_look = ask.empty_seen_at.is_some();
        let is_break = ask.gap.numbering == Numbering::Linked && ask.gap.before.is_some();
        let pause = match () {
            () if is_second_look => LOOK_AGAIN + LOOK_MARGIN,
            // A broken book is of no use until it is subscribed to anew.
            () if is_break => Duration::ZERO,
            () if !holds(Rule::HistoryLag) => Duration::ZERO,
            () => self.history_lag,
        };
        let known = self.gaps.get(&ask.gap.id);
        match known {
            Some(known) if known.number == ask.number && known.is_second_look == is_second_look => known.clone(),
            known => Shown {
                number: ask.number,
                not_before: now + pause,
                is_second_look,
                dry_replies: if is_second_look { 0 } else { known.map_or(0, |known| known.dry_replies) },
                filled: known.map_or(0, |known| known.filled),
            },
        }
    }
}

/// When sessions have been up for so long and none of them covers a stream, it is taken for gone.
const SETTLED: Duration = Duration::from_secs(60);
/// The wall clock, which the two looks are compared by, may run a little slower than the monotonic one.
const LOOK_MARGIN: Duration = Duration::from_secs(1);
