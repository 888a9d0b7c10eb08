//! A store beside the simulator's own list: what is missing, what is there twice, what nobody ever sent.
//!
//! Trades are owed, since the venue repeats them. Tickers, quotes and books it does not: of each session and instrument a
//! store holds the beginning of what was handed to the socket, without holes, each message once; what follows was on its way
//! when the line was cut or the process killed, and is counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

use serde::{Deserialize, Serialize};

use super::oracle::{BookKey, Handed, Oracle, Session, Trade};

/// What a store holds, by instrument.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stored {
    /// Trades.
    pub trades: HashMap<String, Vec<StoredTrade>>,
    /// 24-hour volumes: each tells one ticker from all others of its instrument.
    pub tickers: HashMap<String, Vec<f64>>,
    /// Tickers without a volume, which no ticker of the simulator is.
    pub unknown_tickers: u64,
    /// Times of quotes, in milliseconds since 1970.
    pub quotes: HashMap<String, Vec<i64>>,
    /// Messages of books.
    pub books: HashMap<String, Vec<BookKey>>,
}

/// A stored trade.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTrade {
    /// The venue's `trade_id`.
    pub id: String,
    /// As it is stored.
    pub price: f64,
    /// As it is stored.
    pub size: f64,
    /// `buy` or `sell`.
    pub side: String,
    /// Milliseconds since 1970.
    pub ts_event_ms: i64,
    /// Whether it came by the venue's history.
    pub backfilled: bool,
}

/// What came of comparing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// Trades.
    pub trades: Trades,
    /// Tickers.
    pub tickers: Unrepeated,
    /// Quotes.
    pub quotes: Unrepeated,
    /// Messages of books.
    pub books: Unrepeated,
    /// Rows that the venue never made, or made with other values.
    pub invented: u64,
    /// How long no session was up while the venue ran, in milliseconds.
    pub silent_ms: i64,
    /// How long the pipeline heard nothing while the venue ran, in milliseconds: from a session's last message that is stored to
    /// the next one's first confirmation.
    pub unheard_ms: i64,
    /// When the last message that is stored of a session was sent, in milliseconds since 1970, by the session's number. Sessions
    /// of which none is stored are not in it.
    pub heard_ms: BTreeMap<usize, i64>,
    /// The first of what is wrong, in words.
    pub examples: Vec<String>,
}

/// Trades: the venue repeats them, so every one is owed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trades {
    /// Owed: made since each instrument's first confirmed subscription.
    pub made: u64,
    /// Of these, stored.
    pub stored: u64,
    /// Fetched by REST, of all that are stored.
    pub by_rest: u64,
    /// Owed, and not there.
    pub missing: u64,
    /// Rows too many.
    pub twice: u64,
    /// Stored although they were made before what is owed.
    pub earlier: u64,
}

/// What the venue cannot repeat: what a session has handed over must be there, but for the last moments before its line was
/// cut or the process killed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unrepeated {
    /// Handed to a socket.
    pub sent: u64,
    /// Of these, stored.
    pub stored: u64,
    /// Sent, and neither stored nor in flight.
    pub holes: u64,
    /// Rows too many.
    pub twice: u64,
    /// Sent in the last moments of a session, behind the last one that is stored: on its way when the line was cut or the
    /// process killed.
    pub in_flight: u64,
}

/// What is known of the runs so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When each run began, in milliseconds since 1970. In between the venue did not run, and sent nothing to anybody.
    pub began_ms: Vec<i64>,
    /// The first session, counted from 1, that the pipeline said it had subscribed in and was storing.
    pub claimed_from: Option<usize>,
    /// Sessions, counted from 1, that ended when the pipeline had said that all of theirs was stored: nothing was in flight.
    #[serde(default)]
    pub settled: BTreeSet<usize>,
}

type Owed<'a> = BTreeMap<&'a str, Vec<&'a Trade>>;

impl Comparison {
    /// Compares.
    ///
    /// The venue made nothing after `ended_ms`, in milliseconds since 1970.
    pub fn of(oracle: &Oracle, stored: &Stored, history: &History, ended_ms: i64) -> Self {
        let mut comparison = Self { invented: stored.unknown_tickers, ..Self::default() };
        comparison.compare_unrepeated(oracle, stored, &history.settled);
        let up = oracle.sessions.iter().map(|session| (session.opened_ms, session.ended_ms.unwrap_or(i64::MAX)));
        comparison.silent_ms = time_outside(up, &history.began_ms, ended_ms);
        comparison.unheard_ms =
            time_outside(times_heard(&oracle.sessions, &comparison.heard_ms), &history.began_ms, ended_ms);
        let stored_from = comparison.heard_ms.keys().next().copied();
        // A pipeline that was killed between the venue's confirmation and its own first write claims nothing of that.
        let owed_from = stored_from.into_iter().chain(history.claimed_from).min().unwrap_or(1);
        comparison.compare_trades(oracle, &oracle.owed_since(owed_from), stored);
        comparison
    }

    /// Returns whether nothing is missing, holed, there twice or invented, and there was something to compare.
    pub fn is_exact(&self) -> bool {
        let wrong = self.trades.missing + self.trades.twice + self.invented;
        wrong == 0 && self.unrepeated().all(|kind| kind.holes + kind.twice == 0) && !self.is_empty()
    }

    /// Returns whether the venue had nobody to make anything for.
    pub fn is_empty(&self) -> bool {
        self.trades.made == 0 && self.unrepeated().all(|kind| kind.sent == 0)
    }

    /// Asserts for a test that all is as the venue made it, and says `more` if it is not.
    ///
    /// # Panics
    ///
    /// If no trade was owed, or anything is missing, holed, there twice or invented.
    #[track_caller]
    pub fn assert_exact(&self, more: &str) {
        assert!(self.trades.made > 0, "the venue made no trade that is owed; {more}");
        assert!(self.is_exact(), "not as the venue made it: {self:#?}\n{more}");
    }

    /// Returns what the venue cannot repeat, of each kind.
    pub fn unrepeated(&self) -> impl Iterator<Item = &Unrepeated> {
        [&self.tickers, &self.quotes, &self.books].into_iter()
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

    fn compare_trades_of(&mut self, symbol: &str, made: &[Trade], owed: &[&Trade], rows: &[StoredTrade]) {
        let made: HashMap<u64, &Trade> = made.iter().map(|trade| (trade.id, trade)).collect();
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

    /// Compares what the venue cannot repeat.
    fn compare_unrepeated(&mut self, oracle: &Oracle, stored: &Stored, settled: &BTreeSet<usize>) {
        let sessions = Sessions { all: &oracle.sessions, settled };
        let why: Vec<Option<&str>> = oracle.sessions.iter().map(|session| session.why.as_deref()).collect();
        let volumes = bits(&stored.tickers);
        let sent = sessions.sent(|session| &session.tickers, |volume| volume.to_bits());
        self.tickers = self.compare_kind("ticker", &sent, &volumes, &why);
        let sent = sessions.sent(|session| &session.quotes, |time| *time);
        self.quotes = self.compare_kind("quote", &sent, &stored.quotes, &why);
        let sent = sessions.sent(|session| &session.books, |key| *key);
        self.books = self.compare_kind("book message", &sent, &stored.books, &why);
    }

    fn compare_kind<K: Copy + Eq + Hash>(
        &mut self,
        kind: &str,
        sent: &BTreeMap<&str, Vec<Sent<K>>>,
        stored: &HashMap<String, Vec<K>>,
        why: &[Option<&str>],
    ) -> Unrepeated {
        let mut sum = Unrepeated::default();
        for (symbol, sent) in sent {
            let rows = stored.get(*symbol).map_or(&[][..], Vec::as_slice);
            let Matched { is_stored, twice, invented } = match_rows(sent, rows);
            if twice > 0 {
                sum.twice += twice;
                self.note(|| format!("twice: a {kind} of {symbol}, {twice} rows too many"));
            }
            if invented > 0 {
                self.invented += invented;
                self.note(|| format!("invented: a {kind} of {symbol} as it is stored"));
            }
            for (session, share) in shares(sent, &is_stored, &mut self.heard_ms) {
                let holes = share.sent - share.stored - share.in_flight;
                sum.sent += share.sent;
                sum.stored += share.stored;
                sum.holes += holes;
                sum.in_flight += share.in_flight;
                if holes > 0 {
                    let Share { sent, too_early, .. } = share;
                    // A program that is behind is killed with more on its way than a test allows for: that is no hole in a log.
                    let ended = why.get(session - 1).copied().flatten().unwrap_or("none yet");
                    self.note(|| {
                        let of = format!("{holes} of {sent} {kind}s of {symbol} in session {session}");
                        format!("holes: {of} (its end: {ended}), {too_early} with nothing stored behind them")
                    });
                }
            }
        }
        for (symbol, rows) in stored.iter().filter(|(symbol, _)| !sent.contains_key(symbol.as_str())) {
            self.invented += rows.len() as u64;
            self.note(|| format!("invented: {} {kind}s of `{symbol}`, of which none was sent", rows.len()));
        }
        sum
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

/// All sessions, and those of which nothing was in flight at the end.
struct Sessions<'a> {
    all: &'a [Session],
    settled: &'a BTreeSet<usize>,
}

impl<'a> Sessions<'a> {
    /// Returns the messages of one kind by instrument, in the order of sessions and of sending.
    fn sent<K: 'a, L>(
        &self,
        kind: impl Fn(&'a Session) -> &'a BTreeMap<String, Vec<Handed<K>>>,
        key: impl Fn(&K) -> L,
    ) -> BTreeMap<&'a str, Vec<Sent<L>>> {
        let mut sent: BTreeMap<&str, Vec<Sent<L>>> = BTreeMap::new();
        for (number, session) in (1..).zip(self.all) {
            let is_settled = self.settled.contains(&number);
            let last_moments = session.last_moments();
            for (symbol, handed) in kind(session) {
                sent.entry(symbol).or_default().extend(handed.iter().map(|one| Sent {
                    key: key(&one.key),
                    session: number,
                    is_late: !is_settled && last_moments.hold(symbol, one.at_ms),
                    at_ms: one.at_ms,
                }));
            }
        }
        sent
    }
}

/// A message that was sent.
#[derive(Debug, Clone, Copy)]
struct Sent<K> {
    key: K,
    session: usize,
    /// In the last moments of its session.
    is_late: bool,
    at_ms: i64,
}

/// Which messages are stored, and how many rows are none of them.
struct Matched {
    is_stored: Vec<bool>,
    twice: u64,
    invented: u64,
}

/// Finds the row of each message. Where one was sent more than once, as in a replay and as a book's whole state in two
/// sessions, the rows are those of the ones that were not in flight.
fn match_rows<K: Copy + Eq + Hash>(sent: &[Sent<K>], rows: &[K]) -> Matched {
    let mut copies: HashMap<K, u64> = HashMap::with_capacity(rows.len());
    rows.iter().for_each(|row| *copies.entry(*row).or_default() += 1);
    let mut is_stored = vec![false; sent.len()];
    for is_late in [false, true] {
        for (one, is_stored) in sent.iter().zip(&mut is_stored).filter(|(one, _)| one.is_late == is_late) {
            if let Some(left) = copies.get_mut(&one.key).filter(|left| **left > 0) {
                *left -= 1;
                *is_stored = true;
            }
        }
    }
    let mut matched = Matched { is_stored, twice: 0, invented: 0 };
    for one in sent {
        matched.twice += copies.remove(&one.key).unwrap_or(0);
    }
    matched.invented = copies.values().sum();
    matched
}

/// Adds up each session of an instrument.
fn shares<K: Copy + Eq + Hash>(
    sent: &[Sent<K>],
    is_stored: &[bool],
    heard: &mut BTreeMap<usize, i64>,
) -> BTreeMap<usize, Share> {
    let mut times: HashMap<K, u64> = HashMap::with_capacity(sent.len());
    sent.iter().for_each(|one| *times.entry(one.key).or_default() += 1);
    let mut shares: BTreeMap<usize, Share> = BTreeMap::new();
    for (one, is_stored) in sent.iter().zip(is_stored) {
        let share = shares.entry(one.session).or_default();
        share.sent += 1;
        if *is_stored {
            share.stored(one.at_ms, heard.entry(one.session).or_insert(one.at_ms));
        } else if !one.is_late {
            share.too_early += 1;
        } else {
            share.in_flight += 1;
            // Of one that was sent more than once nobody can say which of them is stored.
            share.behind_last += u64::from(times.get(&one.key) == Some(&1));
        }
    }
    shares
}

fn bits(values: &HashMap<String, Vec<f64>>) -> HashMap<String, Vec<u64>> {
    let bits =
        |(symbol, values): (&String, &Vec<f64>)| (symbol.clone(), values.iter().map(|one| one.to_bits()).collect());
    values.iter().map(bits).collect()
}

/// What is stored of one session and instrument.
#[derive(Debug, Default)]
struct Share {
    sent: u64,
    stored: u64,
    /// Not stored, and late; those that were sent only once have nothing behind them that is stored.
    in_flight: u64,
    /// Of these, sent only once.
    behind_last: u64,
    /// Not stored, not late, and nothing behind them is stored.
    too_early: u64,
}

impl Share {
    fn stored(&mut self, at_ms: i64, heard_ms: &mut i64) {
        self.stored += 1;
        self.in_flight -= self.behind_last;
        self.behind_last = 0;
        self.too_early = 0;
        *heard_ms = at_ms.max(*heard_ms);
    }
}

/// Returns the number in a `trade_id`, which is cheaper to look for than its text.
fn number_of(trade_id: &str) -> Option<u64> {
    let digits = trade_id.strip_prefix("ETH-").filter(|digits| !digits.starts_with(['0', '+']))?;
    digits.parse().ok()
}

fn is_as_made(row: &StoredTrade, trade: &Trade) -> bool {
    // Both were parsed from the same digits, so they are equal to the last bit or not the same.
    row.price.to_bits() == trade.price.to_bits()
        && row.size.to_bits() == trade.amount.to_bits()
        && row.side == trade.direction.name()
        && row.ts_event_ms == trade.timestamp
}

/// Returns from when to when the pipeline heard each session. One that lives is still heard; of one that left nothing in the
/// store only the beginning is known, and the line was up then.
fn times_heard<'a>(sessions: &'a [Session], heard: &'a BTreeMap<usize, i64>) -> impl Iterator<Item = (i64, i64)> + 'a {
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

#[cfg(test)]
mod tests;
