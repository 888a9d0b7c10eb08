//! The contract of sinks: one call that any sink in any crate runs as one test.
//!
//! ```no_run
//! # use std::collections::BTreeMap;
//! # use tidegate_core::{chunk::SinkTable, sink::Sink, testkit::contract::{self, SinkBench, StoredRow}};
//! # struct Bench;
//! # impl Bench { async fn new() -> Self { Self } }
//! #[async_trait::async_trait]
//! impl SinkBench for Bench {
//!     fn sink(&self) -> Box<dyn Sink> {
//!         todo!("a sink on this bench's store")
//!     }
//!
//!     async fn rows(&mut self, table: &SinkTable) -> Vec<StoredRow> {
//!         todo!("what the store holds, read without the sink")
//!     }
//! }
//!
//! // #[tokio::test]
//! async fn keeps_the_contract_of_sinks() {
//!     let report = contract::assert_kept(async || Bench::new().await).await;
//!     assert_eq!(report.left_out(), ["restarted store"], "and nothing else");
//! }
//! ```
//!
//! Each check begins with a bench of its own. It fails under its name with what the sink did; what a bench cannot do is
//! left out, by name. `TIDEGATE_CONTRACT=name` runs the checks that have this in their names.
//!
//! A check plays the delivery driver: `open` first, and again after every error and every call that was given up; chunks
//! in order; `applied` where a write was only accepted. What is in the store is read by the bench, never by the sink.

mod case;
mod checks;
mod rows;
mod stored;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    fmt,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::future::join_all;

pub use stored::{StoredRow, columns, row_of_json, rows_of, value_of_json};

use crate::{
    caught::caught,
    chunk::SinkTable,
    config::OnConflict,
    row::{Column, Value},
    sink::{Owner, Sink},
    spool::SpoolPosition,
};

use super::Proxy;
use case::Case;
use checks::Check;

/// A store of one sink's type, for one check: empty at first, shared with nobody, and gone when it is dropped.
///
/// Three methods have to be there in earnest: [`sink`](Self::sink), [`rows`](Self::rows), and [`refuses`](Self::refuses) for a
/// store that cannot hold every value. The rest are abilities: without them, the checks that need them are left out.
#[async_trait]
pub trait SinkBench: Send {
    /// Returns a sink on this store, not open yet. Asked for again and again: each is one more process.
    fn sink(&self) -> Box<dyn Sink>;

    /// Reads a table's rows without the sink, in any order; none where there is no such table. Columns that are not among
    /// those of `table.table.schema()` need not be there, and do not count. Values are as the column's type says: a label is a
    /// [`Value::Text`], an absent one has no entry.
    async fn rows(&mut self, table: &SinkTable) -> Vec<StoredRow>;

    /// Reads the position without the sink.
    ///
    /// # Errors
    ///
    /// [`CannotTell`] where that cannot be done: then the word of `open` is all there is.
    async fn position(&mut self, owner: &Owner) -> Result<Option<SpoolPosition>, CannotTell> {
        _ = owner;
        Err(CannotTell)
    }

    /// Returns whether the sink refuses rows with this value in such a column, as its documentation says; `None` is a value
    /// that is absent. All else has to come back exactly, to the bit.
    fn refuses(&self, column: &Column, value: Option<&Value>) -> bool {
        _ = (column, value);
        false
    }

    /// Returns whether -0.0 comes back with its sign. False for a store that documents that it does not: the two are equal.
    fn keeps_sign_of_zero(&self) -> bool {
        true
    }

    /// Returns whether `open` refuses a table of this name, as the sink's documentation says.
    fn refuses_table(&self, name: &str) -> bool {
        _ = name;
        false
    }

    /// Returns whether `open` refuses a table that has a column of this name, as the sink's documentation says.
    fn refuses_column(&self, name: &str) -> bool {
        _ = name;
        false
    }

    /// Returns what a table is called in the store. A bench whose store has one room for all adds something of its own.
    fn table_name(&self, name: &str) -> String {
        name.to_owned()
    }

    /// Returns the proxy through which this bench's sinks reach their store.
    fn proxy(&self) -> Option<&Proxy> {
        None
    }

    /// Returns whether the store's client connects again by itself within a write, so that a connection that was cut need not be
    /// seen by the sink: then nothing but the rows is looked at.
    fn heals_itself(&self) -> bool {
        false
    }

    /// Kills the server at once, as `kill -9` does, and starts it on the same data at the same address. Returns false, and does
    /// nothing, where that cannot be done.
    async fn restart(&mut self) -> bool {
        false
    }

    /// Stops the server without ending it, as SIGSTOP does, so that it takes connections and answers nothing. Returns false, and
    /// does nothing, where that cannot be done: then the proxy does it, if there is one.
    async fn freeze(&mut self) -> bool {
        false
    }

    /// Lets a server that was stopped go on.
    async fn thaw(&mut self) {}

    /// Removes a table with its rows behind the sink's back. Returns false where that cannot be done.
    async fn drop_table(&mut self, table: &SinkTable) -> bool {
        _ = table;
        false
    }

    /// Removes a column with its values behind the sink's back. Returns false where that cannot be done.
    async fn drop_column(&mut self, table: &SinkTable, column: &str) -> bool {
        _ = (table, column);
        false
    }

    /// Returns whether a sink that opens shuts out one that is open. False for a store that cannot tell two owners apart.
    fn fences(&self) -> bool {
        true
    }

    /// Returns whether the sink can do this about a row whose key is there.
    fn knows(&self, on_conflict: OnConflict) -> bool {
        _ = on_conflict;
        false
    }

    /// Returns how many rows the largest chunk has.
    fn huge(&self) -> u64 {
        20_000
    }

    /// Returns how long the store may take for something: to make accepted rows durable, to come back after a restart.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// A bench cannot read the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CannotTell;

/// What became of the checks.
#[derive(Debug, Default)]
pub struct Report {
    kept: Vec<(&'static str, String)>,
    left_out: Vec<(&'static str, String)>,
    broken: Vec<(&'static str, String)>,
}

impl Report {
    /// Returns the names of the checks that the sink has passed.
    pub fn kept(&self) -> Vec<&'static str> {
        self.kept.iter().map(|(name, _)| *name).collect()
    }

    /// Returns the names of the checks that were left out.
    pub fn left_out(&self) -> Vec<&'static str> {
        self.left_out.iter().map(|(name, _)| *name).collect()
    }

    /// Returns the checks that the sink has failed, and what it did.
    pub fn broken(&self) -> &[(&'static str, String)] {
        &self.broken
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kept, left_out, broken) = (self.kept.len(), self.left_out.len(), self.broken.len());
        writeln!(f, "contract of sinks: {kept} checks kept, {left_out} left out, {broken} broken")?;
        for (how, checks) in [("kept", &self.kept), ("left out", &self.left_out), ("BROKEN", &self.broken)] {
            for (name, text) in checks {
                writeln!(f, "  {how}: {name}{}{text}", if text.is_empty() { "" } else { ": " })?;
            }
        }
        Ok(())
    }
}

/// Runs all checks, each with a new bench, and prints the report.
///
/// # Panics
///
/// If the sink has failed one, with all that it did.
pub async fn assert_kept<B: SinkBench + 'static>(bench: impl AsyncFn() -> B) -> Report {
    assert_kept_in_lanes(1, async |_| bench().await).await
}

/// As [`assert_kept`], so many checks at a time, for a store whose checks mostly wait. `bench` is told in which lane its check is:
/// those of one lane come one after the other.
///
/// # Panics
///
/// As [`assert_kept`].
pub async fn assert_kept_in_lanes<B: SinkBench + 'static>(lanes: usize, bench: impl AsyncFn(usize) -> B) -> Report {
    let report = check_in_lanes(lanes, bench).await;
    assert!(report.broken.is_empty(), "{report}");
    println!("{report}");
    report
}

/// Runs all checks, each with a new bench.
pub async fn check<B: SinkBench + 'static>(bench: impl AsyncFn() -> B) -> Report {
    check_in_lanes(1, async |_| bench().await).await
}

async fn check_in_lanes<B: SinkBench + 'static>(lanes: usize, bench: impl AsyncFn(usize) -> B) -> Report {
    let only = std::env::var("TIDEGATE_CONTRACT").unwrap_or_default();
    let checks = checks::ALL.iter().filter(|(name, _)| name.contains(&only));
    let (waiting, report) = (RefCell::new(checks), RefCell::new(Report::default()));
    let lane = async |lane: usize| {
        loop {
            let Some((name, check)) = waiting.borrow_mut().next() else { break };
            let bench: Box<dyn SinkBench> = Box::new(bench(lane).await);
            let ended = run(name, *check, bench).await;
            report.borrow_mut().add(name, ended);
        }
    };
    join_all((0..lanes).map(lane)).await;
    let mut report = report.into_inner();
    report.sort();
    report
}

/// Runs a check; returns what was noted of it.
async fn run(name: &'static str, check: Check, bench: Box<dyn SinkBench>) -> Verdict<String> {
    let began = Instant::now();
    let mut case = Case::new(bench);
    let ended = caught("the check, the sink or the bench", check(&mut case)).await;
    ended.unwrap_or_else(|panic| broken(panic.chain()))?;
    // One that takes its time is looked at first when a test has become slow.
    case.note(format!("{:.1} s", began.elapsed().as_secs_f64()));
    println!("contract of sinks: kept {name}");
    Ok(case.noted())
}

impl Report {
    fn add(&mut self, name: &'static str, ended: Verdict<String>) {
        let (checks, text) = match ended {
            Ok(noted) => (&mut self.kept, noted),
            Err(Stop::LeftOut(why)) => (&mut self.left_out, why),
            Err(Stop::Broken(what)) => (&mut self.broken, what),
        };
        checks.push((name, text));
    }

    /// Puts the checks into the order that they have without lanes.
    fn sort(&mut self) {
        let place = |(name, _): &(&str, String)| checks::ALL.iter().position(|(known, _)| known == name);
        for checks in [&mut self.kept, &mut self.left_out, &mut self.broken] {
            checks.sort_by_key(place);
        }
    }
}

/// Why a check ended before its end.
#[derive(Debug)]
enum Stop {
    LeftOut(String),
    Broken(String),
}

/// How a check ends.
type Verdict<T = ()> = Result<T, Stop>;

/// Says what the sink did.
fn broken<T>(what: impl Into<String>) -> Verdict<T> {
    Err(Stop::Broken(what.into()))
}

/// Says what the bench cannot do.
fn left_out<T>(why: impl Into<String>) -> Verdict<T> {
    Err(Stop::LeftOut(why.into()))
}
