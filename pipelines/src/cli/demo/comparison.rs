//! The store beside the simulator's own list: what is missing, what is there twice, what nobody ever sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use tidegate_sources::deribit::simulator::{self, Oracle, Session};

use super::stored::{self, Stored};

/// What came of comparing.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Comparison {
    pub(super) trades: Trades,
    pub(super) tickers: Tickers,
    /// Rows that the venue never made, or made with other values.
    pub(super) invented: u64,
    /// How long no session was up while the venue ran, in milliseconds.
    pub(super) silent_ms: i64,
    /// How long the pipeline heard nothing while the venue ran, in milliseconds: from a session's last ticker that is stored to
    /// the next one's first confirmation.
    pub(super) unheard_ms: i64,
    /// The first of what is wrong, in words.
    pub(super) examples: Vec<String>,
    /// The instruments of which trades are missing.
    pub(super) missing_of: BTreeSet<String>,
    /// When the oldest of the missing trades was made, in milliseconds since 1970.
    pub(super) oldest_missing_ms: Option<i64>,
}

/// Trades: the venue repeats them, so every one is owed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Trades {
    /// Owed: made since each instrument's first confirmed subscription.
    pub(super) made: u64,
    /// Of these, stored.
    pub(super) stored: u64,
    /// Fetched by REST, of all that are stored.
    pub(super) by_rest: u64,
    pub(super) missing: u64,
    /// Not stored, and in gaps that the pipeline knew to be open when somebody ended it: the next start fetches them.
    pub(super) to_fetch: u64,
    /// Rows too many.
    pub(super) twice: u64,
    /// Stored although they were made before what is owed.
    pub(super) earlier: u64,
}

/// Tickers: the venue cannot repeat them, so what a session has handed over must be there, but for the last moments before
/// its line was cut or the process killed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tickers {
    /// Handed to a socket.
    pub(super) sent: u64,
    pub(super) stored: u64,
    /// Sent, and neither stored nor in flight.
    pub(super) holes: u64,
    /// Rows too many.
    pub(super) twice: u64,
    /// Sent in the last moments of a session, behind the last one that is stored: on its way when the line was cut or the
    /// process killed.
    pub(super) in_flight: u64,
}

/// What is known of the runs so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct History {
    /// When each run began, in milliseconds since 1970. In between the venue did not run, and sent nothing to anybody.
    pub(super) began_ms: Vec<i64>,
    /// The first session, counted from 1, that the pipeline said it had subscribed in and was storing.
    pub(super) claimed_from: Option<usize>,
    /// Sessions, counted from 1, that ended when the pipeline had said that all of theirs was stored: nothing was in flight.
    #[serde(default)]
    pub(super) settled: BTreeSet<usize>,
}

type Owed<'a> = BTreeMap<&'a str, Vec<&'a simulator::Trade>>;

impl Comparison {
    /// Compares.
    ///
    /// The venue made nothing after `ended_ms`, in milliseconds since 1970.
    pub(super) fn of(oracle: &Oracle, stored: &Stored, history: &History, ended_ms: i64) -> Self {
        let mut comparison = Self::default();
        let heard = comparison.compare_tickers(oracle, stored, &history.settled);
        let up = oracle.sessions.iter().map(|session| (session.opened_ms, session.ended_ms.unwrap_or(i64::MAX)));
        comparison.silent_ms = time_outside(up, &history.began_ms, ended_ms);
        comparison.unheard_ms = time_outside(times_heard(&oracle.sessions, &heard), &history.began_ms, ended_ms);
        let stored_from = heard.keys().next().copied();
        // A pipeline that was killed between the venue's confirmation and its own first write claims nothing of that.
        let owed_from = stored_from.into_iter().chain(history.claimed_from).min().unwrap_or(1);
        comparison.compare_trades(oracle, &oracle.owed_since(owed_from), stored);
        comparison
    }

    /// Takes what is missing for what is still to be fetched, if `gaps_open` gaps explain it: all of it was made in the last
    /// moments before `ended_ms`, and no more instruments miss something than gaps were open. What the next start does not
    /// fetch is missing in its own comparison.
    pub(super) fn leave_to_fetch(&mut self, gaps_open: u64, ended_ms: i64) {
        let is_recent = self.oldest_missing_ms.is_some_and(|oldest| oldest + TO_FETCH_MS >= ended_ms);
        if is_recent && self.missing_of.len() as u64 <= gaps_open {
            self.trades.to_fetch = std::mem::take(&mut self.trades.missing);
            self.examples.retain(|example| !example.starts_with("missing:"));
        }
    }

    /// Returns whether nothing is missing, holed, there twice or invented, and there was something to compare.
    pub(super) fn is_exact(&self) -> bool {
        let Self { trades, tickers, invented, .. } = self;
        let wrong = trades.missing + trades.twice + tickers.holes + tickers.twice + invented;
        wrong == 0 && !self.is_empty()
    }

    /// Returns whether the venue had nobody to make anything for.
    pub(super) fn is_empty(&self) -> bool {
        self.trades.made + self.tickers.sent == 0
    }

    fn compare_trades(&mut self, oracle: &Oracle, owed: &Owed<'_>, stored: &Stored) {
        for (symbol, made) in &oracle.trades {
            let rows = stored.trades.get(symbol).map_or(&[][..], Vec::as_slice);
            let owed = owed.get(symbol.as_str()).map_or(&[][..], Vec::as_slice);
            self.compare_trades_of(symbol, made, owed, rows);
        }
        for (symbol, rows) in stored.trades.iter().filter(|(symbol, _)| !oracle.trades.contains_key(*symbol)) {
            self.invented += rows.len() as u64;
            self.note(|| format!("invented: {} trades of `{symbol}`, which the venue does not have", rows.len()));
        }
    }

    fn compare_trades_of(
        &mut self,
        symbol: &str,
        made: &[simulator::Trade],
        owed: &[&simulator::Trade],
        rows: &[stored::Trade],
    ) {
        let made: HashMap<u64, &simulator::Trade> = made.iter().map(|trade| (trade.id, trade)).collect();
        let mut copies: HashMap<u64, u64> = HashMap::new();
        let mut by_rest: BTreeSet<u64> = BTreeSet::new();
        for row in rows {
            let trade = number_of(&row.id).and_then(|id| made.get(&id));
            match trade.filter(|trade| is_as_made(row, trade)) {
                Some(trade) => {
                    *copies.entry(trade.id).or_default() += 1;
                    if row.backfilled {
                        by_rest.insert(trade.id);
                    }
                }
                None => {
                    self.invented += 1;
                    self.note(|| format!("invented: trade {} of {symbol} as it is stored", row.id));
                }
            }
        }
        self.trades.made += owed.len() as u64;
        self.trades.by_rest += by_rest.len() as u64;
        for trade in owed {
            match copies.remove(&trade.id) {
                Some(stored) => {
                    self.trades.stored += 1;
                    self.trades_twice(symbol, trade.id, stored);
                }
                None => {
                    self.trades.missing += 1;
                    self.missing_of.insert(symbol.to_owned());
                    let oldest = self.oldest_missing_ms.get_or_insert(trade.timestamp);
                    *oldest = trade.timestamp.min(*oldest);
                    self.note(|| format!("missing: trade {} of {symbol}, number {}", trade.trade_id(), trade.seq));
                }
            }
        }
        self.trades.earlier += copies.len() as u64;
        for (id, stored) in copies {
            self.trades_twice(symbol, id, stored);
        }
    }

    fn trades_twice(&mut self, symbol: &str, id: u64, stored: u64) {
        if stored > 1 {
            self.trades.twice += stored - 1;
            self.note(|| format!("twice: trade ETH-{id} of {symbol} is stored {stored} times"));
        }
    }

    /// Compares tickers.
    fn compare_tickers(&mut self, oracle: &Oracle, stored: &Stored, settled: &BTreeSet<usize>) -> Heard {
        let mut heard = Heard::new();
        let mut sent: HashMap<&str, Vec<Sent>> = HashMap::new();
        for (number, session) in (1..).zip(&oracle.sessions) {
            let is_settled = settled.contains(&number);
            for (symbol, tickers) in &session.tickers {
                let list = sent.entry(symbol).or_default();
                list.extend(tickers.iter().map(|ticker| Sent {
                    volume: ticker.volume.to_bits(),
                    session: number,
                    is_late: !is_settled && session.may_be_in_flight(symbol, ticker.at_ms),
                    at_ms: ticker.at_ms,
                }));
            }
        }
        for (symbol, sent) in &mut sent {
            sent.sort_unstable();
            let rows = stored.tickers.get(*symbol).map_or(&[][..], Vec::as_slice);
            for (session, at_ms) in self.compare_tickers_of(symbol, sent, rows) {
                let latest = heard.entry(session).or_insert(at_ms);
                *latest = at_ms.max(*latest);
            }
        }
        self.invented += stored.unknown_tickers;
        for (symbol, rows) in stored.tickers.iter().filter(|(symbol, _)| !sent.contains_key(symbol.as_str())) {
            self.invented += rows.len() as u64;
            self.note(|| format!("invented: {} tickers of `{symbol}`, of which none was sent", rows.len()));
        }
        heard
    }

    /// Compares one instrument's tickers. Volumes only grow, so that sorted by them they are in the order of sending.
    fn compare_tickers_of(&mut self, symbol: &str, sent: &[Sent], rows: &[f64]) -> Heard {
        let mut rows: Vec<u64> = rows.iter().map(|volume| volume.to_bits()).collect();
        rows.sort_unstable();
        let mut rows = rows.into_iter().peekable();
        let mut sessions: BTreeMap<usize, Share> = BTreeMap::new();
        let mut heard = Heard::new();
        for &Sent { volume, session, is_late, at_ms } in sent {
            while rows.next_if(|row| *row < volume).is_some() {
                self.invented_ticker(symbol);
            }
            let mut copies = 0;
            while rows.next_if(|row| *row == volume).is_some() {
                copies += 1;
            }
            if copies > 1 {
                self.tickers.twice += copies - 1;
                self.note(|| format!("twice: a ticker of {symbol} is stored {copies} times"));
            }
            if copies > 0 {
                heard.insert(session, at_ms);
            }
            sessions.entry(session).or_default().add(copies > 0, is_late);
        }
        for _ in rows {
            self.invented_ticker(symbol);
        }
        self.tickers.sent += sent.len() as u64;
        for (session, Share { sent, stored, in_flight }) in sessions {
            let holes = sent - stored - in_flight;
            self.tickers.stored += stored;
            self.tickers.holes += holes;
            self.tickers.in_flight += in_flight;
            if holes > 0 {
                self.note(|| format!("holes: {holes} of {sent} tickers of {symbol} in session {session}"));
            }
        }
        heard
    }

    fn invented_ticker(&mut self, symbol: &str) {
        self.invented += 1;
        self.note(|| format!("invented: a ticker of {symbol} as it is stored"));
    }

    /// Keeps the first examples of each kind, which is the word before the colon.
    fn note(&mut self, text: impl FnOnce() -> String) {
        let text = text();
        let kind = text.split(':').next();
        if self.examples.iter().filter(|example| example.split(':').next() == kind).count() < EXAMPLES
            && !self.examples.contains(&text)
        {
            self.examples.push(text);
        }
    }
}

/// A ticker that was sent; in the order of sending if it is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sent {
    /// The bits of a positive float, which sort as it does.
    volume: u64,
    session: usize,
    /// In the last moments of its session.
    is_late: bool,
    at_ms: i64,
}

/// When the last ticker that is stored of a session was sent, in milliseconds since 1970. Sessions of which none is stored are
/// not in it.
type Heard = BTreeMap<usize, i64>;

/// What is stored of one session and instrument.
#[derive(Debug, Default)]
struct Share {
    sent: u64,
    stored: u64,
    /// Not stored, late, and nothing behind it is stored.
    in_flight: u64,
}

impl Share {
    fn add(&mut self, is_stored: bool, is_late: bool) {
        self.sent += 1;
        if is_stored {
            self.stored += 1;
            self.in_flight = 0;
        } else {
            self.in_flight += u64::from(is_late);
        }
    }
}

/// Returns the number in a `trade_id`, which is cheaper to look for than its text.
fn number_of(trade_id: &str) -> Option<u64> {
    let digits = trade_id.strip_prefix("ETH-").filter(|digits| !digits.starts_with(['0', '+']))?;
    digits.parse().ok()
}

fn is_as_made(row: &stored::Trade, trade: &simulator::Trade) -> bool {
    // Both were parsed from the same digits, so they are equal to the last bit or not the same.
    row.price.to_bits() == trade.price.to_bits()
        && row.size.to_bits() == trade.amount.to_bits()
        && row.side == trade.direction.name()
        && row.ts_event_ms == trade.timestamp
}

/// Returns from when to when the pipeline heard each session. One that lives is still heard; of one that left nothing in the
/// store only the beginning is known, and the line was up then.
fn times_heard<'a>(sessions: &'a [Session], heard: &'a Heard) -> impl Iterator<Item = (i64, i64)> + 'a {
    (1..).zip(sessions).map(|(number, session)| {
        let confirmed_ms = session.subscriptions.iter().map(|one| one.confirmed_ms).min().unwrap_or(session.opened_ms);
        match (heard.get(&number), session.ended_ms) {
            (None, _) => (session.opened_ms, session.opened_ms),
            (Some(_), None) => (confirmed_ms, i64::MAX),
            // What is handed over in the moment of the end may be noted just behind it.
            (Some(last_ms), Some(ended_ms)) => (confirmed_ms, ended_ms.min(*last_ms)),
        }
    })
}

/// Adds up the time outside all of these spans, from the end of the first one to `ended_ms`, while the venue ran.
fn time_outside(spans: impl Iterator<Item = (i64, i64)>, began_ms: &[i64], ended_ms: i64) -> i64 {
    let mut outside = 0;
    let mut until: Option<i64> = None;
    for (from_ms, until_ms) in spans.chain([(ended_ms, i64::MAX)]) {
        if let Some(until) = until.filter(|until| from_ms > *until) {
            let began = began_ms.iter().copied().rfind(|began| (until..from_ms).contains(began));
            outside += from_ms - began.unwrap_or(until);
        }
        until = until.max(Some(until_ms));
    }
    outside
}

/// Of each kind.
const EXAMPLES: usize = 3;

/// How old a trade may be that somebody's end kept from being fetched: a line that is cut is up again within seconds, and
/// what was missed is asked for a second later.
const TO_FETCH_MS: i64 = 20_000;

#[cfg(test)]
#[path = "comparison_tests.rs"]
mod tests;
