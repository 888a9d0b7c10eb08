//! What the ledger says beside what the store holds, by SQL, and beside what the venue made.

use std::{
    collections::{BTreeMap, HashSet},
    process::Command,
};

use serde_json::Value;
use sqlx::Row;
use tidegate_sources::deribit::simulator::{Handed, Oracle};
use tokio::time::Instant;

use super::{Bench, PATIENCE, Program, stored};

/// Every stream's time, as `tidegate coverage --by stream --json` says it.
pub struct Ledger {
    streams: BTreeMap<(String, String), Stream>,
}

struct Stream {
    /// Rows that came live, and by the venue's history.
    rows: (i64, i64),
    intervals: Vec<Interval>,
}

/// From, to and what is known; nanoseconds since 1970 by the venue's clock.
type Interval = (i64, i64, String);

impl Bench {
    /// Waits until the ledger has read all that the store holds and no gap is open, and returns it.
    pub async fn until_ledger(&self, program: &mut Program) -> Ledger {
        let no_gap = |report: &Value| report["checks"]["eth/source.deribit"]["gaps"]["open"] == 0;
        program.until("no gap is open", no_gap).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (ledger, rows) = (self.ledger(), self.rows_by_origin().await);
            let counts = ledger.streams.iter().filter(|(_, stream)| stream.rows != (0, 0));
            let counts: BTreeMap<_, _> = counts.map(|(key, stream)| (key.clone(), stream.rows)).collect();
            // The end of a gap brings no row of its own, so the rows may be told before it.
            if counts == rows && ledger.count("open") == 0 {
                return ledger;
            }
            let differs: Vec<_> = rows.iter().filter(|(key, n)| counts.get(*key) != Some(n)).collect();
            assert!(Instant::now() < deadline, "SQL: {differs:?}; the ledger: {counts:?}; the log:\n{}", program.log());
            program.next_report().await;
        }
    }

    /// Asks the program for the ledger.
    pub fn ledger(&self) -> Ledger {
        let mut coverage = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let coverage = coverage.args(["coverage", "eth.toml", "--by", "stream", "--json"]).current_dir(self.folder());
        let output = coverage.output().unwrap();
        let document: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let interval =
            |one: &Value| (one["from"].as_i64().unwrap(), one["to"].as_i64().unwrap_or(i64::MAX), text(&one["state"]));
        let stream = |one: &Value| {
            let rows = (one["rows_received"].as_i64().unwrap(), one["rows_backfilled"].as_i64().unwrap());
            let intervals = one["intervals"].as_array().unwrap().iter().map(interval).collect();
            ((text(&one["table"]), text(&one["symbol"])), Stream { rows, intervals })
        };
        Ledger { streams: document["coverage"]["streams"].as_array().unwrap().iter().map(stream).collect() }
    }

    /// Counts the store's rows of each table and symbol, those that came live and those of the venue's history.
    async fn rows_by_origin(&self) -> BTreeMap<(String, String), (i64, i64)> {
        let mut rows = BTreeMap::new();
        let mut db = self.connection().await;
        for table in ["trades", "tickers", "quotes", "book_changes"] {
            let query = format!(
                "SELECT symbol, sum(origin = 'live') AS live, sum(origin = 'backfill') AS late FROM {table} GROUP BY 1"
            );
            for row in sqlx::query(sqlx::AssertSqlSafe(query)).fetch_all(&mut db).await.unwrap_or_default() {
                rows.insert((table.to_owned(), row.get("symbol")), (row.get("live"), row.get("late")));
            }
        }
        rows
    }

    /// Asserts that no interval says more than the store holds and the venue made.
    pub async fn assert_ledger_is_true(&self, ledger: &Ledger) {
        let stored = stored(&self.database()).await;
        self.venue.read(|oracle| {
            ledger.assert_without_overlap_or_hole();
            for (symbol, made) in &oracle.trades {
                let rows = stored.trades.get(symbol).map_or(&[][..], Vec::as_slice);
                let ids: HashSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
                for trade in made {
                    let state = ledger.state("trades", symbol, trade.timestamp * MS);
                    let id = trade.trade_id();
                    if ids.contains(id.as_str()) {
                        let is_denied = matches!(state, "absent" | "lost" | "open");
                        assert!(!is_denied, "{id} of {symbol} is stored, and its time is {state}");
                    } else {
                        assert!(!is_complete(state), "{id} of {symbol} is not stored, and its time is {state}");
                    }
                }
            }
            let volumes = super::store::bits(&stored.tickers);
            for session in &oracle.sessions {
                ledger.assert_claims("tickers", &session.tickers, |volume| volume.to_bits(), &volumes);
                ledger.assert_claims("quotes", &session.quotes, |time| *time, &stored.quotes);
                ledger.assert_claims("book_changes", &session.books, |key| *key, &stored.books);
            }
            ledger.assert_somebody_listened(oracle);
        });
    }
}

impl Ledger {
    /// Returns what is known of a moment; "" where the stream is not known.
    fn state(&self, table: &str, symbol: &str, at: i64) -> &str {
        let Some(stream) = self.streams.get(&(table.to_owned(), symbol.to_owned())) else { return "" };
        stream.intervals.iter().find(|(from, to, _)| (*from..*to).contains(&at)).map_or("", |(_, _, state)| state)
    }

    /// Returns how many intervals have a state.
    pub fn count(&self, state: &str) -> usize {
        self.streams.values().flat_map(|stream| &stream.intervals).filter(|(_, _, known)| known == state).count()
    }

    fn assert_without_overlap_or_hole(&self) {
        for (key, stream) in &self.streams {
            let touch = stream.intervals.windows(2).all(|pair| pair[0].1 == pair[1].0 && pair[0].0 < pair[0].1);
            assert!(touch, "{key:?}: {:?}", stream.intervals);
        }
    }

    /// Asserts that what was sent and is not stored is in no time that is claimed.
    fn assert_claims<K, L: Eq + std::hash::Hash>(
        &self,
        table: &str,
        sent: &BTreeMap<String, Vec<Handed<K>>>,
        key: impl Fn(&K) -> L,
        stored: &std::collections::HashMap<String, Vec<L>>,
    ) {
        for (symbol, sent) in sent {
            let rows: HashSet<&L> = stored.get(symbol).into_iter().flatten().collect();
            for one in sent.iter().filter(|one| !rows.contains(&key(&one.key))) {
                // Milliseconds are cut off.
                let states = [one.at_ms, one.at_ms + 1].map(|at_ms| self.state(table, symbol, at_ms * MS));
                let is_claimed = states.into_iter().all(|state| state == "received");
                assert!(!is_claimed, "{table} of {symbol} at {} ms were sent, claimed and not stored", one.at_ms);
            }
        }
    }

    /// Asserts that what the venue cannot repeat is claimed of times only in which somebody was subscribed to it.
    fn assert_somebody_listened(&self, oracle: &Oracle) {
        for ((table, symbol), stream) in self.streams.iter().filter(|((table, _), _)| table != "trades") {
            let channel = match table.as_str() {
                "tickers" => format!("ticker.{symbol}."),
                "quotes" => format!("quote.{symbol}"),
                _ => format!("book.{symbol}."),
            };
            let spans: Vec<(i64, i64)> = oracle
                .sessions
                .iter()
                .flat_map(|session| session.subscriptions.iter().map(|one| (one, session.ended_ms)))
                .filter(|(one, _)| one.channel.starts_with(&channel))
                .map(|(one, ended_ms)| {
                    let left_ms = one.ended.as_ref().map(|ended| ended.at_ms);
                    (one.confirmed_ms, left_ms.or(ended_ms).unwrap_or(i64::MAX / MS - 1))
                })
                .collect();
            for (from, to, _) in stream.intervals.iter().filter(|(_, _, state)| state == "received") {
                let holds =
                    |span: &(i64, i64)| span.0 * MS <= *from + MS && (*to).min(i64::MAX - MS) <= (span.1 + 1) * MS;
                assert!(
                    spans.iter().any(holds),
                    "{table} of {symbol}: {from} to {to} is claimed, subscribed was {spans:?}"
                );
            }
        }
    }
}

fn is_complete(state: &str) -> bool {
    matches!(state, "received" | "backfilled" | "absent")
}

const MS: i64 = 1_000_000;
