//! A row of the table `tidegate_position`, which stores of SQL keep alike: who has a part, and where the store is.

use std::collections::BTreeSet;

use tidegate_core::{
    Error, Result,
    chunk::Part,
    sink::Owner,
    spool::{Boot, SpoolPosition},
};

/// The row of one part.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) part: Part,
    pub(crate) position: SpoolPosition,
    pub(crate) epoch: i64,
    /// The host that committed last.
    pub(crate) host: String,
    /// The tables that were made for the sink, or found.
    pub(crate) tables: BTreeSet<String>,
    pub(crate) spool: u64,
}

/// The same as it is stored. Random 64-bit numbers are hexadecimal text: half of them are no integer of SQL. `tables` is a
/// JSON array.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) part: String,
    pub(crate) spool: String,
    pub(crate) host: String,
    pub(crate) epoch: i64,
    pub(crate) boot: String,
    pub(crate) offset: i64,
    pub(crate) tables: String,
}

impl Columns {
    /// Reads what was stored for an owner.
    ///
    /// # Errors
    ///
    /// `Permanent` when somebody has changed it to what is no position.
    pub(crate) fn read(self, owner: &Owner) -> Result<Held> {
        let Self { part, host, epoch, .. } = self;
        let (Some(spool), Some(boot), Ok(tables), Ok(offset)) =
            (number(&self.spool), number(&self.boot), serde_json::from_str(&self.tables), u64::try_from(self.offset))
        else {
            return Err(Error::permanent(format!(
                "the row of `{}` and `{}` in `tidegate_position` is damaged",
                owner.pipeline, owner.sink
            )));
        };
        let position = SpoolPosition { boot: Boot(boot), offset };
        Ok(Held { part: Part(part.into()), position, epoch, host, tables, spool })
    }
}

impl Held {
    /// Returns why this owner, whose last epoch was `mine`, may not have the position; it may write to another `place`.
    pub(crate) fn refuses(&self, owner: &Owner, mine: Option<i64>, place: &str) -> Option<Error> {
        // The host's name proves nothing: a machine is renamed, a container made anew. The spool is locked for one process,
        // and a copy of it has another boot.
        if self.spool != owner.spool && !owner.part.is_spool() {
            return Some(Error::permanent(format!(
                "the position of `{}`, {}, belongs to another log, {:016x}, and was written last by host `{}`; this log is \
                 {:016x}: give the pipeline or the sink another name, or write to another {place}",
                owner.part.0, self.position, self.spool, self.host, owner.spool
            )));
        }
        if self.spool != owner.spool {
            return Some(Error::permanent(format!(
                "the position of `{}` and `{}`, {}, belongs to spool {:016x}, last of host `{}`; this is spool {:016x} on \
                 host `{}`, which knows nothing of those rows: two data directories may not feed one table. Bring back \
                 the data directory of that spool, or write to another {place}",
                owner.pipeline, owner.sink, self.position, self.spool, self.host, owner.spool, owner.host
            )));
        }
        // A part goes from one program to another, and may come back: who opens it last has it, and who has it wrongly is told
        // by the log.
        (owner.part.is_spool() && mine.is_some_and(|mine| self.epoch > mine)).then(|| {
            Error::permanent(format!(
                "another program has taken over the position of `{}` and `{}`: it must run once only",
                owner.pipeline, owner.sink
            ))
        })
    }
}

/// Returns a random number as it is stored.
pub(crate) fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// Returns the number that was stored.
pub(crate) fn number(hex: &str) -> Option<u64> {
    u64::from_str_radix(hex, 16).ok()
}
