//! The ledger's file: marks, and up to where in the log they go, in one transaction.

mod compact;
mod formats;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};

pub(super) use self::formats::refuse_newer;
use self::formats::{FORMATS, VERSION};
use super::{
    fold::{Fold, Line, Skip, StoredLine},
    read::HEARD,
    timeline::{Joined, KEPT, Known, Mark, State, Timeline},
    told::{Statement, Told},
};
use crate::{
    Error, Result,
    row::{Numbering, StreamKey, Timestamp},
    spool::{Boot, SpoolPosition, Unreadable},
};

/// An open ledger.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    connection: SqliteConnection,
    /// Tells the file from another one of the same name.
    file: (u64, u64),
    position: Option<Place>,
    owner: Owner,
    /// What the table `coverage` is told, where a sink takes it.
    told: Option<Told>,
}

/// Whose ledger it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pipeline: String,
    pub(super) spool: u64,
}

/// What was met in the log besides its items.
#[derive(Debug, Default)]
pub(super) struct News {
    /// What cannot be read any more.
    pub(super) unreadable: Vec<Unreadable>,
    /// The last place of each boot that is over.
    pub(super) boots: Vec<SpoolPosition>,
    /// Whether what is counted is every row of this spool and no other, where that is news.
    pub(super) counts_all: Option<bool>,
}

/// What an error stands for that says that a ledger is another pipeline's.
#[derive(Debug)]
struct Foreign;

/// Up to where in which log a ledger goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) spool: u64,
    pub(super) position: SpoolPosition,
}

impl Store {
    /// Opens the file, makes it where there is none.
    ///
    /// # Errors
    ///
    /// `Permanent` for a file of a newer format, else `Transient`; [`aside`] tells which may be put aside.
    pub(super) async fn open(path: &Path, owner: Owner) -> Result<Self> {
        let opened = async {
            let mut connection = SqliteConnectOptions::new()
                .filename(path)
                .create_if_missing(true)
                .busy_timeout(LOCK_TIMEOUT)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .disable_statement_logging()
                .connect()
                .await?;
            let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await?;
            if version > VERSION {
                return Ok((connection, version, None, None));
            }
            // A new file goes the way of all that are older.
            for step in FORMATS.iter().skip(version.max(0) as usize) {
                sqlx::raw_sql(*step).execute(&mut connection).await?;
            }
            let place =
                sqlx::query("SELECT spool, boot, \"offset\" FROM position").fetch_optional(&mut connection).await?;
            let known = if version > VERSION { None } else { pipeline_of(&mut connection).await? };
            Ok((connection, version, place, known))
        };
        let (connection, version, place, known) = opened.await.map_err(|error| failed(path, error))?;
        refuse_newer(path, version)?;
        let file = file_id(path).ok_or_else(|| gone(path))?;
        let position = place.as_ref().map(Place::read).transpose().map_err(|error| failed(path, error))?;
        // The spool tells, whatever its pipeline was called; one that was made anew has only the name in common.
        let is_of_another_spool = position.is_some_and(|place: Place| place.spool != owner.spool);
        let is_foreign = is_of_another_spool && known.as_ref() != Some(&owner.pipeline);
        if is_foreign {
            let (shown, whose) = (path.display(), known.unwrap_or_else(|| "another".to_owned()));
            let text = format!("the ledger `{shown}` is that of the pipeline `{whose}`, not of `{}`", owner.pipeline);
            return Err(Error::transient(text).because(Foreign));
        }
        Ok(Self { path: path.to_owned(), connection, file, position, owner, told: None })
    }

    /// Returns up to where the log was read.
    pub(super) fn place(&self) -> Option<Place> {
        self.position
    }

    /// Returns the streams that were not given up, with the end of what is known of them.
    pub(super) async fn lines(&mut self) -> Result<Vec<StoredLine>> {
        let rows = sqlx::query(LINES).bind(KEPT as i64).fetch_all(&mut self.connection).await;
        let lines = rows.and_then(|rows| lines(&rows));
        lines.map_err(|error| failed(&self.path, error))
    }

    /// Returns the last offset that was read of each of the newest boots.
    pub(super) async fn boots(&mut self) -> Result<Vec<(Boot, u64)>> {
        let read = async {
            let rows: Vec<(String, i64)> =
                sqlx::query_as("SELECT boot, last FROM boots").fetch_all(&mut self.connection).await?;
            rows.into_iter()
                .map(|(boot, last)| Ok((Boot(number(&boot)?), last.cast_unsigned())))
                .collect::<sqlx::Result<_>>()
        };
        read.await.map_err(|error| failed(&self.path, error))
    }

    /// Writes all that is new, and up to where that goes; nothing at all where it fails.
    pub(super) async fn save(&mut self, fold: &mut Fold, place: Place, news: &News) -> Result<()> {
        // A file that was removed takes every commit with it.
        if file_id(&self.path) != Some(self.file) {
            return Err(gone(&self.path));
        }
        let saved = self.write(fold, place, news).await;
        let is_next = saved.map_err(|error| failed(&self.path, error))?;
        if !is_next {
            return Err(Error::transient(format!(
                "another process has written to the ledger `{}`",
                self.path.display()
            )));
        }
        if file_id(&self.path) != Some(self.file) {
            return Err(gone(&self.path));
        }
        self.position = Some(place);
        fold.saved();
        Ok(())
    }

    /// Begins to note what the table `coverage` has to be told.
    pub(super) async fn tell(&mut self) -> Result<()> {
        let told = Told::open(&mut self.connection).await;
        self.told = Some(told.map_err(|error| failed(&self.path, error))?);
        Ok(())
    }

    /// Returns what the table `coverage` is told, where a sink takes it.
    pub(super) fn told(&mut self) -> Option<&mut Told> {
        self.told.as_mut()
    }

    /// Returns the next statements that the log lacks.
    pub(super) async fn unsaid(&mut self, behind: u64, most: usize) -> Result<Vec<Statement>> {
        let Some(told) = &self.told else { return Ok(Vec::new()) };
        let unsaid = told.unsaid(&mut self.connection, behind, most).await;
        unsaid.map_err(|error| failed(&self.path, error))
    }

    /// Ends it: what it is in then is one file.
    pub(super) async fn close(self) -> Result<()> {
        self.connection.close().await.map_err(|error| failed(&self.path, error))
    }

    async fn write(&mut self, fold: &mut Fold, place: Place, news: &News) -> sqlx::Result<bool> {
        let before = self.position;
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let moved = match before {
            None => sqlx::query("INSERT OR IGNORE INTO position VALUES (1, ?, ?, ?, ?)"),
            Some(_) => sqlx::query(
                "UPDATE position SET spool = ?, boot = ?, \"offset\" = ?, at = ? WHERE boot = ? AND \"offset\" = ?",
            ),
        };
        let moved = moved.bind(hex(place.spool)).bind(hex(place.position.boot.0)).bind(place.position.offset as i64);
        let mut moved = moved.bind(Timestamp::now().0);
        if let Some(Place { position, .. }) = before {
            moved = moved.bind(hex(position.boot.0)).bind(position.offset as i64);
        }
        if moved.execute(&mut *transaction).await?.rows_affected() != 1 {
            return Ok(false);
        }
        for line in fold.gone_mut() {
            write_line(&mut transaction, line).await?;
            let gone = sqlx::query("UPDATE streams SET gone = 1, session = NULL WHERE id = ?").bind(line.row);
            gone.execute(&mut *transaction).await?;
        }
        for line in fold.lines_mut() {
            write_line(&mut transaction, line).await?;
        }
        sqlx::query("DELETE FROM sessions").execute(&mut *transaction).await?;
        for (session, heard) in fold.heard() {
            let insert = sqlx::query("INSERT INTO sessions VALUES (?, ?)").bind(session).bind(heard.0);
            insert.execute(&mut *transaction).await?;
        }
        for SpoolPosition { boot, offset } in news.boots.iter().chain([&place.position]) {
            let boot = sqlx::query(INSERT_BOOT).bind(hex(boot.0)).bind(*offset as i64);
            boot.execute(&mut *transaction).await?;
        }
        sqlx::query(FORGET_BOOTS).bind(MOST_BOOTS).execute(&mut *transaction).await?;
        let owner = sqlx::query("INSERT OR REPLACE INTO owner VALUES (1, ?)").bind(&self.owner.pipeline);
        owner.execute(&mut *transaction).await?;
        if let Some(counts_all) = news.counts_all {
            let counted = sqlx::query("INSERT OR REPLACE INTO counted VALUES (1, ?)").bind(counts_all);
            counted.execute(&mut *transaction).await?;
        }
        write_losses(&mut transaction, fold, &news.unreadable).await?;
        write_skips(&mut transaction, fold, place).await?;
        if let Some(told) = &mut self.told {
            told.note(&mut transaction, fold).await?;
        }
        transaction.commit().await?;
        if let Some(told) = &mut self.told {
            told.noted();
        }
        Ok(true)
    }
}

async fn write_line(connection: &mut SqliteConnection, line: &mut Line) -> sqlx::Result<()> {
    let Line { source, key, .. } = &*line;
    let row = match line.row {
        Some(row) if !line.is_news && line.received + line.backfilled == 0 => row,
        Some(row) => {
            sqlx::query(
                "UPDATE streams SET numbering = ?, session = ?, received = received + ?, backfilled = backfilled + ?
                 WHERE id = ?",
            )
            .bind(line.numbering.map(numbering_name))
            .bind(line.session)
            .bind(line.received as i64)
            .bind(line.backfilled as i64)
            .bind(row)
            .execute(&mut *connection)
            .await?;
            row
        }
        None => {
            sqlx::query_scalar(INSERT_STREAM)
                .bind(&**source)
                .bind(&*key.table)
                .bind(&*key.symbol)
                .bind(&*key.listing)
                .bind(line.numbering.map(numbering_name))
                .bind(line.session)
                .bind(line.received as i64)
                .bind(line.backfilled as i64)
                .fetch_one(&mut *connection)
                .await?
        }
    };
    if let Some((from, marks)) = line.time.changes() {
        let delete = sqlx::query("DELETE FROM marks WHERE stream = ? AND start >= ?").bind(row).bind(from.0);
        delete.execute(&mut *connection).await?;
        for Mark { from, known: Known { state, why, joined } } in marks {
            let (parts, lasted) = joined.map(|of| (i64::try_from(of.parts).unwrap_or(i64::MAX), of.lasted)).unzip();
            let insert = sqlx::query("INSERT INTO marks VALUES (?, ?, ?, ?, ?, ?)");
            let insert = insert.bind(row).bind(from.0).bind(state.name()).bind(why.as_deref()).bind(parts).bind(lasted);
            insert.execute(&mut *connection).await?;
        }
    }
    line.row = Some(row);
    Ok(())
}

async fn write_losses(connection: &mut SqliteConnection, fold: &Fold, unreadable: &[Unreadable]) -> sqlx::Result<()> {
    for drops in fold.drops() {
        let Some(row) = fold.row_of(drops.stream) else { continue };
        sqlx::query(
            "INSERT INTO dropped VALUES (?1, ?2, ?3, ?4, ?4)
             ON CONFLICT (stream, sink) DO UPDATE SET rows = rows + ?3, last_at = ?4",
        )
        .bind(row)
        .bind(drops.sink.as_deref().unwrap_or_default())
        .bind(drops.rows as i64)
        .bind(drops.at.0)
        .execute(&mut *connection)
        .await?;
    }
    for Unreadable { boot, first, last, sinks } in unreadable {
        let insert = sqlx::query("INSERT OR IGNORE INTO unreadable VALUES (?, ?, ?, ?, ?)");
        let insert = insert.bind(hex(boot.0)).bind(*first as i64).bind(*last as i64);
        insert.bind(Timestamp::now().0).bind(sinks.join(" ")).execute(&mut *connection).await?;
    }
    Ok(())
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a ledger belongs to one pipeline")
    }
}

impl std::error::Error for Foreign {}

async fn write_skips(connection: &mut SqliteConnection, fold: &Fold, place: Place) -> sqlx::Result<()> {
    for Skip { sink, offsets: (first, last), rows, why, at } in fold.skips() {
        let counted = rows.iter().map(|(table, rows)| (&**table, Some(*rows as i64)));
        let uncounted = rows.is_empty().then_some(("", None));
        for (table, rows) in counted.chain(uncounted) {
            let insert = sqlx::query("INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
            let insert = insert.bind(sink).bind(hex(place.position.boot.0)).bind(*first as i64).bind(*last as i64);
            insert.bind(table).bind(rows).bind(why).bind(at.0).execute(&mut *connection).await?;
        }
    }
    Ok(())
}

impl Place {
    fn read(row: &SqliteRow) -> sqlx::Result<Self> {
        let (spool, boot): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let offset: i64 = row.try_get(2)?;
        let position = SpoolPosition { boot: Boot(number(&boot)?), offset: offset.cast_unsigned() };
        Ok(Self { spool: number(&spool)?, position })
    }
}

fn lines(rows: &[SqliteRow]) -> sqlx::Result<Vec<StoredLine>> {
    let mut marks: BTreeMap<i64, (&SqliteRow, Vec<Mark>)> = BTreeMap::new();
    for row in rows {
        let (id, state): (i64, &str) = (row.try_get("id")?, row.try_get("state")?);
        let state =
            State::named(state).ok_or_else(|| sqlx::Error::Decode(format!("no state is called `{state}`").into()))?;
        let why: Option<&str> = row.try_get("why")?;
        let joined = Joined::stored(row.try_get("parts")?, row.try_get("lasted")?);
        let known = Known { state, why: why.map(Into::into), joined };
        let from = Timestamp(row.try_get("start")?);
        marks.entry(id).or_insert_with(|| (row, Vec::new())).1.push(Mark { from, known });
    }
    let mut lines = Vec::with_capacity(marks.len());
    for (id, (row, marks)) in marks {
        let Some(time) = Timeline::stored(marks) else { continue };
        let text = |column: &str| row.try_get::<&str, _>(column);
        let key =
            StreamKey { table: text("tbl")?.into(), symbol: text("symbol")?.into(), listing: text("listing")?.into() };
        let heard: Option<i64> = row.try_get("heard")?;
        let source = text("source")?.into();
        lines.push(StoredLine { row: id, source, key, time, heard: heard.map(Timestamp) });
    }
    Ok(lines)
}

fn number(text: &str) -> sqlx::Result<u64> {
    u64::from_str_radix(text, 16).map_err(|error| sqlx::Error::Decode(error.into()))
}

async fn pipeline_of(connection: &mut SqliteConnection) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("SELECT pipeline FROM owner").fetch_optional(connection).await
}

/// Returns under which name a file is put aside because of an error, if it is: one that is no ledger any more, and one that is
/// another pipeline's.
pub(super) fn aside(error: &Error) -> Option<&'static str> {
    let is_foreign = std::error::Error::source(error).is_some_and(|cause| cause.is::<Foreign>());
    if is_foreign { Some(".foreign") } else { is_damaged(error).then_some(".damaged") }
}

/// Puts a file aside, so that another one can be made.
pub(super) fn put_aside(path: &Path, suffix: &str) -> Result<()> {
    let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let moved = fs::rename(path, beside(suffix));
    for suffix in ["-wal", "-shm"] {
        drop(fs::remove_file(beside(suffix)));
    }
    moved.map_err(|error| Error::transient(format!("cannot put `{}` aside", path.display())).because(error))
}

/// Returns whether an error says that the file is no database any more, or not a ledger's.
pub(super) fn is_damaged(error: &Error) -> bool {
    let code = |error: &sqlx::Error| error.as_database_error()?.code()?.parse::<i32>().ok();
    // SQLite has one code for all that is wrong with a statement; ours fit every ledger.
    let lacks =
        |error: &sqlx::Error| error.as_database_error().is_some_and(|error| error.message().contains("no such "));
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<sqlx::Error>());
    cause.is_some_and(|cause| {
        matches!(cause, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })
            || lacks(cause)
            || code(cause).is_some_and(|code| matches!(code & 0xff, SQLITE_CORRUPT | SQLITE_NOTADB))
    })
}

pub(super) fn failed(path: &Path, error: sqlx::Error) -> Error {
    Error::transient(format!("the ledger `{}`", path.display())).because(error)
}

fn gone(path: &Path) -> Error {
    Error::transient(format!("the ledger `{}` was removed or replaced", path.display()))
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// Returns the word for how records are numbered.
pub(super) fn numbering_name(numbering: Numbering) -> &'static str {
    match numbering {
        Numbering::Unnumbered => "unnumbered",
        Numbering::Ordered => "ordered",
        Numbering::Sequence => "sequence",
        Numbering::Linked => "linked",
    }
}

const SQLITE_CORRUPT: i32 = 11;
const SQLITE_NOTADB: i32 = 26;
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// So many boots are remembered, the newest ones.
const MOST_BOOTS: i64 = 256;
const INSERT_BOOT: &str = "INSERT INTO boots VALUES (?1, ?2) ON CONFLICT (boot) DO UPDATE SET last = max(last, ?2)";
const FORGET_BOOTS: &str = "DELETE FROM boots WHERE boot NOT IN (SELECT boot FROM boots ORDER BY last DESC LIMIT ?)";

const INSERT_STREAM: &str = "
INSERT INTO streams (source, tbl, symbol, listing, numbering, session, received, backfilled)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (source, tbl, symbol, listing) DO UPDATE SET
    numbering = excluded.numbering, session = excluded.session, received = received + excluded.received,
    backfilled = backfilled + excluded.backfilled, gone = 0
RETURNING id";

const LINES: &str = "
SELECT streams.id, source, tbl, symbol, listing, heard, start, state, why, parts, lasted
FROM streams
LEFT JOIN sessions ON sessions.session = streams.session
JOIN (SELECT *, row_number() OVER (PARTITION BY stream ORDER BY start DESC) AS age FROM marks) AS kept
    ON kept.stream = streams.id
WHERE gone = 0 AND (age <= ?1
    OR start >= (SELECT min(open.start) FROM marks AS open WHERE open.stream = kept.stream AND open.state = 'open')
    OR start >= (SELECT max(before.start) FROM marks AS before WHERE before.stream = kept.stream AND before.start <
        (SELECT min(open.start) FROM marks AS open WHERE open.stream = kept.stream AND open.state = 'open')))
ORDER BY streams.id, start";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ledger_of_each_older_format_is_brought_up_to_this_one_and_a_newer_one_refused() {
        for version in 0..=FORMATS.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ledger.sqlite");
            let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
            let mut connection = options.connect().await.unwrap();
            for step in &FORMATS[..version] {
                sqlx::raw_sql(*step).execute(&mut connection).await.unwrap();
            }
            if version > 0 {
                let position = "INSERT INTO position VALUES (1, '000000000000000a', '0000000000000007', 42, 1)";
                sqlx::query(position).execute(&mut connection).await.unwrap();
            }
            connection.close().await.unwrap();
            let owner = Owner { pipeline: "p".to_owned(), spool: 10 };
            let mut store = Store::open(&path, owner.clone()).await.unwrap();
            let place = Place { spool: 10, position: SpoolPosition { boot: Boot(7), offset: 42 } };
            assert_eq!(store.place(), (version > 0).then_some(place), "format {version}");
            let skipped = sqlx::query_scalar("SELECT count(*) FROM skipped").fetch_one(&mut store.connection).await;
            assert_eq!(skipped.unwrap_or(-1_i64), 0, "format {version}");

            sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut store.connection).await.unwrap();
            store.close().await.unwrap();
            let newer = format!("has format 99, this program knows up to {VERSION}");
            let error = Store::open(&path, owner).await.unwrap_err();
            assert!(error.to_string().contains(&newer), "{error}");
            let error = super::super::Coverage::read(&path, None, super::super::Keeper::Recording).await.unwrap_err();
            assert!(error.to_string().contains(&newer), "{error}");
        }
    }
}
