//! The record: where the store is, who owns it, and which part of which file counts.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use tidegate_core::{
    Error, Result,
    sink::{Claim, Owner},
    spool::{Boot, SpoolPosition},
};

use super::config::Format;

/// What is known of the files of one sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Random 64-bit numbers are written in hexadecimal: many readers round large numbers.
    spool: String,
    host: String,
    boot: String,
    offset: u64,
    #[serde(default)]
    pub(super) format: Format,
    /// JSON lines: the file in work of each table, by the table's name in the store.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) files: BTreeMap<String, InWork>,
    /// Parquet: files that count and may still be called `.part`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) renames: Vec<String>,
}

/// A file that rows are appended to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InWork {
    pub(super) name: String,
    /// How many bytes of it count.
    pub(super) bytes: u64,
    /// When it was begun, in UTC nanoseconds.
    pub(super) begun: i64,
}

impl Record {
    /// Returns the record of a sink that has written nothing.
    pub(super) fn new(owner: &Owner, format: Format) -> Self {
        let record = Self { spool: hex(owner.spool), host: owner.host.clone(), format, ..Self::default() };
        record.at(SpoolPosition::START)
    }

    /// Returns the name of its file.
    pub(super) fn name(owner: &Owner) -> String {
        format!(".tidegate-{}-{}.json", owner.pipeline, owner.sink)
    }

    /// Returns whether a file is the record of some sink.
    pub(super) fn is_name(name: &str) -> bool {
        name.starts_with(".tidegate-") && name.ends_with(".json")
    }

    /// Reads the record; `None` if there is none.
    pub(super) fn read(path: &Path, owner: &Owner) -> Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", path, error)),
        };
        let record: Option<Self> = serde_json::from_slice(&bytes).ok();
        let Some(mut record) = record.filter(|record| record.position().is_some()) else {
            return Err(Error::permanent(format!("`{}` is damaged: it holds no position", path.display())));
        };
        // The host's name proves nothing: a machine is renamed, a container made anew. The spool's id does.
        if record.spool != hex(owner.spool) {
            return Err(Error::permanent(format!(
                "the files beside `{}` belong to spool {}, last of host `{}`; this is spool {} on host `{}`, which knows \
                 nothing of their rows: two data directories, or a feed and its replay, may not fill one folder. Bring back \
                 the data directory of that spool, or give the sink another folder",
                path.display(),
                record.spool,
                record.host,
                hex(owner.spool),
                owner.host
            )));
        }
        record.host.clone_from(&owner.host);
        Ok(Some(record))
    }

    /// Replaces the record, durably.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let new = path.with_extension("json.new");
        let written = (|| {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()
        })();
        written.map_err(|error| failed("write", &new, error))?;
        fs::rename(&new, path).map_err(|error| failed("replace", path, error))?;
        sync_directory(path.parent().unwrap_or_else(|| Path::new(".")))
    }

    /// Returns the spool's id.
    #[cfg(feature = "parquet")]
    pub(super) fn spool(&self) -> &str {
        &self.spool
    }

    /// Returns where the store is; `None` when the record is damaged.
    pub(super) fn position(&self) -> Option<SpoolPosition> {
        let boot = Boot(u64::from_str_radix(&self.boot, 16).ok()?);
        Some(SpoolPosition { boot, offset: self.offset })
    }

    /// Returns whose the files are, for whoever asks before anything is opened.
    pub(super) fn claim(self) -> Option<Claim> {
        let (position, spool) = (self.position()?, u64::from_str_radix(&self.spool, 16).ok()?);
        Some(Claim { position, spool, host: self.host, gone: Vec::new() })
    }

    /// Returns the record of another owner, at another position. Files in work are begun anew.
    pub(super) fn adopted(self, owner: &Owner, at: SpoolPosition) -> Self {
        let adopted = Self { renames: self.renames, ..Self::new(owner, self.format) };
        adopted.at(at)
    }

    /// Returns the record at another position.
    pub(super) fn at(mut self, position: SpoolPosition) -> Self {
        self.boot = hex(position.boot.0);
        self.offset = position.offset;
        self
    }
}

/// Makes what was created, renamed or removed in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| failed("fsync", path, error))
}

/// Returns what a failed call on a file means: it may work again when the disk does.
pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    Error::transient(format!("cannot {what} `{}`", path.display())).because(error)
}

/// Returns a random 64-bit number as it is shown everywhere.
pub(super) fn hex(number: u64) -> String {
    format!("{number:016x}")
}
