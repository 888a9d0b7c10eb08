//! The sink: connects, takes ownership, writes chunks.

use std::{
    collections::BTreeSet,
    fs, io,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tidegate_core::{
    Error, Result,
    catalog::Component,
    chunk::{Chunk, Part, SinkTable},
    sink::{Claim, Guarantee, Neighbour, Owner, Refusal, Sink, SinkContext, UniqueKey, Written},
    spool::SpoolPosition,
    verify::Audit,
};
use tracing::info;

use super::{
    SqliteConfig, adopt,
    audit::SqliteAudit,
    error::{blames_a_row, is_without_transaction, sorted},
    insert::{Inserter, Rows},
    keys::{keys, lacking, unique},
    log::{belong_together, log_of},
    position,
    schema::{Maker, prepare},
};
use crate::held::Held;

/// An SQLite file.
#[derive(Debug)]
pub(super) struct Sqlite {
    config: SqliteConfig,
    session: Option<Session>,
    /// The epoch of the last opening: a higher one in the file is somebody else's.
    epoch: Option<i64>,
    /// The index that is being made. It is there at the next opening if the last one was given up over it.
    making: Option<String>,
    /// The other pipelines that have written to the tables of a sink that has not.
    neighbours: Vec<Neighbour>,
    /// The unique indexes of the tables.
    unique_keys: Vec<UniqueKey>,
}

/// What holds from one opening to the next.
#[derive(Debug)]
pub(super) struct Session {
    path: PathBuf,
    pub(super) connection: SqliteConnection,
    _interrupt: Interrupt,
    /// The file that was opened, and its write-ahead log.
    files: [Option<FileId>; 2],
    owner: Owner,
    epoch: i64,
    tables: Vec<Inserter>,
}

/// Ends what a connection is doing, once it is dropped: a call that was given up would go on, and hold the lock.
#[derive(Debug)]
struct Interrupt(Arc<AtomicBool>);

/// Tells a file from another one of the same name.
type FileId = (u64, u64);

/// What taking over has given.
struct Taken {
    epoch: i64,
    tables: Vec<Inserter>,
    positions: Vec<(Part, SpoolPosition)>,
}

/// How a transaction ended that was not committed, and is no error.
enum Undone {
    /// A row cannot be stored.
    Blamed,
}

impl Sqlite {
    pub(super) fn new(config: SqliteConfig) -> Self {
        let (neighbours, unique_keys) = (Vec::new(), Vec::new());
        Self { config, session: None, epoch: None, making: None, neighbours, unique_keys }
    }

    #[cfg(test)]
    pub(super) fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("the test has opened it")
    }

    /// Connects; to nothing where a file is missing that is known to have been there.
    async fn connect(&self, is_known: bool) -> Result<Option<(SqliteConnection, Interrupt)>> {
        let path = &self.config.path;
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(is_directory(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if is_known {
                    return Ok(None);
                }
                if !self.config.create {
                    return Err(is_missing(path));
                }
                make_directory_of(path)?;
            }
            Ok(_) | Err(_) => {}
        }
        belong_together(path).await?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(self.config.create && !is_known)
            .busy_timeout(self.config.lock_timeout.0)
            .journal_mode(SqliteJournalMode::Wal)
            // NORMAL would acknowledge commits that a power cut takes back.
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let connected = async {
            let mut connection = options.connect().await?;
            let interrupt = Interrupt::new(&mut connection).await?;
            Ok(Some((connection, interrupt)))
        };
        connected.await.map_err(|error| sorted(path, error))
    }

    /// Takes ownership and prepares the tables, all in one transaction. Without a position where one is known, nothing is
    /// made and taken.
    async fn take_over(
        &mut self,
        connection: &mut SqliteConnection,
        cx: &SinkContext,
    ) -> sqlx::Result<Result<Option<Taken>>> {
        // Waits for a transaction of a session that is gone, which may still commit: it has the lock.
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        let mut maker = Maker::new(self.config.create);
        if let Some(statement) = position::missing(connection).await? {
            maker.make(connection, statement.to_owned()).await?;
        }
        let can_be_read = maker.wants().is_none();
        let held = if can_be_read { position::read(connection, &cx.owner).await? } else { Ok(Vec::new()) };
        let held = match held {
            Ok(held) => held,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(error) = held.iter().find_map(|held| held.refuses(&cx.owner, self.epoch, "file")) {
            return Ok(Err(error));
        }
        let written: Vec<_> = held.iter().filter(|held| held.position != SpoolPosition::START).collect();
        if written.is_empty() && cx.known.is_some() {
            sqlx::query("ROLLBACK").execute(connection).await?;
            return Ok(Ok(None));
        }
        self.neighbours = if written.is_empty() && can_be_read {
            position::neighbours(connection, &cx.owner, &cx.tables).await?
        } else {
            Vec::new()
        };
        let mut names: BTreeSet<String> = written.iter().flat_map(|held| held.tables.iter().cloned()).collect();
        let mut tables = Vec::with_capacity(cx.tables.len());
        for table in &cx.tables {
            let was_there = names.iter().any(|name| name.eq_ignore_ascii_case(&table.name));
            match prepare(connection, table, was_there, &mut maker).await? {
                Ok(target) => tables.push(Inserter::new(target, table)),
                Err(error) => return Ok(Err(error)),
            }
        }
        if let Err(error) = keys(connection, &cx.owner, &cx.tables, &mut maker, &mut self.making).await? {
            return Ok(Err(error));
        }
        if let Some(error) = maker.wants() {
            return Ok(Err(error));
        }
        names.extend(cx.tables.iter().map(|table| table.name.clone()));
        let epoch = held.iter().map(|held| held.epoch).chain(self.epoch).max().unwrap_or(0) + 1;
        let parts = held.iter().map(|held| held.part.clone()).chain((held.is_empty()).then(Part::spool));
        for part in parts {
            position::take(connection, &cx.owner, &part, epoch, &names).await?;
        }
        self.unique_keys.clear();
        for table in &cx.tables {
            self.unique_keys.extend(unique(connection, &table.name).await?);
        }
        // Before it is known to be committed: if this call is given up, the next one must not take it for another's.
        self.epoch = Some(epoch);
        sqlx::query("COMMIT").execute(connection).await?;
        let Owner { pipeline, sink, host, .. } = &cx.owner;
        for table in maker.dropped {
            info!(pipeline, sink, table, "dropped an index of table {table}: `key` does not ask for it any more");
        }
        if let Some(Held { host: old, .. }) = held.iter().find(|held| held.host != *host) {
            info!(
                pipeline,
                sink, old, host, "the position was of host {old}, and the spool is the same: it is of {host} now"
            );
        }
        let positions = written.into_iter().map(|held| (held.part.clone(), held.position)).collect();
        Ok(Ok(Some(Taken { epoch, tables, positions })))
    }
}

#[async_trait]
impl Sink for Sqlite {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        self.session = None;
        if let Some(statement) = self.making.take() {
            return Err(takes_too_long(&statement));
        }
        self.config.check_tables(&cx.tables)?;
        let path = self.config.path.clone();
        let Some((mut connection, interrupt)) = self.connect(cx.known.is_some()).await? else { return Ok(Vec::new()) };
        let file = file_id(&path);
        let taken = self.take_over(&mut connection, cx).await.map_err(|error| sorted(&path, error))?;
        let Some(Taken { epoch, tables, positions }) = taken? else {
            connection.close().await.map_err(|error| sorted(&path, error))?;
            return Ok(Vec::new());
        };
        let files = [file, file_id(&log_of(&path))];
        if files[0].is_none() || file_id(&path) != files[0] {
            return Err(Error::transient(format!("`{}` was replaced while it was opened", path.display())));
        }
        self.session =
            Some(Session { path, connection, _interrupt: interrupt, files, owner: cx.owner.clone(), epoch, tables });
        Ok(positions)
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        // An error, or whoever gives up the call, ends the session with it: no lock is held until the next opening.
        let mut session = self.session.take().ok_or_else(not_open)?;
        let written = session.write(chunk).await;
        match &written {
            Ok(_) => self.session = Some(session),
            // What the end has to say is nothing beside the error.
            Err(_) => _ = session.connection.close().await,
        }
        written
    }

    async fn check(&mut self) -> Result<()> {
        let session = self.session.as_mut().ok_or_else(not_open)?;
        session.check_file()?;
        let Session { connection, owner, path, .. } = session;
        let epoch = position::epoch(connection, owner, &Part::spool()).await.map_err(|error| sorted(path, error))?;
        if epoch == Some(session.epoch) { Ok(()) } else { Err(missed()) }
    }

    async fn reach(&mut self, tables: &[SinkTable]) -> Result<String> {
        let path = &self.config.path;
        let shown = path.display();
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(is_directory(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.config.create => {
                return Ok(format!("`{shown}` is not there yet; it will be made"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(is_missing(path)),
            Ok(_) | Err(_) => {}
        }
        let options =
            SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(self.config.lock_timeout.0);
        let mut connection = options.connect().await.map_err(|error| sorted(path, error))?;
        let mut maker = Maker::looking(self.config.create);
        let mut unique_keys = Vec::new();
        let looked = async {
            // As the first opening would say it, in the same order.
            if let Some(statement) = position::missing(&mut connection).await? {
                maker.make(&mut connection, statement.to_owned()).await?;
            }
            for table in tables {
                if let Err(error) = prepare(&mut connection, table, false, &mut maker).await? {
                    return Ok(Err(error));
                }
                unique_keys.extend(unique(&mut connection, &table.name).await?);
                if let Some(statement) = lacking(&mut connection, table).await? {
                    maker.leave(&table.name, statement);
                }
            }
            let tables = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE type = 'table'");
            let tables: i64 = tables.fetch_one(&mut connection).await?;
            connection.close().await?;
            Ok(Ok(tables))
        };
        let tables = looked.await.map_err(|error| sorted(path, error))??;
        self.unique_keys = unique_keys;
        if let Some(error) = maker.wants() {
            return Err(error);
        }
        Ok(format!("`{shown}` can be read and has {tables} {}", if tables == 1 { "table" } else { "tables" }))
    }

    async fn audit(&mut self, cx: &SinkContext) -> Result<Option<Box<dyn Audit>>> {
        let audit = SqliteAudit::open(&self.config, &cx.owner).await?;
        Ok(Some(Box::new(audit)))
    }

    async fn close(&mut self) -> Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let Session { connection, path, .. } = session;
        connection.close().await.map_err(|error| sorted(&path, error))
    }

    async fn claim(&mut self, owner: &Owner) -> Result<Option<Claim>> {
        adopt::claim(&self.config, owner).await
    }

    async fn adopt(&mut self, owner: &Owner, at: SpoolPosition) -> Result<()> {
        let connected = self.connect(false).await?;
        let Some((connection, _interrupt)) = connected else { return Err(is_missing(&self.config.path)) };
        adopt::adopt(&self.config, connection, owner, at).await
    }

    async fn rename(&mut self, old: &Owner, owner: &Owner) -> Result<()> {
        let Some((connection, _interrupt)) = self.connect(true).await? else { return Ok(()) };
        adopt::rename(&self.config, connection, old, owner).await
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        self.neighbours.clone()
    }

    fn unique_keys(&self) -> Vec<UniqueKey> {
        self.unique_keys.clone()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::Transaction
    }
}

impl Session {
    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        self.check_file()?;
        let rows: Vec<Rows<'_>> = chunk.tables.iter().map(|part| Rows::of(&part.rows)).collect();
        if !self.may_be_unfit(chunk, &rows) {
            let committed = self.commit(chunk, &rows).await.map_err(|error| sorted(&self.path, error))??;
            if committed.is_ok() {
                // Only now: a file that was removed meanwhile has taken the commit with it.
                self.check_file()?;
                return Ok(Written::Committed);
            }
        }
        let refused = self.refused(chunk, &rows).await.map_err(|error| sorted(&self.path, error))??;
        if refused.is_empty() {
            return Err(Error::transient("a row was refused, and taken when it was tried alone"));
        }
        Ok(Written::Refused(refused))
    }

    /// Commits rows and position, or nothing.
    async fn commit(
        &mut self,
        chunk: &Chunk,
        rows: &[Rows<'_>],
    ) -> sqlx::Result<Result<std::result::Result<(), Undone>>> {
        if !self.begin(chunk).await? {
            return Ok(Err(missed()));
        }
        for (part, rows) in chunk.tables.iter().zip(rows) {
            let count = part.rows.num_rows();
            match self.tables[part.table].insert(&mut self.connection, rows, 0..count).await {
                Ok(inserted) if inserted == count as u64 || self.tables[part.table].leaves_out() => {}
                Ok(inserted) => {
                    self.roll_back().await?;
                    return Ok(Err(swallowed(count as u64 - inserted)));
                }
                Err(error) if blames_a_row(&error) => {
                    self.roll_back().await?;
                    return Ok(Ok(Err(Undone::Blamed)));
                }
                Err(error) => return Err(error),
            }
        }
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        Ok(Ok(Ok(())))
    }

    /// Finds all rows that cannot be stored, in a transaction that is rolled back.
    async fn refused(&mut self, chunk: &Chunk, rows: &[Rows<'_>]) -> sqlx::Result<Result<Vec<Refusal>>> {
        if !self.begin(chunk).await? {
            return Ok(Err(missed()));
        }
        let mut refused = Vec::new();
        for (part, rows) in chunk.tables.iter().zip(rows) {
            let mut blame = |row: usize, error: Error| {
                refused.push(Refusal { cause: part.causes[row], table: part.table, error });
            };
            // Halves, the left one first, so that a row meets those before it, as it would in the table.
            let mut ranges: Vec<Range<usize>> = Vec::new();
            ranges.push(0..part.rows.num_rows());
            while let Some(range) = ranges.pop() {
                if let Some(why) = self.tables[part.table].unfit_in(rows, range.clone()) {
                    if range.len() == 1 {
                        blame(range.start, Error::malformed(why));
                        continue;
                    }
                } else {
                    // A statement that fails undoes itself and nothing else, but a range may be several.
                    sqlx::query("SAVEPOINT tidegate").execute(&mut self.connection).await?;
                    match self.tables[part.table].insert(&mut self.connection, rows, range.clone()).await {
                        Ok(_) => {
                            sqlx::query("RELEASE tidegate").execute(&mut self.connection).await?;
                            continue;
                        }
                        Err(error) if blames_a_row(&error) => {
                            if !self.undo(chunk).await? {
                                return Ok(Err(missed()));
                            }
                            if range.len() == 1 {
                                blame(range.start, self.tables[part.table].refusal(error));
                                continue;
                            }
                        }
                        Err(error) => return Err(error),
                    }
                }
                let middle = range.start + range.len() / 2;
                ranges.push(middle..range.end);
                ranges.push(range.start..middle);
            }
        }
        self.roll_back().await?;
        refused.sort_by_key(|refusal| refusal.cause);
        Ok(Ok(refused))
    }

    /// Begins a transaction and moves the position; false, and nothing begun, if it is not where it has to be.
    async fn begin(&mut self, chunk: &Chunk) -> sqlx::Result<bool> {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        let range = (chunk.from, chunk.to);
        let moved = position::advance(&mut self.connection, &self.owner, &chunk.part, self.epoch, range).await?;
        if !moved {
            self.roll_back().await?;
        }
        Ok(moved)
    }

    /// Undoes what came since the savepoint; false if the position is not where it has to be any more.
    async fn undo(&mut self, chunk: &Chunk) -> sqlx::Result<bool> {
        match sqlx::query("ROLLBACK TO tidegate").execute(&mut self.connection).await {
            Ok(_) => sqlx::query("RELEASE tidegate").execute(&mut self.connection).await.map(|_| true),
            // The rows before are gone, too. What only they would make impossible is found in the next round.
            Err(error) if is_without_transaction(&error) => self.begin(chunk).await,
            Err(error) => Err(error),
        }
    }

    async fn roll_back(&mut self) -> sqlx::Result<()> {
        match sqlx::query("ROLLBACK").execute(&mut self.connection).await {
            Err(error) if !is_without_transaction(&error) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn may_be_unfit(&self, chunk: &Chunk, rows: &[Rows<'_>]) -> bool {
        chunk.tables.iter().zip(rows).any(|(part, rows)| self.tables[part.table].may_be_unfit(rows))
    }

    /// Checks that the files are those that were opened.
    fn check_file(&self) -> Result<()> {
        let names = [self.path.clone(), log_of(&self.path)];
        for (name, opened) in names.iter().zip(self.files) {
            if opened.is_some() && file_id(name) != opened {
                let name = name.display();
                return Err(Error::transient(format!("`{name}` was removed or replaced while it was open")));
            }
        }
        Ok(())
    }
}

impl Interrupt {
    async fn new(connection: &mut SqliteConnection) -> sqlx::Result<Self> {
        let is_dropped = Arc::new(AtomicBool::new(false));
        let seen = is_dropped.clone();
        connection.lock_handle().await?.set_progress_handler(STEPS, move || !seen.load(Ordering::Relaxed));
        Ok(Self(is_dropped))
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns what tells the file from another one of the same name. Two look-ups of a local file for each chunk.
fn file_id(path: &Path) -> Option<FileId> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

fn make_directory_of(path: &Path) -> Result<()> {
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) else { return Ok(()) };
    fs::create_dir_all(directory).map_err(|error| {
        Error::transient(format!("cannot make the directory `{}`", directory.display())).because(error)
    })
}

fn is_directory(path: &Path) -> Error {
    Error::permanent(format!("`{}` is a directory, and has to be an SQLite file", path.display()))
}

fn is_missing(path: &Path) -> Error {
    Error::permanent(format!("`{}` does not exist, and `create` is off", path.display()))
}

fn not_open() -> Error {
    Error::transient("the SQLite file is not open")
}

fn takes_too_long(statement: &str) -> Error {
    Error::permanent(format!(
        "making the index of a key took longer than the sink's `timeout`: raise it, or stop the program and run: {statement}"
    ))
}

fn missed() -> Error {
    Error::transient("the position in the store is not where it was left: it is looked at again")
}

fn swallowed(rows: u64) -> Error {
    Error::permanent(format!("a trigger of a table throws away rows without a word: {rows} of this chunk"))
}

/// How many steps of SQLite's virtual machine, some microseconds each hundred, go by between two looks at whether the
/// connection was dropped.
const STEPS: i32 = 10_000;
