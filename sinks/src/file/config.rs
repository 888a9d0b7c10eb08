//! The keys of `[sink.NAME]` with `type = "file"`.

use std::{fmt, path::Path};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Error, Result,
    catalog::Component,
    chunk::SinkTable,
    config::{ByteSize, Duration, NameTemplate, one_path},
    sink::Sink,
};

use super::{folder::check_names, sink::FileSink};

/// Writes rows into files that are rotated by size and time, as JSON lines or Parquet: exactly once.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The directory, in which `{pipeline}` may stand. It is made if it is missing. No two sinks share one.
    pub path: NameTemplate,
    /// What the files hold: `json`, one line for each row, there at once; or `parquet`, columns compressed with Snappy,
    /// there when the file is finished. Until then it is called `.part`, and its rows stay in the spool. Parquet takes up to
    /// 64 MiB of memory, and is in builds with `--features parquet`.
    #[serde(default)]
    pub format: Format,
    /// When the next file begins.
    #[serde(default)]
    pub rotate: Rotate,
}

/// What the files hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One line of JSON for each row.
    #[default]
    Json,
    /// Columns, compressed, with a footer.
    Parquet,
}

impl Format {
    /// Returns how the name of a file ends.
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Json => "jsonl",
            Self::Parquet => "parquet",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Parquet => "parquet",
        })
    }
}

/// When the next file of a table begins.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// When the file has this size; the last chunk may take it a little beyond. For Parquet, when the rows of all tables
    /// together have it, before they are compressed: all files end at one position. They wait in the spool until then, as
    /// do rows of tables that the sink does not take, which count as 256 bytes each: so it may be half of the spool's
    /// `max_bytes` at most.
    pub bytes: ByteSize,
    /// When the file is this old: JSON lines as soon as another row comes, Parquet also without one.
    pub every: Duration,
}

impl Default for Rotate {
    fn default() -> Self {
        Self { bytes: ByteSize::from_mib(256), every: Duration::from_secs(60 * 60) }
    }
}

pub(super) fn no_parquet() -> Error {
    Error::config("`format` \"parquet\" is not in this build: build it with `--features parquet`")
}

impl Component for FileConfig {
    const TYPE: &'static str = "file";
    const EXAMPLE: &'static str = "path = \"rows/{pipeline}\"";
    type Built = Box<dyn Sink>;

    fn build(&self) -> Result<Self::Built> {
        if self.path.depends_on_row() {
            return Err(Error::config("`path` is one directory: only `{pipeline}` may stand in it"));
        }
        if self.rotate.bytes.0 == 0 || self.rotate.every.0.is_zero() {
            return Err(Error::config("`rotate` needs a size and a time above 0"));
        }
        if self.format == Format::Parquet && !cfg!(feature = "parquet") {
            return Err(no_parquet());
        }
        Ok(Box::new(FileSink::new(self.clone())))
    }

    fn check_tables(&self, tables: &[SinkTable]) -> Result<()> {
        check_names(tables)
    }

    fn store(&self) -> Option<String> {
        Some(format!("file {}", one_path(Path::new(&self.path.to_string())).display()))
    }
}
