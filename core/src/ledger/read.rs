//! The ledger, read from its file by whoever wants to know: of any format that there was, at one moment.

use std::{collections::BTreeMap, path::Path, time::Duration};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{
    report::{Coverage, Dropped, Interval, Kind, Proof, Skipped, StreamCoverage, Totals, Unread},
    store,
    timeline::{Joined, State},
};
use crate::{Error, Result, row::Timestamp};

/// Who keeps a ledger at present: the file does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// Somebody runs the pipeline, now.
    Running(Timestamp),
    /// Nobody does, now: since the last frame nobody has listened, and since its last sign of life nobody was there.
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
        let alive: Option<i64> = sqlx::query_scalar(ALIVE).fetch_optional(&mut *connection).await?;
        let (stopped, to, now) = match keeper {
            Keeper::Running(now) => (None, heard, heard.max(Some(now))),
            // A clock that was set back meanwhile has not seen the future.
            Keeper::Nobody(now) => {
                let alive = alive.map(|alive| Timestamp(alive).min(now)).filter(|_| heard.is_some());
                (heard.max(alive), heard.max(Some(now)), heard.max(Some(now)))
            }
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
                was_complete: None,
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
    streams.iter_mut().for_each(StreamCoverage::complete);
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
            fate: None,
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

/// When whoever runs the pipeline was last seen to be there, by our clock.
const ALIVE: &str = "SELECT at FROM position";

/// The last moment of which anything is known.
pub(super) const HEARD: &str = "
SELECT max(moment) FROM (
    SELECT max(heard) AS moment FROM sessions
    UNION ALL
    SELECT (SELECT max(start) FROM marks WHERE marks.stream = streams.id) FROM streams)";
