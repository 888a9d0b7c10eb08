//! The store beside what the venue made: what is missing, doubled, invented.

use std::{collections::BTreeMap, path::Path};

use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tidegate_sources::deribit::simulator::{Oracle, Session, Ticker};

use super::PATIENCE;

/// What the store holds: trades by (instrument, id) and tickers by (instrument, volume), with how often.
#[derive(Debug, Default)]
pub struct Stored {
    pub trades: BTreeMap<(String, String), u64>,
    pub tickers: BTreeMap<(String, u64), u64>,
    pub backfilled: u64,
}

impl Stored {
    /// Reads the store; nothing where there is none yet.
    pub async fn read(database: &Path) -> Self {
        let mut stored = Self::default();
        let options = SqliteConnectOptions::new().filename(database).read_only(true).busy_timeout(PATIENCE);
        let Ok(mut db) = SqliteConnection::connect_with(&options).await else { return stored };
        let trades = "SELECT symbol, id, origin = 'backfill' AS late, count(*) AS n FROM trades GROUP BY 1, 2, 3";
        for row in sqlx::query(trades).fetch_all(&mut db).await.unwrap_or_default() {
            let n = row.get::<i64, _>("n") as u64;
            *stored.trades.entry((row.get("symbol"), row.get("id"))).or_default() += n;
            stored.backfilled += if row.get::<bool, _>("late") { n } else { 0 };
        }
        let tickers = "SELECT symbol, volume_24h, count(*) AS n FROM tickers GROUP BY 1, 2";
        for row in sqlx::query(tickers).fetch_all(&mut db).await.unwrap_or_default() {
            let volume = row.get::<f64, _>("volume_24h").to_bits();
            stored.tickers.insert((row.get("symbol"), volume), row.get::<i64, _>("n") as u64);
        }
        stored
    }
}

/// The store beside what the venue made.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Trades that are owed.
    pub owed: u64,
    /// Owed, and not there.
    pub missing: Vec<(String, String)>,
    /// There more often than the venue made them.
    pub twice: Vec<String>,
    /// There, and never made.
    pub invented: Vec<String>,
    /// Tickers that were sent and are not there, unless they may have been on their way when the line was cut or the
    /// process killed.
    pub holes: Vec<(String, f64)>,
}

impl Comparison {
    /// Compares.
    pub fn of(oracle: &Oracle, stored: &Stored) -> Self {
        let mut comparison = Self::default();
        // A program that was killed between a confirmation and its own first write claims nothing for that session.
        let knows = |session: &Session| {
            let mut sent = session.tickers.iter().flat_map(|(symbol, keys)| keys.iter().map(move |key| (symbol, key)));
            sent.any(|(symbol, key)| stored.tickers.contains_key(&(symbol.clone(), key.volume.to_bits())))
        };
        let first = oracle.sessions.iter().position(knows);
        for (symbol, trades) in first.map_or_else(BTreeMap::new, |first| oracle.owed_since(first + 1)) {
            for trade in trades {
                comparison.owed += 1;
                let key = (symbol.to_owned(), trade.trade_id());
                if !stored.trades.contains_key(&key) {
                    comparison.missing.push(key);
                }
            }
        }
        for ((symbol, id), n) in &stored.trades {
            let made = oracle.trades.get(symbol).into_iter().flatten().any(|trade| trade.trade_id() == *id);
            if !made {
                comparison.invented.push(format!("{symbol} {id}"));
            }
            if *n > 1 {
                comparison.twice.push(format!("{symbol} {id} × {n}"));
            }
        }
        // A replay sends tickers of one volume more than once: how many were sent, and how many of them have to be there.
        let mut sent: BTreeMap<(String, u64), (u64, u64)> = BTreeMap::new();
        for session in &oracle.sessions {
            for (symbol, tickers) in &session.tickers {
                let key = |ticker: &Ticker| (symbol.clone(), ticker.volume.to_bits());
                let is_stored = |ticker: &Ticker| stored.tickers.contains_key(&key(ticker));
                let last = tickers.iter().rposition(is_stored).map_or(0, |at| at + 1);
                for (at, ticker) in tickers.iter().enumerate() {
                    // Behind the last one that is there, the last moments before the line was cut or the process killed.
                    let in_flight = session.may_be_in_flight(symbol, ticker.at_ms);
                    let repeats = || tickers.iter().filter(|other| other.volume == ticker.volume).count() > 1;
                    let may_miss = in_flight && (at >= last || repeats());
                    let (all, owed) = sent.entry(key(ticker)).or_default();
                    *all += 1;
                    *owed += u64::from(!may_miss);
                }
            }
        }
        for ((symbol, volume), (_, owed)) in &sent {
            let n = stored.tickers.get(&(symbol.clone(), *volume)).copied().unwrap_or(0);
            let missing = owed.saturating_sub(n);
            comparison.holes.extend((0..missing).map(|_| (symbol.clone(), f64::from_bits(*volume))));
        }
        for ((symbol, volume), n) in &stored.tickers {
            let all = sent.get(&(symbol.clone(), *volume)).map_or(0, |(all, _)| *all);
            if *n > all {
                let list = if all == 0 { &mut comparison.invented } else { &mut comparison.twice };
                list.push(format!("ticker of {symbol} × {n}, sent {all}"));
            }
        }
        comparison
    }

    /// Asserts that nothing is lost, doubled, invented or holed, and that there was something to compare.
    pub fn assert_exact(&self, log: &str) {
        assert!(self.owed > 0, "the venue made nothing; the log:\n{log}");
        let bad = self.missing.len() + self.twice.len() + self.invented.len() + self.holes.len();
        let shown = |list: &[String]| list.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let missing: Vec<_> = self.missing.iter().map(|(symbol, id)| format!("{symbol} {id}")).collect();
        let holes: Vec<_> = self.holes.iter().map(|(symbol, volume)| format!("{symbol} {volume}")).collect();
        assert!(
            bad == 0,
            "of {} trades owed: {} missing ({}), {} twice ({}), {} invented ({}), {} holes ({}); the log:\n{log}",
            self.owed,
            missing.len(),
            shown(&missing),
            self.twice.len(),
            shown(&self.twice),
            self.invented.len(),
            shown(&self.invented),
            holes.len(),
            shown(&holes),
        );
    }
}
