//! What the venue made and whom it told: the list that every no-loss test compares a store with.
//!
//! It is a fold over events (`fold.rs`). The running venue folds each event as it happens, and [`Oracle::load`] folds the same
//! events from the file, so that both cannot disagree.

use std::{collections::BTreeMap, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{fold::Highest, instrument::Instrument, sent_file};

/// Everything the venue made since it first started, whether or not somebody received it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Oracle {
    /// Every instrument ever listed, in the order of listing.
    pub instruments: Vec<Listed>,
    /// Every trade of each instrument, in the order in which they were made.
    pub trades: BTreeMap<String, Vec<Trade>>,
    /// Every WebSocket session, in the order of opening; the number of a session counts from 1.
    pub sessions: Vec<Session>,
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
    /// 24-hour volumes of the ticker messages handed to the socket, per instrument; each volume is in one message only.
    pub tickers: BTreeMap<String, Vec<f64>>,
    /// Timestamps of the quote messages handed to the socket, per instrument; each is in one message only.
    pub quotes: BTreeMap<String, Vec<i64>>,
    /// The book messages handed to the socket, per instrument.
    pub books: BTreeMap<String, Vec<BookKey>>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
