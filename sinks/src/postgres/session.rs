//! What holds from one opening to the next: the connection, and how a chunk is written over it.

use std::ops::Range;

use futures_util::future::{join, try_join_all};
use tidegate_core::{
    Error, Result,
    chunk::{Chunk, SinkTable},
    sink::{Owner, Refusal, Written},
};

use super::{
    config::Settings,
    encode::Rows,
    error::{blames_a_row, sorted},
    insert::{Inserter, Prepared},
    link::{KEEPALIVE_SQL, Link},
    position::Positions,
};

/// An open store.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: Link,
    pub(super) settings: Settings,
    pub(super) owner: Owner,
    pub(super) epoch: i64,
    pub(super) positions: Positions,
    pub(super) tables: Vec<OpenTable>,
}

/// A table of an open store.
#[derive(Debug)]
pub(super) struct OpenTable {
    pub(super) table: SinkTable,
    pub(super) inserter: Inserter,
    /// What the catalog said of its columns: bytes meant for these are garbage in others.
    pub(super) signature: String,
}

type Failed = tokio_postgres::Error;

/// How a transaction ended that was not committed, and is no error.
enum Undone {
    /// A row cannot be stored.
    Blamed,
}

impl Session {
    /// Commits all tables of a chunk and its position, or nothing.
    pub(super) async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        let rows: Vec<Rows<'_>> = chunk.tables.iter().map(|part| Rows::of(&part.rows)).collect();
        if !self.may_be_unfit(chunk, &rows) && self.commit(chunk, &rows).await?.is_ok() {
            return Ok(Written::Committed);
        }
        let refused = self.refused(chunk, &rows).await?;
        if refused.is_empty() {
            return Err(Error::transient("a row was refused, and taken when it was tried alone"));
        }
        Ok(Written::Refused(refused))
    }

    async fn commit(&mut self, chunk: &Chunk, rows: &[Rows<'_>]) -> Result<std::result::Result<(), Undone>> {
        // One round trip for both: what is prepared comes behind the transaction's beginning, and fails where that has failed.
        let (begun, prepared) = join(self.begin(chunk, ""), self.prepare(chunk)).await;
        begun?;
        let inserted = match prepared {
            Ok(prepared) => self.insert(chunk, rows, prepared).await,
            Err(error) => Err(error),
        };
        match inserted {
            Ok(None) => {}
            Ok(Some(swallowed)) => {
                self.roll_back().await?;
                return Err(swallowed);
            }
            Err(error) if blames_a_row(&error) => {
                self.roll_back().await?;
                return Ok(Err(Undone::Blamed));
            }
            Err(error) => return Err(self.failed(error)),
        }
        match self.link.run("COMMIT").await {
            Ok(()) => Ok(Ok(())),
            // A constraint that is looked at now: nothing was committed, and the server says so.
            Err(error) if blames_a_row(&error) => Ok(Err(Undone::Blamed)),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn prepare(&self, chunk: &Chunk) -> Result<Vec<Prepared<'_>>, Failed> {
        try_join_all(chunk.tables.iter().map(|part| self.tables[part.table].inserter.prepare(&self.link))).await
    }

    /// Writes all rows; returns what to say where a table has taken fewer.
    async fn insert(
        &self,
        chunk: &Chunk,
        rows: &[Rows<'_>],
        prepared: Vec<Prepared<'_>>,
    ) -> Result<Option<Error>, Failed> {
        for ((part, rows), prepared) in chunk.tables.iter().zip(rows).zip(prepared) {
            let (count, table) = (part.rows.num_rows(), &self.tables[part.table]);
            let inserted = table.inserter.insert(&self.link, prepared, rows, 0..count).await?;
            if inserted != count as u64 {
                return Ok(Some(swallowed(&table.table.name, count as u64 - inserted)));
            }
        }
        Ok(None)
    }

    /// Finds all rows that cannot be stored, in a transaction that is rolled back.
    async fn refused(&mut self, chunk: &Chunk, rows: &[Rows<'_>]) -> Result<Vec<Refusal>> {
        // What would be looked at when it is committed has to be seen row by row.
        self.begin(chunk, "; SET CONSTRAINTS ALL IMMEDIATE").await?;
        let mut refused = Vec::new();
        for (part, rows) in chunk.tables.iter().zip(rows) {
            let mut blame = |row: usize, error: Error| {
                refused.push(Refusal { cause: part.causes[row], table: part.table, error });
            };
            let table = &self.tables[part.table];
            // Halves, the left one first, so that a row meets those before it, as it would in the table.
            let mut ranges: Vec<Range<usize>> = Vec::new();
            ranges.push(0..part.rows.num_rows());
            while let Some(range) = ranges.pop() {
                if let Some(why) = table.inserter.unfit_in(rows, range.clone()) {
                    if range.len() == 1 {
                        blame(range.start, Error::malformed(why));
                        continue;
                    }
                } else {
                    match self.tried(table, rows, range.clone()).await {
                        Ok(()) => continue,
                        Err(error) if blames_a_row(&error) => {
                            if range.len() == 1 {
                                blame(range.start, table.inserter.refusal(error, &table.table));
                                continue;
                            }
                        }
                        Err(error) => return Err(self.failed(error)),
                    }
                }
                let middle = range.start + range.len() / 2;
                ranges.push(middle..range.end);
                ranges.push(range.start..middle);
            }
        }
        self.roll_back().await?;
        refused.sort_by_key(|refusal| refusal.cause);
        Ok(refused)
    }

    /// Writes rows, and undoes it if they cannot be stored.
    async fn tried(&self, table: &OpenTable, rows: &Rows<'_>, range: Range<usize>) -> Result<(), Failed> {
        self.link.run("SAVEPOINT tidegate").await?;
        let prepared = table.inserter.prepare(&self.link).await?;
        match table.inserter.insert(&self.link, prepared, rows, range).await {
            Ok(_) => self.link.run("RELEASE tidegate").await,
            Err(error) if blames_a_row(&error) => {
                self.link.run("ROLLBACK TO tidegate; RELEASE tidegate").await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Begins a transaction, moves the position, and locks the tables as they were when the store was opened: all in one
    /// message.
    ///
    /// # Errors
    ///
    /// None of them blames a row: whatever is wrong here, opening the store again says what.
    async fn begin(&self, chunk: &Chunk, and: &str) -> Result<()> {
        let range = (chunk.from, chunk.to);
        let guard = self.positions.advance(&self.owner, &chunk.part, self.epoch, range);
        let statement = self.settings.statement_timeout.0.as_millis();
        let bulk = self.settings.bulk_timeout.0.as_millis();
        let mut sql = format!(
            "BEGIN; SET LOCAL synchronous_commit = on; SET LOCAL statement_timeout = {statement}; \
             SET LOCAL idle_in_transaction_session_timeout = {bulk}; {KEEPALIVE_SQL}; {guard}"
        );
        let tables: Vec<&OpenTable> = chunk.tables.iter().map(|part| &self.tables[part.table]).collect();
        if !tables.is_empty() {
            let names: Vec<&str> = tables.iter().map(|table| &*table.inserter.target.name).collect();
            let are_same: Vec<String> = tables.iter().map(|table| table.is_same()).collect();
            sql += &format!(
                "; LOCK TABLE {} IN ROW EXCLUSIVE MODE; SELECT 1 / ({})::int",
                names.join(", "),
                are_same.join(" AND ")
            );
        }
        sql += and;
        sql += &format!("; SET LOCAL statement_timeout = {bulk}");
        match self.link.run(&sql).await {
            Ok(()) => Ok(()),
            Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::DIVISION_BY_ZERO) => Err(missed()),
            Err(error) if error.code().is_some() && !error.is_closed() => {
                let sorted = sorted(error);
                // A person's business or not, it is the opening's to say.
                Err(Error::transient(format!("the transaction could not begin: {}", sorted.chain())))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn roll_back(&self) -> Result<()> {
        self.link.run("ROLLBACK").await.map_err(|error| self.failed(error))
    }

    fn may_be_unfit(&self, chunk: &Chunk, rows: &[Rows<'_>]) -> bool {
        chunk.tables.iter().zip(rows).any(|(part, rows)| self.tables[part.table].inserter.may_be_unfit(rows))
    }

    /// Looks whether the store lives and is still ours.
    pub(super) async fn check(&self) -> Result<()> {
        let epoch = self
            .positions
            .epoch(&self.link, &self.owner, &self.owner.part)
            .await
            .map_err(|error| self.failed(error))?;
        if epoch != Some(self.epoch) {
            return Err(missed());
        }
        for table in &self.tables {
            let same = self.link.text(&format!("SELECT {}", table.is_same())).await;
            if same.map_err(|error| self.failed(error))?.as_deref() != Some("t") {
                let name = &table.table.name;
                return Err(Error::transient(format!("table `{name}` was changed, or is gone: it is looked at again")));
            }
        }
        Ok(())
    }

    fn failed(&self, error: Failed) -> Error {
        self.link.at(sorted(error))
    }
}

impl OpenTable {
    /// Returns what a table is known by.
    pub(super) async fn signature(link: &Link, oid: u32) -> Result<String, Failed> {
        Ok(link.text(&format!("SELECT {}", signature(oid))).await?.unwrap_or_default())
    }

    /// Returns the condition that the name still means this table, and the table has the columns it had.
    fn is_same(&self) -> String {
        let oid = self.inserter.target.oid;
        let name = super::schema::literal(&self.inserter.target.name);
        format!("(coalesce(to_regclass({name})::oid, 0) = {oid} AND {} = '{}')", signature(oid), self.signature)
    }
}

fn signature(oid: u32) -> String {
    format!(
        "(SELECT md5(coalesce(string_agg(attname::text || ' ' || atttypid::text || ' ' || atttypmod::text || ' ' || attnotnull::text || attgenerated::text, \
         ',' ORDER BY attnum), '')) FROM pg_catalog.pg_attribute WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped)"
    )
}

pub(super) fn missed() -> Error {
    Error::transient(
        "the position in the store is not where it was left, or a table is not as it was: it is looked at again",
    )
}

fn swallowed(table: &str, rows: u64) -> Error {
    Error::permanent(format!(
        "table `{table}` throws away rows without a word, by a trigger say: {rows} of this chunk. Nothing of it was stored"
    ))
}
