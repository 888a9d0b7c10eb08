//! What the ledger says, read from its file: of a pipeline that runs or stands still.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use serde::Serialize;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{
    fold, store,
    timeline::{Joined, State},
};
use crate::{Error, Result, row::Timestamp};

/// What is known of a pipeline's streams. Times are the venue's, in UTC nanoseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    /// Up to where the spool was read.
    pub offset: u64,
    /// Whether the rows that are counted are every row of this spool, from its first one on, and no other.
    pub counts_all: bool,
    /// The first moment of which anything is said; `None` where nothing was subscribed to yet.
    pub from: Option<Timestamp>,
    /// The last moment of which anything is known: now, where nobody runs it.
    pub to: Option<Timestamp>,
    /// Since when nobody runs it; `None` while somebody does, and of what comes from a recording.
    pub stopped: Option<Timestamp>,
    /// Whether anything is lost: what could have been had, and cannot any more. Of [`totals`](Self::totals), and nothing else.
    pub is_lost: bool,
    /// All there is of each, over all streams and sinks.
    pub totals: Totals,
    /// One for each table of each source.
    pub kinds: Vec<Kind>,
    /// Sinks that lack something of what the spool has, or had, or that have dead letters; in the order of their names.
    pub sinks: Vec<SinkCoverage>,
    /// Rows that were thrown away since the spool was full.
    pub dropped: Vec<Dropped>,
    /// Offsets of the spool that cannot be read any more.
    pub unreadable: Vec<Unread>,
    /// What sinks never get, since a person has decided so.
    pub skipped: Vec<Skipped>,
    /// Every stream.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamCoverage>,
}

/// All that is lost, and what is not yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Stretches of streams that were filled.
    pub filled: usize,
    /// Stretches of streams that are asked for.
    pub open: usize,
    /// Stretches of streams in which something is lost: no sink has it.
    pub lost: usize,
    /// Rows that the spool had and a sink never gets, as far as they were counted; once for each sink.
    pub rows_lost_at_sinks: u64,
    /// Stretches of the spool that a sink, or nobody, never gets, and whose rows nobody could count any more.
    pub uncounted: usize,
    /// Rows that a store would not take, and that wait for a person: they are there.
    pub dead_letters: u64,
}

/// What one sink lacks of what the spool has, or had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SinkCoverage {
    /// The sink's name.
    pub sink: String,
    /// Rows that it never gets, as far as they were counted.
    pub rows_lost: u64,
    /// Stretches of the spool that it never gets, and whose rows nobody could count any more.
    pub uncounted: usize,
    /// Both, by why.
    pub lost_because: BTreeMap<String, LostRows>,
    /// The tables of which it lacks something; all, where one is empty.
    pub tables: BTreeSet<String>,
    /// Rows that its store would not take, and that wait for a person.
    pub dead_letters: u64,
}

/// Rows that one sink never gets for one reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LostRows {
    /// As far as they were counted.
    pub rows: u64,
    /// Stretches of the spool whose rows nobody could count any more.
    pub uncounted: usize,
}

/// The streams of one table of one source.
#[derive(Debug, Clone, Serialize)]
pub struct Kind {
    /// The source's name.
    pub source: String,
    /// The table's name.
    pub table: String,
    /// How many streams there are.
    pub streams: usize,
    /// What shows that nothing is missing.
    pub proof: Proof,
    /// The beginning of the first one.
    pub from: Timestamp,
    /// The last moment of which anything is known.
    pub to: Timestamp,
    /// Rows that came live, since the ledger began; `None` where only a part of its time is looked at.
    pub rows_received: Option<u64>,
    /// Rows that came by the venue's history.
    pub rows_backfilled: Option<u64>,
    /// Stretches that were filled.
    pub filled: usize,
    /// Stretches in which numbers are missing that the venue never gave.
    pub absent: usize,
    /// Stretches in which something may be missing, that are asked for.
    pub open: usize,
    /// Streams to which nobody listens at present: what they miss is asked for when somebody does.
    pub away: usize,
    /// Stretches in which something is lost.
    pub lost: usize,
    /// For how many seconds something is lost of at least one stream. Of stretches that were joined, since they lie long ago, it is
    /// known how long they were, and not when exactly: where streams were cut at other moments, it is more than is said here.
    pub lost_seconds: f64,
    /// Why, with the number of streams.
    pub lost_because: BTreeMap<String, usize>,
    /// For how many seconds nobody can tell what was sent, of at least one stream; of joined stretches as above.
    pub unknown_seconds: f64,
    /// For how many seconds the market was closed, by its schedule, of at least one stream.
    pub closed_seconds: f64,
    /// From when on all that the venue sent is in the spool, or was; `None` where nothing can show that.
    pub complete_since: Option<Timestamp>,
    /// The sinks that lack some of it: of these that does not hold.
    pub incomplete_at: Vec<String>,
}

/// What shows that nothing is missing in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Numbers without holes.
    DenseSequence,
    /// Each record names the one before.
    Linked,
    /// Complete answers of the venue's history: numbers may jump.
    History,
    /// Nothing: what is sent while nobody listens cannot be known.
    None,
}

/// One stream.
#[derive(Debug, Clone, Serialize)]
pub struct StreamCoverage {
    /// The source's name.
    pub source: String,
    /// The table's name.
    pub table: String,
    /// The instrument.
    pub symbol: String,
    /// Tells apart two instruments of one name; mostly empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listing: String,
    /// What shows that nothing is missing.
    pub proof: Proof,
    /// Rows that came live, since the ledger began; `None` where only a part of its time is looked at.
    pub rows_received: Option<u64>,
    /// Rows that came by the venue's history.
    pub rows_backfilled: Option<u64>,
    /// From when on all that the venue sent is there; `None` where nothing can show that.
    pub complete_since: Option<Timestamp>,
    /// Its time, without overlap or hole.
    pub intervals: Vec<Interval>,
}

/// A stretch of a stream's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interval {
    /// Its first moment.
    pub from: Timestamp,
    /// The moment behind its last one; `None` where it goes on.
    pub to: Option<Timestamp>,
    /// What is known of it.
    pub state: State,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Of one that is lost or unknown, and was joined of several which lie long ago: what they were. Between them all was received.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub joined: Option<Joined>,
}

/// Rows of a stream that were thrown away since the spool was full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The table's name.
    pub table: String,
    /// The instrument.
    pub symbol: String,
    /// The sink that did not get them; `None` where they never came into the spool, which asks for them again if it can.
    pub sink: Option<String>,
    /// How many.
    pub rows: u64,
    /// The first time, by our clock.
    pub first_at: Timestamp,
    /// The last time.
    pub last_at: Timestamp,
}

/// Offsets of the spool that cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// The sinks that had not got them; without any it was the ledger, and what was in them is lost of every stream.
    pub sinks: Vec<String>,
}

/// Offsets that a sink never gets: `tidegate adopt` or `tidegate sink forget` has said so, before it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The sink.
    pub sink: String,
    /// The first offset.
    pub first: u64,
    /// The last offset.
    pub last: u64,
    /// The table; empty where nobody could count the rows any more.
    pub table: String,
    /// How many rows of it; `None` where nobody could count them any more.
    pub rows: Option<u64>,
    /// Why.
    pub why: String,
    /// When, by our clock.
    pub at: Timestamp,
}

/// Who keeps a ledger at present: the file does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// Somebody runs the pipeline, now.
    Running(Timestamp),
    /// Nobody does, now: since the last frame nobody has listened.
    Nobody(Timestamp),
    /// It is that of a recording, in which no time goes by.
    Recording,
}

impl Coverage {
    /// Reads a ledger; of the time before `since` nothing is said.
    ///
    /// # Errors
    ///
    /// `Config` when there is none; `Permanent` when it is damaged; `Transient` when it cannot be read otherwise.
    pub async fn read(path: &Path, since: Option<Timestamp>, keeper: Keeper) -> Result<Self> {
        if !path.exists() {
            let shown = path.display();
            return Err(Error::config(format!("there is no ledger `{shown}`: the next run makes it")));
        }
        let read = async {
            let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(PATIENCE);
            let mut connection = options.disable_statement_logging().connect().await?;
            // One moment, however long it takes to read.
            sqlx::query("BEGIN").execute(&mut connection).await?;
            let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await?;
            if let Err(newer) = store::refuse_newer(path, version) {
                return Ok(Err(newer));
            }
            let coverage = Self::query(&mut connection, since, keeper, version).await?;
            connection.close().await?;
            Ok(Ok(coverage))
        };
        let read = read.await.map_err(|error| store::failed(path, error)).map_err(|error| {
            if !store::is_damaged(&error) {
                return error;
            }
            let shown = path.display();
            let text = format!("the ledger `{shown}` is damaged: the next run puts it aside and builds it again");
            Error::permanent(text).because(error)
        });
        read?
    }

    async fn query(
        connection: &mut SqliteConnection,
        since: Option<Timestamp>,
        keeper: Keeper,
        version: i64,
    ) -> sqlx::Result<Self> {
        let offset: Option<i64> =
            sqlx::query_scalar("SELECT \"offset\" FROM position").fetch_optional(&mut *connection).await?;
        let heard: Option<i64> = sqlx::query_scalar(HEARD).fetch_one(&mut *connection).await?;
        let heard = heard.map(Timestamp);
        let (stopped, to, now) = match keeper {
            Keeper::Running(now) => (None, heard, heard.max(Some(now))),
            Keeper::Nobody(now) => (heard, heard.max(Some(now)), heard.max(Some(now))),
            Keeper::Recording => (None, heard, heard),
        };
        let streams = streams(connection, since, stopped.is_some(), version).await?;
        let to = to.filter(|_| !streams.is_empty());
        let from = streams.iter().filter_map(|stream| Some(stream.intervals.first()?.from)).min();
        let mut kinds: BTreeMap<(&str, &str), Vec<&StreamCoverage>> = BTreeMap::new();
        for stream in &streams {
            kinds.entry((&stream.source, &stream.table)).or_default().push(stream);
        }
        let mut kinds: Vec<_> =
            kinds.values().map(|streams| Kind::of(streams, to.unwrap_or_default(), now.unwrap_or_default())).collect();
        if version >= 3 && since.is_none() {
            joined(connection, &mut kinds).await?;
        }
        let counts_all: Option<bool> = match version {
            ..3 => None,
            _ => sqlx::query_scalar("SELECT all_rows FROM counted").fetch_optional(&mut *connection).await?,
        };
        let counts_all = counts_all.unwrap_or(false);
        let dropped = dropped(connection, since).await?;
        let unreadable = unreadable(connection, since).await?;
        let skipped = if version < 2 { Vec::new() } else { skipped(connection, since).await? };
        let offset = offset.unwrap_or_default().cast_unsigned();
        let (is_lost, totals, sinks) = (false, Totals::default(), Vec::new());
        let coverage = Self {
            offset,
            counts_all,
            from,
            to,
            stopped,
            is_lost,
            totals,
            kinds,
            sinks,
            dropped,
            unreadable,
            skipped,
            streams,
        };
        Ok(coverage.summed_up(BTreeMap::new()))
    }

    /// Adds what waits as dead letters, by sink: the ledger does not know of it.
    #[must_use]
    pub fn with_dead_letters(self, letters: BTreeMap<String, u64>) -> Self {
        self.summed_up(letters)
    }

    /// Works out what follows from the rest.
    fn summed_up(mut self, letters: BTreeMap<String, u64>) -> Self {
        let mut sinks: BTreeMap<String, SinkCoverage> = BTreeMap::new();
        let mut lacks = |sink: &str, table: &str, why: &str, rows: Option<u64>| {
            let at = sinks.entry(sink.to_owned()).or_default();
            let lost = at.lost_because.entry(why.to_owned()).or_default();
            for (sum, uncounted) in [(&mut at.rows_lost, &mut at.uncounted), (&mut lost.rows, &mut lost.uncounted)] {
                *sum = sum.saturating_add(rows.unwrap_or(0));
                *uncounted += usize::from(rows.is_none());
            }
            at.tables.insert(table.to_owned());
        };
        for Dropped { table, sink, rows, .. } in &self.dropped {
            if let Some(sink) = sink {
                lacks(sink, table, fold::SPOOL_FULL, Some(*rows));
            }
        }
        for Unread { sinks, .. } in &self.unreadable {
            sinks.iter().for_each(|sink| lacks(sink, "", fold::UNREADABLE, None));
        }
        for Skipped { sink, table, rows, why, .. } in &self.skipped {
            lacks(sink, table, why, *rows);
        }
        for (sink, letters) in letters.into_iter().filter(|(_, letters)| *letters > 0) {
            sinks.entry(sink).or_default().dead_letters = letters;
        }
        let named = |(sink, at)| SinkCoverage { sink, ..at };
        self.sinks = sinks.into_iter().map(named).collect();
        for kind in &mut self.kinds {
            let lacking = self.sinks.iter().filter(|at| at.tables.contains("") || at.tables.contains(&kind.table));
            kind.incomplete_at = lacking.map(|at| at.sink.clone()).collect();
        }
        let sum = |count: fn(&Kind) -> usize| self.kinds.iter().map(count).sum();
        let of_nobody = self.unreadable.iter().filter(|one| one.sinks.is_empty()).count();
        self.totals = Totals {
            filled: sum(|kind| kind.filled),
            open: sum(|kind| kind.open),
            lost: sum(|kind| kind.lost),
            rows_lost_at_sinks: self.sinks.iter().fold(0, |sum, at| sum.saturating_add(at.rows_lost)),
            uncounted: of_nobody + self.sinks.iter().map(|at| at.uncounted).sum::<usize>(),
            dead_letters: self.sinks.iter().map(|at| at.dead_letters).sum(),
        };
        self.is_lost = self.totals.is_lost();
        self
    }
}

impl Totals {
    /// Returns whether anything is lost.
    pub fn is_lost(&self) -> bool {
        self.lost > 0 || self.rows_lost_at_sinks > 0 || self.uncounted > 0
    }
}

impl Kind {
    fn of(streams: &[&StreamCoverage], to: Timestamp, now: Timestamp) -> Self {
        let (source, table) = (streams[0].source.clone(), streams[0].table.clone());
        let from = streams.iter().map(|stream| stream.intervals[0].from).min().unwrap_or(to);
        let intervals = || streams.iter().flat_map(|stream| &stream.intervals);
        let count = |state: State| intervals().filter(|one| one.state == state && one.to.is_some()).count();
        let mut lost_because = BTreeMap::new();
        for stream in streams {
            let lost = stream.intervals.iter().filter(|interval| interval.state == State::Lost);
            let mut why: Vec<_> = lost.map(|interval| interval.why.clone().unwrap_or_default()).collect();
            why.sort_unstable();
            why.dedup();
            why.into_iter().for_each(|why| *lost_because.entry(why).or_default() += 1);
        }
        let sum = |rows: fn(&StreamCoverage) -> Option<u64>| streams.iter().map(|stream| rows(stream)).sum();
        Self {
            source,
            table,
            streams: streams.len(),
            proof: streams.iter().map(|stream| stream.proof).max().unwrap_or(Proof::None),
            from,
            to,
            rows_received: sum(|stream| stream.rows_received),
            rows_backfilled: sum(|stream| stream.rows_backfilled),
            filled: count(State::Backfilled),
            absent: count(State::Absent),
            open: count(State::Open),
            away: intervals()
                .filter(|one| one.to.is_none() && matches!(one.state, State::Open | State::Unknown))
                .count(),
            lost: intervals().filter(|one| one.state == State::Lost).map(Interval::parts).sum(),
            lost_seconds: seconds(intervals().filter(|one| one.state == State::Lost), now),
            lost_because,
            unknown_seconds: seconds(intervals().filter(|one| one.state == State::Unknown), now),
            closed_seconds: seconds(intervals().filter(|one| one.state == State::Closed), now),
            complete_since: complete_since(streams),
            incomplete_at: Vec::new(),
        }
    }
}

/// Returns from when on nothing is missing in any of the streams; `None` where that is so of one of them at no time.
fn complete_since(streams: &[&StreamCoverage]) -> Option<Timestamp> {
    let is_never = |stream: &StreamCoverage| {
        stream.complete_since.is_none() && stream.intervals.iter().any(|one| one.state.is_broken())
    };
    if streams.iter().any(|stream| is_never(stream)) {
        return None;
    }
    streams.iter().filter_map(|stream| stream.complete_since).max()
}

/// Returns how long at least one of the intervals lasted; what goes on is as long as it is now. One that was joined counts as if
/// all that it was of stood at its beginning: streams that were cut together are so still.
fn seconds<'a>(intervals: impl Iterator<Item = &'a Interval>, now: Timestamp) -> f64 {
    let mut spans: Vec<_> = intervals.map(|one| (one.from, one.lasted_to(now))).collect();
    spans.sort_unstable();
    let (mut sum, mut end) = (0_i64, Timestamp(i64::MIN));
    for (from, to) in spans {
        sum += to.0.saturating_sub(from.max(end).0).max(0);
        end = end.max(to);
    }
    Duration::from_nanos(sum.unsigned_abs()).as_secs_f64()
}

impl StreamCoverage {
    /// Adds what is received up to the last frame, and no further: of what came since then nothing is claimed.
    fn add_last(&mut self, received: Interval, heard: Timestamp, since: Option<Timestamp>, is_stopped: bool) {
        let heard = heard.max(received.from);
        if !is_stopped || since.is_none_or(|since| since < heard) {
            let since = since.map(|since| since.min(heard));
            self.intervals.push(Interval { to: Some(heard), ..received }.clipped(since));
        }
        if is_stopped {
            let why = if self.proof == Proof::None { fold::NOT_REPEATED } else { fold::NOBODY };
            let unheard =
                Interval { from: heard, to: None, state: State::Unknown, why: Some(why.to_owned()), joined: None };
            self.intervals.push(unheard.clipped(since));
        }
    }

    /// Returns from when on nothing is missing, where numbers can show that. What nobody listens to at present is left out.
    fn complete_since(&self) -> Option<Timestamp> {
        if self.proof == Proof::None {
            return None;
        }
        if self.intervals.last().is_some_and(|last| last.state == State::Lost) {
            return None;
        }
        let broken = self.intervals.iter().filter(|one| one.state.is_broken()).filter_map(|one| one.to).max();
        let first = self.intervals.iter().find(|one| one.state.is_complete())?.from;
        Some(broken.map_or(first, |broken| broken.max(first)))
    }
}

impl Interval {
    fn parts(&self) -> usize {
        self.joined.map_or(1, |joined| joined.parts)
    }

    /// Returns its end, or where that would be if what was joined followed on each other.
    fn lasted_to(&self, now: Timestamp) -> Timestamp {
        let end = self.to.unwrap_or(now).max(self.from);
        self.joined.map_or(end, |joined| end.min(Timestamp(self.from.0.saturating_add(joined.lasted))))
    }

    /// Returns what of it lies behind a moment.
    fn clipped(self, since: Option<Timestamp>) -> Self {
        Self { from: since.map_or(self.from, |since| since.max(self.from)), ..self }
    }
}

async fn streams(
    connection: &mut SqliteConnection,
    since: Option<Timestamp>,
    is_stopped: bool,
    version: i64,
) -> sqlx::Result<Vec<StreamCoverage>> {
    let rows = sqlx::query(AssertSqlSafe(intervals(version)))
        .bind(since.map_or(i64::MIN, |since| since.0))
        .fetch_all(connection)
        .await?;
    let mut streams: Vec<StreamCoverage> = Vec::new();
    let mut current = None;
    for row in rows {
        let id: i64 = row.try_get("id")?;
        if current.replace(id) != Some(id) {
            let whole = |rows: i64| since.is_none().then(|| rows.unsigned_abs());
            streams.push(StreamCoverage {
                source: row.try_get("source")?,
                table: row.try_get("tbl")?,
                symbol: row.try_get("symbol")?,
                listing: row.try_get("listing")?,
                proof: Proof::named(row.try_get("numbering")?),
                rows_received: whole(row.try_get("received")?),
                rows_backfilled: whole(row.try_get("backfilled")?),
                complete_since: None,
                intervals: Vec::new(),
            });
        }
        let Some(stream) = streams.last_mut() else { continue };
        let (from, until) = (Timestamp(row.try_get("start")?), row.try_get::<Option<i64>, _>("until")?);
        let name: &str = row.try_get("state")?;
        let state =
            State::named(name).ok_or_else(|| sqlx::Error::Decode(format!("no state is called `{name}`").into()))?;
        let joined = Joined::stored(row.try_get("parts")?, row.try_get("lasted")?);
        let interval = Interval { from, to: until.map(Timestamp), state, why: row.try_get("why")?, joined };
        if state == State::Received && until.is_none() {
            let heard: Option<i64> = row.try_get("heard")?;
            stream.add_last(interval, heard.map_or(from, Timestamp), since, is_stopped);
        } else {
            stream.intervals.push(interval.clipped(since));
        }
    }
    for stream in &mut streams {
        stream.complete_since = stream.complete_since();
    }
    Ok(streams)
}

/// Adds what was settled long ago, and has no stretch of its own any more.
async fn joined(connection: &mut SqliteConnection, kinds: &mut [Kind]) -> sqlx::Result<()> {
    let query = "SELECT source, tbl, sum(filled), sum(absent) FROM streams GROUP BY source, tbl";
    let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(query).fetch_all(connection).await?;
    for (source, table, filled, absent) in rows {
        for kind in kinds.iter_mut().filter(|kind| kind.source == source && kind.table == table) {
            kind.filled += usize::try_from(filled).unwrap_or(0);
            kind.absent += usize::try_from(absent).unwrap_or(0);
        }
    }
    Ok(())
}

async fn dropped(connection: &mut SqliteConnection, since: Option<Timestamp>) -> sqlx::Result<Vec<Dropped>> {
    let query =
        "SELECT tbl, symbol, sink, rows, first_at, last_at FROM dropped JOIN streams ON streams.id = dropped.stream
        WHERE last_at >= ? ORDER BY sink, tbl, symbol";
    let rows = sqlx::query(query).bind(since.map_or(i64::MIN, |since| since.0)).fetch_all(connection).await?;
    let dropped = rows.iter().map(|row| {
        let (sink, rows): (String, i64) = (row.try_get(2)?, row.try_get(3)?);
        Ok(Dropped {
            table: row.try_get(0)?,
            symbol: row.try_get(1)?,
            sink: Some(sink).filter(|sink| !sink.is_empty()),
            rows: rows.unsigned_abs(),
            first_at: Timestamp(row.try_get(4)?),
            last_at: Timestamp(row.try_get(5)?),
        })
    });
    dropped.collect()
}

async fn unreadable(connection: &mut SqliteConnection, since: Option<Timestamp>) -> sqlx::Result<Vec<Unread>> {
    let query = sqlx::query_as("SELECT first, last, sinks FROM unreadable WHERE at >= ? ORDER BY first");
    let query = query.bind(since.map_or(i64::MIN, |since| since.0));
    let rows: Vec<(i64, i64, String)> = query.fetch_all(connection).await?;
    let unread = |(first, last, sinks): (i64, i64, String)| Unread {
        first: first.unsigned_abs(),
        last: last.unsigned_abs(),
        sinks: sinks.split_whitespace().map(str::to_owned).collect(),
    };
    Ok(rows.into_iter().map(unread).collect())
}

async fn skipped(connection: &mut SqliteConnection, since: Option<Timestamp>) -> sqlx::Result<Vec<Skipped>> {
    let query =
        "SELECT sink, first, last, tbl, rows, why, at FROM skipped WHERE at >= ? ORDER BY sink, boot, first, tbl";
    let rows = sqlx::query(query).bind(since.map_or(i64::MIN, |since| since.0)).fetch_all(connection).await?;
    let skipped = rows.iter().map(|row| {
        let (first, last, rows): (i64, i64, Option<i64>) = (row.try_get(1)?, row.try_get(2)?, row.try_get(4)?);
        Ok(Skipped {
            sink: row.try_get(0)?,
            first: first.unsigned_abs(),
            last: last.unsigned_abs(),
            table: row.try_get(3)?,
            rows: rows.map(i64::unsigned_abs),
            why: row.try_get(5)?,
            at: Timestamp(row.try_get(6)?),
        })
    });
    skipped.collect()
}

impl Proof {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::DenseSequence, Self::Linked, Self::History, Self::None];

    /// Returns its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DenseSequence => "dense_sequence",
            Self::Linked => "linked",
            Self::History => "history",
            Self::None => "none",
        }
    }

    pub(super) fn named(numbering: Option<&str>) -> Self {
        match numbering {
            Some("sequence") => Self::DenseSequence,
            Some("linked") => Self::Linked,
            Some("ordered") => Self::History,
            Some(_) | None => Self::None,
        }
    }
}

/// How long a commit of the running pipeline may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns what asks a ledger of some format for the mark of each stream that holds at `?1`, and those behind it: older ones are
/// not read.
pub(super) fn intervals(version: i64) -> String {
    let joined = if version < 4 { "NULL AS parts, NULL AS lasted" } else { "parts, lasted" };
    format!(
        "SELECT streams.id, source, tbl, symbol, listing, numbering, received, backfilled, heard, start, state, why, {joined},
            lead(start) OVER (PARTITION BY marks.stream ORDER BY start) AS until
        FROM streams
        CROSS JOIN marks ON marks.stream = streams.id AND marks.start >= coalesce(
            (SELECT max(held.start) FROM marks AS held WHERE held.stream = streams.id AND held.start <= ?1), ?1)
        LEFT JOIN sessions ON sessions.session = streams.session
        ORDER BY source, tbl, symbol, listing, streams.id, start"
    )
}

/// The last moment of which anything is known.
pub(super) const HEARD: &str = "
SELECT max(moment) FROM (
    SELECT max(heard) AS moment FROM sessions
    UNION ALL
    SELECT (SELECT max(start) FROM marks WHERE marks.stream = streams.id) FROM streams)";
