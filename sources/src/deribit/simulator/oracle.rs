//! What the venue made and whom it told: the list that every no-loss test compares a store with.
//!
//! It is a fold over events (`fold.rs`). The running venue folds each event as it happens, and [`Oracle::load`] folds the same
//! events from the file, so that both cannot disagree.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{channel::Channel, fold::Highest, instrument::Instrument, sent_file};

/// Everything the venue made since it first started, whether or not somebody received it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Oracle {
    /// Every instrument ever listed, in the order of listing.
    pub instruments: Vec<Listed>,
    /// Every trade of each instrument, in the order in which they were made.
    pub trades: BTreeMap<String, Vec<Trade>>,
    /// Every WebSocket session, in the order of opening; the number of a session counts from 1.
    pub sessions: Vec<Session>,
    /// The seed of the first start.
    pub seed: Option<u64>,
    /// How many trades were made while the venue ran, which leaves out the history it began with.
    pub trades_made: u64,
    pub(super) highest: Highest,
}

/// An instrument and the time for which it was listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its terms.
    pub instrument: Instrument,
    /// When it was taken off, in milliseconds since 1970; none while it trades.
    pub expired_ms: Option<i64>,
    /// How many times its sequence has started again at 1.
    pub epoch: u32,
}

/// A trade that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trade {
    /// Which numbering `seq` belongs to: it grows when the venue starts again at 1.
    pub epoch: u32,
    /// `trade_seq`, dense within an instrument and an epoch.
    pub seq: u64,
    /// The number in `trade_id`.
    pub id: u64,
    /// Milliseconds since 1970 by the venue's clock.
    pub timestamp: i64,
    /// In coins for an option, in dollars for the perpetual.
    pub price: f64,
    /// In contracts of one coin for an option, in dollars for the perpetual.
    pub amount: f64,
    /// Side of the taker.
    pub direction: Direction,
    /// The index at the trade.
    pub index_price: f64,
    /// The mark at the trade.
    pub mark_price: f64,
    /// In percent; options only.
    pub iv: Option<f64>,
    /// 0 plus, 1 zero-plus, 2 minus, 3 zero-minus.
    pub tick_direction: u8,
    /// As the recorded venue said it; none for a trade that the simulator made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// Side of the taker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The taker bought.
    Buy,
    /// The taker sold.
    Sell,
}

/// A place in an instrument's trades: those after it have a greater mark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// The numbering.
    pub epoch: u32,
    /// The last trade's number in it; zero before the first.
    pub seq: u64,
}

/// One WebSocket connection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Session {
    /// When it was opened, in milliseconds since 1970.
    pub opened_ms: i64,
    /// When it ended; none while it lives.
    pub ended_ms: Option<i64>,
    /// Why it ended, in a few words.
    pub why: Option<String>,
    /// Every confirmed subscription, in order.
    pub subscriptions: Vec<Subscription>,
    /// The ticker messages handed to the socket, per instrument, in order. Their key is the 24-hour volume: it only grows, and
    /// is in one message of the instrument only, but for those of a replay.
    pub tickers: BTreeMap<String, Vec<Handed<f64>>>,
    /// The quote messages handed to the socket, per instrument. Their key is the timestamp, which is in one message only, but
    /// for those of a replay.
    pub quotes: BTreeMap<String, Vec<Handed<i64>>>,
    /// The book messages handed to the socket, per instrument.
    pub books: BTreeMap<String, Vec<Handed<BookKey>>>,
}

/// A message that was handed to a socket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Handed<K> {
    /// What makes it recognisable.
    pub key: K,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// A confirmed subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// The channel as it was asked for.
    pub channel: String,
    /// When it took effect, in milliseconds since 1970.
    pub confirmed_ms: i64,
    /// Where each instrument's trades stood then, for a channel of trades: what came later is owed.
    pub from: BTreeMap<String, Mark>,
    /// How it ended; none while it lasts.
    pub ended: Option<Ended>,
}

/// The end of a subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Whether the client unsubscribed, rather than the session ending.
    pub unsubscribed: bool,
    /// Where the trades stood.
    pub to: BTreeMap<String, Mark>,
}

/// What makes a book message recognisable. A snapshot repeats the id of the change before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BookKey {
    /// The venue's `change_id`.
    pub change_id: u64,
    /// Whether it is a snapshot.
    pub snapshot: bool,
}

impl Oracle {
    /// Reads what a simulator wrote to its `sent` file, up to the last whole line.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or a line that is not the last is damaged.
    pub fn load(path: impl AsRef<Path>) -> io::Result<Self> {
        sent_file::load(path.as_ref()).map(|loaded| loaded.oracle)
    }

    /// Returns how many trades, tickers, quotes and book messages were made or sent.
    pub fn totals(&self) -> Totals {
        let mut totals =
            Totals { trades_made: self.trades_made, sessions: self.sessions.len() as u64, ..Totals::default() };
        for session in &self.sessions {
            totals.tickers_sent += session.tickers.values().map(|keys| keys.len() as u64).sum::<u64>();
            totals.quotes_sent += session.quotes.values().map(|keys| keys.len() as u64).sum::<u64>();
            totals.books_sent += session.books.values().map(|keys| keys.len() as u64).sum::<u64>();
        }
        totals
    }

    /// Returns where an instrument's trades stand.
    pub fn mark(&self, instrument: &str) -> Mark {
        let epoch = self.listed(instrument).map_or(0, |listed| listed.epoch);
        let last = self.trades.get(instrument).and_then(|trades| trades.last());
        match last {
            Some(trade) if trade.epoch == epoch => trade.mark(),
            _ => Mark { epoch, seq: 0 },
        }
    }

    /// Returns an instrument by its name.
    pub fn listed(&self, instrument: &str) -> Option<&Listed> {
        self.instruments.iter().find(|listed| listed.instrument.name == instrument)
    }
}

/// What was handed to a socket within so many milliseconds before its end may never have been read.
///
/// A frame is in the spool some milliseconds after it was sent. It waits longer only in the buffers of the socket, and in
/// the one queue before intake, for a client that gets no processor: a kill or a reset throws away what is there. On a busy
/// machine these have been seen to hold some hundred milliseconds; what was sent earlier had its time.
const IN_FLIGHT_MS: i64 = 2_000;

/// The venue ended a session since its client was behind. How much that had not read nobody can tell: all of it is thrown away.
pub(super) const TOO_SLOW: &str = "connection too slow";
/// The same.
pub(super) const NO_HEARTBEAT: &str = "no answer to a test request";

/// When something may have been on its way when nobody listened any more: the last moments of a session, and of each
/// instrument's subscription that was left.
#[derive(Debug)]
pub(super) struct LastMoments {
    /// From when on nothing of the session had its time.
    session_from_ms: Option<i64>,
    left_ms: HashMap<String, Vec<i64>>,
}

impl Session {
    /// Returns its last moments.
    pub(super) fn last_moments(&self) -> LastMoments {
        let mut left_ms: HashMap<String, Vec<i64>> = HashMap::new();
        for one in &self.subscriptions {
            let Some(ended) = one.ended.as_ref().filter(|ended| ended.unsubscribed) else { continue };
            let topic = Channel::parse(&one.channel).map(|channel| channel.topic);
            if let Some(instrument) = topic.as_ref().and_then(|topic| topic.instrument()) {
                left_ms.entry(instrument.to_owned()).or_default().push(ended.at_ms);
            }
        }
        let was_behind = self.why.as_deref().is_some_and(|why| [TOO_SLOW, NO_HEARTBEAT].contains(&why));
        let session_from_ms = self.ended_ms.map(|at| if was_behind { self.opened_ms } else { at - IN_FLIGHT_MS });
        LastMoments { session_from_ms, left_ms }
    }
}

impl LastMoments {
    /// Returns whether what was handed to the socket at `at_ms` may have been on its way then.
    pub(super) fn hold(&self, instrument: &str, at_ms: i64) -> bool {
        let is_late = |ended_ms: &i64| (ended_ms - IN_FLIGHT_MS..=*ended_ms).contains(&at_ms);
        // What is handed over in the moment of the end may be noted just behind it.
        self.session_from_ms.is_some_and(|from_ms| at_ms >= from_ms)
            || self.left_ms.get(instrument).is_some_and(|left| left.iter().any(is_late))
    }
}

/// How much was made and sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Trades made while the venue ran.
    pub trades_made: u64,
    /// Ticker messages handed to a socket.
    pub tickers_sent: u64,
    /// Quote messages handed to a socket.
    pub quotes_sent: u64,
    /// Book messages handed to a socket.
    pub books_sent: u64,
    /// WebSocket sessions opened.
    pub sessions: u64,
}

impl Trade {
    /// Returns the venue's `trade_id`.
    pub fn trade_id(&self) -> String {
        format!("{}-{}", super::instrument::CURRENCY, self.id)
    }

    /// Returns the trade's place in its instrument.
    pub fn mark(&self) -> Mark {
        Mark { epoch: self.epoch, seq: self.seq }
    }
}

impl Direction {
    /// Returns the venue's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fold::Event, *};

    #[test]
    fn only_the_last_moments_before_an_end_may_be_in_flight() {
        let (name, open) = ("ETH-PERPETUAL", Session::default());
        assert!(!open.last_moments().hold(name, 9_000), "the session lives: what was sent comes");
        let ended = Session { ended_ms: Some(10_000), ..Session::default() };
        assert!(ended.last_moments().hold(name, 9_900) && ended.last_moments().hold(name, 10_000 - IN_FLIGHT_MS));
        assert!(!ended.last_moments().hold(name, 9_999 - IN_FLIGHT_MS), "that had its time");
        let behind = Session { opened_ms: 1_000, why: Some(TOO_SLOW.into()), ..ended };
        assert!(behind.last_moments().hold(name, 1_000), "the client had not read for a long time");

        let left = Ended { at_ms: 5_000, unsubscribed: true, to: BTreeMap::new() };
        let channel = format!("ticker.{name}.100ms");
        let subscription = Subscription { channel, confirmed_ms: 1, from: BTreeMap::new(), ended: Some(left) };
        let other = Session { subscriptions: vec![subscription], ..Session::default() };
        assert!(other.last_moments().hold(name, 4_900) && !other.last_moments().hold(name, 2_000));
        assert!(!other.last_moments().hold("ETH-26SEP26-2760-C", 4_900), "another instrument was not left");
    }

    #[test]
    fn a_killed_venues_session_was_over_with_the_last_that_it_wrote() {
        let mut oracle = Oracle::default();
        oracle.apply(1_000, Event::Opened { session: 1 });
        oracle.apply(7_000, Event::Sent { session: 1, frames: Default::default() });
        oracle.apply(90_000, Event::Started { version: 1, seed: 1 });
        assert_eq!(oracle.sessions[0].ended_ms, Some(7_000), "and not when the next one started");
    }
}
