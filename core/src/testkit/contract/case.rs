//! One check's bench, log and memory: what was written, and has to be there.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    CannotTell, SinkBench, Stop, Verdict, broken,
    rows::{self, Everything, Others, Strange},
    stored::{Contents, Form, columns, rows_of},
};
use crate::{
    Error, Kind,
    chunk::Chunk,
    policy::Random,
    row::{Mark, Timestamp},
    sink::{Guarantee, Sink, SinkContext, Written},
    spool::{Boot, SpoolPosition},
    testkit::MemoryLog,
};

/// What a check works with.
pub(super) struct Case {
    pub(super) bench: Box<dyn SinkBench>,
    pub(super) log: MemoryLog,
    pub(super) cx: SinkContext,
    /// Where the store has to stand.
    pub(super) at: SpoolPosition,
    pub(super) guarantee: Guarantee,
    /// What has to be in each table.
    contents: Vec<Contents>,
    /// The number of the last row.
    last: u64,
    noted: Vec<String>,
    _directory: Scratch,
}

/// A table of the contract, by its number in [`Case::cx`].
pub(super) const EVERYTHING: usize = 0;

impl Case {
    pub(super) fn new(bench: Box<dyn SinkBench>) -> Self {
        let log = new_log();
        let directory = Scratch::new();
        let mut cx = log.context(&directory.0);
        // Half of all spools and boots are no number of 64 bits with a sign.
        cx.owner.spool = 0xf123_4567_89ab_cdef;
        for table in &mut cx.tables {
            table.name = bench.table_name(&table.name);
        }
        // The strange names have a check of their own.
        cx.tables.truncate(2);
        let guarantee = bench.sink().guarantee();
        let contents = vec![Contents::default(); cx.tables.len()];
        let at = SpoolPosition::START;
        Self { bench, log, cx, at, guarantee, contents, last: 0, noted: Vec::new(), _directory: directory }
    }

    /// Adds the table whose columns have strange names.
    pub(super) fn with_strange_names(&mut self) {
        let all = self.log.context(&self.cx.directory);
        self.cx.tables.extend(all.tables.into_iter().skip(self.cx.tables.len()));
        self.contents.resize_with(self.cx.tables.len(), Contents::default);
    }

    /// Keeps something for the report.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.noted.push(text.into());
    }

    pub(super) fn noted(self) -> String {
        self.noted.join(", ")
    }

    /// Returns whether the store keeps the position, and so guards it.
    pub(super) fn keeps_position(&self) -> bool {
        self.guarantee.keeps_position()
    }

    pub(super) fn needs_position(&self) -> Verdict {
        if self.keeps_position() {
            return Ok(());
        }
        super::left_out(format!("the store keeps no position: {}", self.guarantee))
    }

    /// Appends plain rows to both tables in turn.
    pub(super) fn feed(&mut self, count: u64) {
        for _ in 0..count {
            let n = self.number();
            if n.is_multiple_of(3) {
                self.log.emit(rows::at(n), &Others(rows::plain(n)));
            } else {
                self.log.emit(rows::at(n), &rows::plain(n));
            }
        }
    }

    /// Appends a row to one of the tables.
    pub(super) fn feed_row(&mut self, table: usize, mark: Mark<'_>, row: Everything<'_>) {
        self.last += 1;
        if table == EVERYTHING {
            self.log.emit(mark, &row)
        } else {
            self.log.emit(mark, &Others(row))
        };
    }

    /// Appends a row whose columns have strange names.
    pub(super) fn feed_strange(&mut self) {
        let n = self.number();
        self.log.emit(rows::at(n), &Strange { number: n as f64 });
    }

    /// Counts a row.
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Returns everything that was fed and is not in the store, as one chunk.
    pub(super) fn chunk(&self) -> Chunk {
        self.log.chunk(self.at.offset, self.log.synced().borrow().offset)
    }

    /// Returns what was fed behind the store's position in chunks of so many offsets.
    pub(super) fn chunks(&self, offsets: u64) -> Vec<Chunk> {
        let (mut from, end) = (self.at.offset, self.log.synced().borrow().offset);
        let mut chunks = Vec::new();
        while from < end {
            let to = (from + offsets).min(end);
            chunks.push(self.log.chunk(from, to));
            from = to;
        }
        chunks
    }

    /// Returns a chunk without rows behind the store's position.
    pub(super) fn empty_chunk(&self) -> Chunk {
        self.log.control();
        let chunk = self.chunk();
        assert!(chunk.is_empty(), "only a control item was fed");
        chunk
    }

    /// Returns an open sink of the bench's, which stands where it has to.
    pub(super) async fn opened(&mut self) -> Verdict<Box<dyn Sink>> {
        let mut sink = self.bench.sink();
        self.open(&mut *sink).await?;
        Ok(sink)
    }

    /// Opens, and holds the answer against where the store has to stand.
    pub(super) async fn open(&mut self, sink: &mut dyn Sink) -> Verdict {
        let stands = self.stands(sink).await?;
        if stands.is_none_or(|stands| stands == self.at) {
            return Ok(());
        }
        let (stands, at) = (shown(stands), self.at);
        broken(format!("`open` answers {stands}, and the last chunk that counts ended at {at}"))
    }

    /// Opens; returns where the store stands, if it keeps that. What is transient is tried again as long as the bench allows.
    pub(super) async fn stands(&mut self, sink: &mut dyn Sink) -> Verdict<Option<SpoolPosition>> {
        let deadline = self.deadline();
        loop {
            match sink.open(&self.cx).await {
                Ok(positions) => return self.only(positions.into_iter().map(|(_, at)| at).collect()),
                Err(error) if is_transient(&error) && Instant::now() < deadline => tokio::time::sleep(TICK).await,
                Err(error) => return broken(format!("`open` failed: {}", error.chain())),
            }
        }
    }

    fn only(&self, positions: Vec<SpoolPosition>) -> Verdict<Option<SpoolPosition>> {
        match positions.as_slice() {
            [] if self.keeps_position() => Ok(Some(SpoolPosition::START)),
            [] => Ok(None),
            [at] => Ok(Some(*at)),
            _ => broken(format!("`open` answers {} positions, and there is one part", positions.len())),
        }
    }

    /// Writes a chunk with which nothing is wrong, and waits until it counts.
    pub(super) async fn commit(&mut self, sink: &mut dyn Sink, chunk: &Chunk) -> Verdict {
        match sink.write(chunk).await {
            Ok(Written::Committed) => {}
            Ok(Written::Accepted) => self.wait_applied(sink, chunk.to).await?,
            Ok(Written::Refused(rows)) => {
                let why = rows.first().map(|row| row.error.chain()).unwrap_or_default();
                let count = rows.len();
                return broken(format!(
                    "`write` refuses {count} rows of a chunk that it has to take, the first: {why}"
                ));
            }
            Err(error) => return broken(format!("`write` fails where nothing is wrong: {}", error.chain())),
        }
        self.counts(chunk);
        Ok(())
    }

    /// Takes note that a chunk is in the store.
    pub(super) fn counts(&mut self, chunk: &Chunk) {
        self.at = chunk.to;
        self.cx.known = Some(chunk.to);
        for part in &chunk.tables {
            let form = self.form(part.table);
            for row in rows_of(&part.rows) {
                self.contents[part.table].add(form.text(&row));
            }
        }
    }

    /// Waits until what was accepted is durable.
    pub(super) async fn wait_applied(&mut self, sink: &mut dyn Sink, upto: SpoolPosition) -> Verdict {
        let deadline = self.deadline();
        loop {
            match sink.applied().await {
                Ok(Some(at)) if at == upto => return Ok(()),
                Ok(Some(at)) if at.offset > upto.offset => {
                    return broken(format!("`applied` answers {at}, and only what is up to {upto} was accepted"));
                }
                Ok(at) if Instant::now() >= deadline => {
                    let (at, patience) = (shown(at), self.bench.patience());
                    return broken(format!("`applied` still answers {at} after {patience:?}: {upto} was accepted"));
                }
                Ok(_) => tokio::time::sleep(TICK).await,
                Err(error) => return broken(format!("`applied` fails where nothing is wrong: {}", error.chain())),
            }
        }
    }

    /// Opens after a call whose end is not known, and returns whether the chunk counts. Where the store keeps no position,
    /// nobody can say: then it has to be written again.
    pub(super) async fn settle(&mut self, sink: &mut dyn Sink, chunk: &Chunk) -> Verdict<bool> {
        match self.stands(sink).await? {
            Some(at) if at == chunk.to => {
                self.counts(chunk);
                Ok(true)
            }
            Some(at) if at != chunk.from => {
                let (from, to) = (chunk.from, chunk.to);
                broken(format!(
                    "after a call that was lost `open` answers {at}, and not one of the chunk's ends, {from} or {to}"
                ))
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Writes a chunk as the driver does where something may fail: again, and after each error it opens first.
    pub(super) async fn insist(&mut self, sink: &mut dyn Sink, chunk: &Chunk) -> Verdict {
        let deadline = self.deadline();
        loop {
            let error = match self.attempt(sink, chunk).await {
                Ok(()) => {
                    self.counts(chunk);
                    return Ok(());
                }
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                return broken(format!("a chunk is still not written: {}", error.chain()));
            }
            if !is_transient(&error) {
                return broken(format!("`write` needs a person where waiting would do: {}", error.chain()));
            }
            tokio::time::sleep(TICK).await;
            if self.settle(sink, chunk).await? {
                return Ok(());
            }
        }
    }

    /// Writes once, and waits until it counts.
    pub(super) async fn attempt(&mut self, sink: &mut dyn Sink, chunk: &Chunk) -> Result<(), Error> {
        match sink.write(chunk).await? {
            Written::Committed => return Ok(()),
            Written::Accepted => {}
            Written::Refused(rows) => {
                let why = rows.first().map(|row| row.error.chain()).unwrap_or_default();
                return Err(Error::permanent(format!("{} rows were refused: {why}", rows.len())));
            }
        }
        let deadline = self.deadline();
        loop {
            if sink.applied().await?.is_some_and(|at| at == chunk.to) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::transient("what was accepted is not durable in time"));
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Holds the store against what was written: rows, position, and what a new session says.
    pub(super) async fn holds(&mut self) -> Verdict {
        self.holds_rows().await?;
        let told = self.bench.position(&self.cx.owner).await;
        let (told, at) = match told {
            Ok(told) if self.keeps_position() => (told.unwrap_or(SpoolPosition::START), self.at),
            Ok(_) | Err(CannotTell) => return Ok(()),
        };
        if told == at { Ok(()) } else { broken(format!("the store's position is {told}, and has to be {at}")) }
    }

    /// Holds the rows of all tables against what was written: each once, or at least once where no more is promised.
    pub(super) async fn holds_rows(&mut self) -> Verdict {
        let may_double = self.guarantee == Guarantee::AtLeastOnce;
        for number in 0..self.cx.tables.len() {
            let table = self.cx.tables[number].clone();
            let stored = self.stored(number).await;
            if let Some(fault) = self.contents[number].differs(&table.name, &stored, may_double) {
                return broken(fault);
            }
        }
        Ok(())
    }

    /// Returns the rows that a table holds.
    pub(super) async fn stored(&mut self, number: usize) -> Contents {
        let table = self.cx.tables[number].clone();
        let form = self.form(number);
        let mut stored = Contents::default();
        for row in self.bench.rows(&table).await {
            stored.add(form.text(&row));
        }
        stored
    }

    /// Returns how the rows of a table are compared.
    pub(super) fn form(&self, table: usize) -> Form {
        Form { columns: columns(&self.cx.tables[table]), keeps_sign_of_zero: self.bench.keeps_sign_of_zero() }
    }

    /// Returns what has to be in a table, for a check that changes it by other means.
    pub(super) fn contents(&mut self, number: usize) -> &mut Contents {
        &mut self.contents[number]
    }

    /// Returns until when to wait.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.bench.patience()
    }
}

/// Returns an empty log of the contract's tables.
pub(super) fn new_log() -> MemoryLog {
    let log = MemoryLog::new("contract", rows::tables());
    log.reboot_as(Boot(0xfedc_ba98_7654_3210));
    log
}

/// Returns whether waiting may mend it.
pub(super) fn is_transient(error: &Error) -> bool {
    matches!(error.kind(), Kind::Transient { .. })
}

/// Returns a position as a failure shows it.
pub(super) fn shown(at: Option<SpoolPosition>) -> String {
    at.map_or_else(|| "none".to_owned(), |at| at.to_string())
}

/// How long to wait before a store is asked again.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// A directory that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let seed = Timestamp::now().0.cast_unsigned() ^ u64::from(std::process::id());
        // The address of a value of this call's own: two threads may ask at the same moment.
        let here = std::ptr::from_ref(&seed).addr() as u64;
        let name = Random::new(seed ^ here.rotate_left(32)).draw();
        let path = std::env::temp_dir().join(format!("tidegate-contract-{name:016x}"));
        fs::create_dir_all(&path).expect("the directory for temporary files can be written to");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is in the directory for what may be left.
        fs::remove_dir_all(&self.0).ok();
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Broken(format!("a call fails where nothing is wrong: {}", error.chain()))
    }
}
