//! Which trades a client is owed, from its subscriptions.

use std::collections::BTreeMap;

use super::oracle::{Mark, Oracle, Subscription, Trade};

impl Oracle {
    /// Returns the trades that a client is owed, per instrument: everything made from its first confirmed subscription on.
    ///
    /// Trades made between two sessions are owed, for a client must fetch them. Not owed are those made while the client had
    /// unsubscribed, and those made after the last session that had the instrument.
    pub fn owed(&self) -> BTreeMap<&str, Vec<&Trade>> {
        self.owed_since(1)
    }

    /// Returns what is owed to a client that knows of sessions from number `first` on (they count from 1).
    ///
    /// A client that was killed between a confirmation and its first write claims nothing for that session.
    pub fn owed_since(&self, first: usize) -> BTreeMap<&str, Vec<&Trade>> {
        let mut owed = BTreeMap::new();
        for (instrument, trades) in &self.trades {
            let spans = self.spans(instrument, first);
            let is_owed = |trade: &&Trade| spans.iter().any(|span| span.holds(trade.mark()));
            let rows: Vec<&Trade> = trades.iter().filter(is_owed).collect();
            if !spans.is_empty() {
                owed.insert(instrument.as_str(), rows);
            }
        }
        owed
    }

    /// Joins the subscriptions to one instrument's trades over everything but a wanted absence.
    fn spans(&self, instrument: &str, first: usize) -> Vec<Span> {
        let known = self.sessions.iter().skip(first.saturating_sub(1));
        let all = known.flat_map(|session| &session.subscriptions);
        let mut subscriptions: Vec<Span> = all.filter_map(|one| Span::of(one, instrument)).collect();
        subscriptions.sort_by_key(|span| span.from);

        let mut spans: Vec<Span> = Vec::new();
        for next in subscriptions {
            match spans.last_mut() {
                Some(last) if last.reaches(next.from) => last.extend(next),
                _ => spans.push(next),
            }
        }
        spans
    }
}

/// Trades after `from`, up to and with `to`; without `to`, up to now.
#[derive(Debug)]
struct Span {
    from: Mark,
    to: Option<Mark>,
    /// Whether the client ended it itself.
    unsubscribed: bool,
}

impl Span {
    fn of(subscription: &Subscription, instrument: &str) -> Option<Self> {
        let from = *subscription.from.get(instrument)?;
        let ended = subscription.ended.as_ref();
        let to = ended.and_then(|ended| ended.to.get(instrument).copied());
        Some(Self { from, to, unsubscribed: ended.is_some_and(|ended| ended.unsubscribed) })
    }

    fn holds(&self, mark: Mark) -> bool {
        mark > self.from && self.to.is_none_or(|to| mark <= to)
    }

    /// Returns whether what was made up to `mark` is owed: it overlaps, or the client did not leave by its own will.
    fn reaches(&self, mark: Mark) -> bool {
        !self.unsubscribed || self.to.is_none_or(|to| mark <= to)
    }

    fn extend(&mut self, next: Self) {
        let further = match (self.to, next.to) {
            (Some(to), Some(next)) => next >= to,
            (to, _) => to.is_some(),
        };
        if further {
            self.to = next.to;
            self.unsubscribed = next.unsubscribed;
        }
    }
}
