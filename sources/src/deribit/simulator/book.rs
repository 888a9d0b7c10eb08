//! One instrument's order book, and the changes that move it.

use super::random::Random;

/// Levels a side keeps.
const DEPTH: usize = 8;

/// Prices are whole units here, so that levels compare exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level {
    pub(super) units: i64,
    pub(super) amount: f64,
}

/// What happened to a level, in the venue's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    New,
    Change,
    Delete,
}

impl Action {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Change => "change",
            Self::Delete => "delete",
        }
    }
}

/// A level that changed; its amount is the new total, zero for a deleted one.
pub(super) type Change = (Action, Level);

/// Everything that one update changed, and the link to the update before.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BookChange {
    pub(super) previous: u64,
    pub(super) id: u64,
    pub(super) bids: Vec<Change>,
    pub(super) asks: Vec<Change>,
    /// Whether the best bid or ask is another than before.
    pub(super) best_moved: bool,
}

/// Both sides, best level first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Book {
    pub(super) bids: Vec<Level>,
    pub(super) asks: Vec<Level>,
    pub(super) change_id: u64,
}

/// Where the market makers stand: the best prices they would quote. A missing one leaves that side empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quotes {
    pub(super) bid: Option<i64>,
    pub(super) ask: Option<i64>,
    /// Distance between levels, in units.
    pub(super) step: i64,
    /// Amounts are whole multiples of this.
    pub(super) lot: f64,
}

impl Book {
    /// Moves the book to `quotes`: levels that would cross go, the best ones come, one amount changes.
    pub(super) fn requote(&mut self, quotes: Quotes, id: u64, random: &mut Random) -> BookChange {
        let before = (self.bids.first().copied(), self.asks.first().copied());
        let bids = requote_side(&mut self.bids, quotes.bid, -1, quotes, random);
        let asks = requote_side(&mut self.asks, quotes.ask, 1, quotes, random);
        let previous = std::mem::replace(&mut self.change_id, id);
        let best_moved = before != (self.bids.first().copied(), self.asks.first().copied());
        BookChange { previous, id, bids, asks, best_moved }
    }
}

/// `away` is the direction in which levels get worse: -1 for bids, 1 for asks.
fn requote_side(
    levels: &mut Vec<Level>,
    best: Option<i64>,
    away: i64,
    quotes: Quotes,
    random: &mut Random,
) -> Vec<Change> {
    let Some(best) = best else {
        return levels.drain(..).map(deleted).collect();
    };
    let mut changes: Vec<Change> =
        levels.iter().filter(|level| (level.units - best) * away < 0).map(|l| deleted(*l)).collect();
    levels.retain(|level| (level.units - best) * away >= 0);

    if levels.first().is_none_or(|level| level.units != best) {
        let level = Level { units: best, amount: amount(quotes.lot, random) };
        levels.insert(0, level);
        changes.push((Action::New, level));
    } else {
        let chosen = random.below(levels.len());
        levels[chosen].amount = amount(quotes.lot, random);
        changes.push((Action::Change, levels[chosen]));
    }
    if levels.len() > DEPTH {
        changes.extend(levels.drain(DEPTH..).map(deleted));
    } else if levels.len() < DEPTH / 2 {
        let last = levels[levels.len() - 1].units + away * quotes.step;
        if last > 0 {
            let level = Level { units: last, amount: amount(quotes.lot, random) };
            levels.push(level);
            changes.push((Action::New, level));
        }
    }
    changes
}

fn deleted(level: Level) -> Change {
    (Action::Delete, Level { amount: 0.0, ..level })
}

fn amount(lot: f64, random: &mut Random) -> f64 {
    let most = if random.one_in(10) { 1000 } else { 300 };
    lot * (1 + random.below(most)) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn changes_applied_to_the_last_book_give_the_next_one_and_it_never_crosses() {
        let mut random = Random::new(3);
        let mut book = Book::default();
        let (mut bids, mut asks) = (BTreeMap::new(), BTreeMap::new());
        for id in 1..5_000 {
            let middle = 100 + random.below(40) as i64;
            let one_sided = random.one_in(50);
            let quotes = Quotes { bid: (!one_sided).then_some(middle - 2), ask: Some(middle + 2), step: 5, lot: 1.0 };

            let change = book.requote(quotes, id, &mut random);

            assert_eq!((change.previous, change.id), (id - 1, id));
            apply(&mut bids, &change.bids);
            apply(&mut asks, &change.asks);
            assert_eq!(bids.iter().rev().map(|(u, a)| (*u, *a)).collect::<Vec<_>>(), flat(&book.bids));
            assert_eq!(asks.iter().map(|(u, a)| (*u, *a)).collect::<Vec<_>>(), flat(&book.asks));
            let crossed = book.bids.first().zip(book.asks.first()).is_some_and(|(bid, ask)| bid.units >= ask.units);
            assert!(!crossed, "{book:?}");
        }
    }

    fn apply(side: &mut BTreeMap<i64, f64>, changes: &[Change]) {
        for (action, level) in changes {
            match action {
                Action::New => assert_eq!(side.insert(level.units, level.amount), None),
                Action::Change => assert!(side.insert(level.units, level.amount).is_some()),
                Action::Delete => assert!(side.remove(&level.units).is_some()),
            }
        }
    }

    fn flat(levels: &[Level]) -> Vec<(i64, f64)> {
        levels.iter().map(|level| (level.units, level.amount)).collect()
    }
}
