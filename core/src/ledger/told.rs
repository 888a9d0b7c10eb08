//! What the table `coverage` has been told, and what it has yet to be told. Kept in the ledger's file, in the transaction of
//! the marks that it follows from.
//!
//! A stretch of the table is never taken back: where a mark vanishes, since what is known on both sides of it is the same now,
//! the table keeps two stretches that say the same. So a store that only puts one row in another's place has all of it.

use std::collections::{BTreeSet, HashMap};

use sqlx::{Row, SqliteConnection};

use super::{fold::Fold, report::Proof, timeline::Timeline};
use crate::row::Timestamp;

/// What has been told.
#[derive(Debug)]
pub(super) struct Told {
    /// The revision of the next statement.
    next: u64,
    /// All statements up to this revision are in the log.
    upto: u64,
    /// Whether every stream is looked at, since nobody knows what has changed.
    is_new: bool,
    /// The newest statements of the log about each stretch, while it is new.
    said: HashMap<([String; 4], Timestamp), Statement>,
    /// Whether statements are made: not before the ledger has read all that it has said itself, in whatever boot.
    is_awake: bool,
}

/// A statement that has yet to be made.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) revision: u64,
    pub(super) source: String,
    pub(super) channel: String,
    pub(super) symbol: String,
    pub(super) listing: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) from: Timestamp,
    pub(super) to: Option<Timestamp>,
    /// That came live, and by the venue's history.
    pub(super) rows: (u64, u64),
    pub(super) proof: Proof,
}

/// A stretch of a stream's time, as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    from: i64,
    to: Option<i64>,
    state: String,
    why: Option<String>,
}

impl Told {
    /// Reads what was told.
    pub(super) async fn open(connection: &mut SqliteConnection) -> sqlx::Result<Self> {
        sqlx::raw_sql(SCHEMA).execute(&mut *connection).await?;
        let (last, upto): (i64, i64) = sqlx::query_as(
            "SELECT coalesce((SELECT max(revision) FROM told), 0), coalesce((SELECT upto FROM telling), 0)",
        )
        .fetch_one(connection)
        .await?;
        let (last, upto) = (last.unsigned_abs(), upto.unsigned_abs());
        Ok(Self { next: last.max(upto) + 1, upto, is_new: true, said: HashMap::new(), is_awake: false })
    }

    /// These statements are in the log.
    pub(super) fn hear(&mut self, said: Vec<Statement>) {
        for statement in said {
            self.upto = self.upto.max(statement.revision);
            self.next = self.next.max(statement.revision + 1);
            if self.is_new {
                // A ledger that was lost has forgotten what it said, and the log has not.
                let Statement { source, channel, symbol, listing, from, .. } = &statement;
                let about = [source, channel, symbol, listing].map(String::clone);
                self.said.insert((about, *from), statement);
            }
        }
    }

    /// All that was ever said is read: from now on statements are made.
    pub(super) fn wake(&mut self) {
        self.is_awake = true;
    }

    /// Returns whether every stream has yet to be looked at.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Notes what follows from the marks that are written in this transaction.
    pub(super) async fn note(&mut self, connection: &mut SqliteConnection, fold: &Fold) -> sqlx::Result<()> {
        sqlx::query("INSERT INTO telling VALUES (1, ?1) ON CONFLICT DO UPDATE SET upto = ?1")
            .bind(self.upto.cast_signed())
            .execute(&mut *connection)
            .await?;
        if !self.is_awake {
            return Ok(());
        }
        if self.is_new {
            self.remember(connection).await?;
            let streams: Vec<i64> = sqlx::query_scalar(UNTOLD).fetch_all(&mut *connection).await?;
            for stream in streams {
                self.note_stream(connection, stream, i64::MIN).await?;
            }
            return Ok(());
        }
        for line in fold.all_lines() {
            if let (Some(stream), Some((changed, _))) = (line.row, line.time.changes()) {
                self.note_stream(connection, stream, changed.0).await?;
                self.forget(connection, stream, &line.time).await?;
            }
        }
        Ok(())
    }

    /// Notes what the log says that was told, as far as that is newer than what is noted.
    async fn remember(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        for (([source, channel, symbol, listing], from), statement) in &self.said {
            sqlx::query(REMEMBER)
                .bind(from.0)
                .bind(statement.to.map(|to| to.0))
                .bind(&statement.state)
                .bind(&statement.reason)
                .bind(statement.revision.cast_signed())
                .bind(source)
                .bind(channel)
                .bind(symbol)
                .bind(listing)
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }

    /// What was noted is there to stay.
    pub(super) fn noted(&mut self) {
        if self.is_awake {
            (self.is_new, self.said) = (false, HashMap::new());
        }
    }

    /// Compares what the marks say from a time on with what was told.
    async fn note_stream(&mut self, connection: &mut SqliteConnection, stream: i64, from: i64) -> sqlx::Result<()> {
        let told: Vec<(i64, Option<i64>, String, Option<String>)> = sqlx::query_as(
            "SELECT start, until, state, why FROM told WHERE stream = ? AND coalesce(until, ?2) >= ?2 ORDER BY start",
        )
        .bind(stream)
        .bind(from)
        .fetch_all(&mut *connection)
        .await?;
        let told: Vec<Stretch> =
            told.into_iter().map(|(from, to, state, why)| Stretch { from, to, state, why }).collect();
        let begin = told.first().map_or(i64::MIN, |first| first.from);
        let marks: Vec<(i64, String, Option<String>)> = sqlx::query_as(
            "SELECT start, state, why FROM marks WHERE stream = ?1 AND start >=
                 coalesce((SELECT max(start) FROM marks WHERE stream = ?1 AND start <= ?2), ?2) ORDER BY start",
        )
        .bind(stream)
        .bind(begin)
        .fetch_all(&mut *connection)
        .await?;
        for stretch in stretches(&marks, &told).into_iter().filter(|stretch| !told.contains(stretch)) {
            let Stretch { from, to, state, why } = stretch;
            sqlx::query("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?)")
                .bind(stream)
                .bind(from)
                .bind(to)
                .bind(state)
                .bind(why)
                .bind(self.next.cast_signed())
                .execute(&mut *connection)
                .await?;
            self.next += 1;
        }
        Ok(())
    }

    /// Forgets what is in the log, and will not change any more.
    async fn forget(&self, connection: &mut SqliteConnection, stream: i64, time: &Timeline) -> sqlx::Result<()> {
        let settled = time.marks().first().map_or(i64::MIN, |mark| mark.from.0);
        sqlx::query("DELETE FROM told WHERE stream = ? AND until <= ? AND revision <= ?")
            .bind(stream)
            .bind(settled)
            .bind(self.upto.cast_signed())
            .execute(connection)
            .await
            .map(drop)
    }

    /// Returns the next statements behind a revision that are not in the log, oldest first.
    pub(super) async fn unsaid(
        &self,
        connection: &mut SqliteConnection,
        behind: u64,
        most: usize,
    ) -> sqlx::Result<Vec<Statement>> {
        if !self.is_awake || self.is_new {
            return Ok(Vec::new());
        }
        let behind = self.upto.max(behind).cast_signed();
        let rows = sqlx::query(UNSAID).bind(behind).bind(most as i64).fetch_all(connection).await?;
        let statement = |row: &sqlx::sqlite::SqliteRow| {
            let number = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
            Ok(Statement {
                revision: number("revision")?,
                source: row.try_get("source")?,
                channel: row.try_get("tbl")?,
                symbol: row.try_get("symbol")?,
                listing: row.try_get("listing")?,
                state: row.try_get("state")?,
                reason: row.try_get("why")?,
                from: Timestamp(row.try_get("start")?),
                to: row.try_get::<Option<i64>, _>("until")?.map(Timestamp),
                rows: (number("received")?, number("backfilled")?),
                proof: Proof::named(row.try_get("numbering")?),
            })
        };
        rows.iter().map(statement).collect()
    }
}

/// Cuts what the marks say wherever a mark begins, or a stretch that was told. Before the first mark all stays as it was told.
fn stretches(marks: &[(i64, String, Option<String>)], told: &[Stretch]) -> Vec<Stretch> {
    let first = told.first().map_or(i64::MIN, |first| first.from);
    let mut cuts: BTreeSet<i64> = told.iter().map(|stretch| stretch.from).collect();
    cuts.extend(marks.iter().map(|(from, ..)| *from).filter(|from| *from >= first));
    let said = |at: i64| {
        let mark =
            marks.iter().rev().find(|(from, ..)| *from <= at).map(|(_, state, why)| (state.clone(), why.clone()));
        let before = || told.iter().rev().find(|stretch| stretch.from <= at);
        mark.or_else(|| before().map(|stretch| (stretch.state.clone(), stretch.why.clone())))
    };
    let ends = cuts.iter().skip(1).copied().map(Some).chain([None]);
    let pieces = cuts.iter().zip(ends).filter_map(|(from, to)| {
        let (state, why) = said(*from)?;
        Some(Stretch { from: *from, to, state, why })
    });
    pieces.collect()
}

/// Tables that a ledger lacks whose pipeline has never been asked for them.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS told (
    stream INTEGER NOT NULL, start INTEGER NOT NULL, until INTEGER, state TEXT NOT NULL, why TEXT,
    revision INTEGER NOT NULL, PRIMARY KEY (stream, start)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS told_by_revision ON told (revision);
CREATE TABLE IF NOT EXISTS telling (id INTEGER PRIMARY KEY CHECK (id = 1), upto INTEGER NOT NULL) STRICT;
";

/// Streams of which something else may have been told than is known: those that were given up are told once.
const UNTOLD: &str = "
SELECT id FROM streams WHERE gone = 0
    OR (SELECT state FROM told WHERE stream = id AND until IS NULL)
        IS NOT (SELECT state FROM marks WHERE stream = id ORDER BY start DESC LIMIT 1)";

const REMEMBER: &str = "
INSERT INTO told SELECT id, ?1, ?2, ?3, ?4, ?5 FROM streams WHERE source = ?6 AND tbl = ?7 AND symbol = ?8 AND listing = ?9
ON CONFLICT (stream, start) DO UPDATE SET until = ?2, state = ?3, why = ?4, revision = ?5 WHERE revision < ?5";

const UNSAID: &str = "
SELECT revision, source, tbl, symbol, listing, state, why, start, until, received, backfilled, numbering
FROM told JOIN streams ON streams.id = told.stream
WHERE revision > ? ORDER BY revision LIMIT ?";

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(text: &str) -> Vec<(i64, String, Option<String>)> {
        let mark = |word: &str| (word[1..].parse().unwrap(), word[..1].to_owned(), None);
        text.split_whitespace().map(mark).collect()
    }

    /// Reads `r0-10 o10`.
    fn told(text: &str) -> Vec<Stretch> {
        let stretch = |word: &str| {
            let (from, to) = word[1..].split_once('-').map_or((&word[1..], None), |(from, to)| (from, Some(to)));
            let to = to.map(|to| to.parse().unwrap());
            Stretch { from: from.parse().unwrap(), to, state: word[..1].to_owned(), why: None }
        };
        text.split_whitespace().map(stretch).collect()
    }

    #[test]
    fn a_stretch_that_was_told_once_keeps_its_beginning_and_nothing_overlaps() {
        for (says, before, after) in [
            ("r0 o10", "", "r0-10 o10"),
            ("r0 o10 r20", "r0-10 o10", "r0-10 o10-20 r20"),
            ("r0", "r0-10 o10-20 r20", "r0-10 r10-20 r20"),
            ("r0 l12 r15", "r0-10 o10-20 r20", "r0-10 r10-12 l12-15 r15-20 r20"),
            ("u5 r8", "r0-10 o10", "r0-5 u5-8 r8-10 r10"),
            ("r0 o30", "r10-20 r20", "r10-20 r20-30 o30"),
            ("", "r10-20 r20", "r10-20 r20"),
        ] {
            assert_eq!(stretches(&marks(says), &told(before)), told(after), "{says} over {before}");
        }
    }
}
