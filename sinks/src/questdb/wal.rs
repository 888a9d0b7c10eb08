//! When what QuestDB has accepted counts: its write-ahead log is applied a while after the answer. Pure.

use std::collections::VecDeque;

use tidegate_core::spool::SpoolPosition;

/// What QuestDB says of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// Another one means that the table was dropped and made anew.
    pub(super) id: i64,
    pub(super) has_dedup: bool,
    pub(super) is_suspended: bool,
    /// The newest transaction that is applied.
    pub(super) writer: i64,
    /// The newest transaction that is accepted.
    pub(super) sequencer: i64,
    /// Why it is suspended.
    pub(super) error: String,
}

/// Chunks that are accepted and not known to be applied, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pending(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    to: SpoolPosition,
    /// The tables that it wrote to, and the transaction that has to be applied: `None` until it was asked for, which is
    /// after the answer, so it is no older than the chunk's own.
    tables: Vec<(usize, Option<i64>)>,
}

impl Pending {
    /// Notes that a chunk was accepted.
    pub(super) fn push(&mut self, to: SpoolPosition, tables: impl IntoIterator<Item = usize>) {
        self.0.push_back(Waiting { to, tables: tables.into_iter().map(|table| (table, None)).collect() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in what QuestDB says now of each table, by number, and returns up to where all is applied, if that is news.
    pub(super) fn settle(&mut self, states: &[State]) -> Option<SpoolPosition> {
        for (table, wanted) in self.0.iter_mut().flat_map(|waiting| &mut waiting.tables) {
            wanted.get_or_insert(states[*table].sequencer);
        }
        let is_applied =
            |(table, wanted): &(usize, Option<i64>)| wanted.is_some_and(|txn| states[*table].writer >= txn);
        let mut applied = None;
        while let Some(oldest) = self.0.pop_front_if(|waiting| waiting.tables.iter().all(is_applied)) {
            applied = Some(oldest.to);
        }
        applied
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::spool::Boot;

    use super::*;

    #[test]
    fn a_chunk_counts_when_all_its_tables_have_passed_what_was_accepted_after_it() {
        let mut pending = Pending::default();
        pending.push(at(10), [0, 1]);
        assert_eq!(pending.settle(&[state(4, 5), state(9, 9)]), None);
        pending.push(at(20), [0]);
        // The second chunk is seen at 7: the first one waits for 5 only.
        assert_eq!(pending.settle(&[state(5, 7), state(9, 9)]), Some(at(10)));
        assert_eq!(pending.settle(&[state(6, 9), state(9, 9)]), None);
        assert_eq!(pending.settle(&[state(7, 9), state(9, 9)]), Some(at(20)));
        assert!(pending.is_empty());
    }

    #[test]
    fn a_chunk_is_never_overtaken_by_a_later_one() {
        let mut pending = Pending::default();
        pending.push(at(10), [0]);
        pending.push(at(20), [1]);
        pending.push(at(30), []);
        assert_eq!(pending.settle(&[state(0, 1), state(1, 1)]), None);
        assert_eq!(pending.settle(&[state(1, 1), state(1, 1)]), Some(at(30)));
    }

    const fn at(offset: u64) -> SpoolPosition {
        SpoolPosition { boot: Boot(1), offset }
    }

    fn state(writer: i64, sequencer: i64) -> State {
        State { id: 1, has_dedup: true, is_suspended: false, writer, sequencer, error: String::new() }
    }
}
