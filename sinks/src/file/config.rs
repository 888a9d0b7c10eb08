//! The keys of `[sink.NAME]` with `type = "file"`.

use std::{
    borrow::Cow,
    fmt,
    path::{Path, PathBuf},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Unexpected},
};
use tidegate_core::{
    Error, Result,
    catalog::Component,
    chunk::SinkTable,
    config::{ByteSize, Duration, one_path, positive},
    sink::Sink,
};

use super::{folder::check_names, sink::FileSink};

/// Writes rows into files that are rotated by size and time, as JSON lines or Parquet: exactly once.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The directory, in which `{pipeline}` may stand. It is made if it is missing. No two sinks share one.
    pub path: Directory,
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

/// The name of a directory, in which `{pipeline}` may stand.
#[derive(Debug, Clone)]
pub struct Directory(String);

const DIRECTORY: &str = "the name of one directory, in which {pipeline} may stand";

impl Directory {
    /// Returns the directory of a pipeline.
    pub(super) fn of(&self, pipeline: &str) -> PathBuf {
        self.0.replace("{pipeline}", pipeline).into()
    }
}

impl<'de> Deserialize<'de> for Directory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name.is_empty() || name.replace("{pipeline}", "").contains(['{', '}']) {
            return Err(de::Error::invalid_value(Unexpected::Str(&name), &DIRECTORY));
        }
        Ok(Self(name))
    }
}

impl Serialize for Directory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl JsonSchema for Directory {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Directory".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "x-unit": "directory" })
    }
}

/// When the next file of a table begins.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// When the file has this size; the last chunk may take it a little beyond. For Parquet, when what waits in the spool
    /// for the files has it, of all tables together, with the rows in between that the sink does not take: all files end
    /// at one position. So it may be half of the spool's `max_bytes` at most.
    #[serde(deserialize_with = "positive")]
    pub bytes: ByteSize,
    /// When the file is this old: JSON lines as soon as another row comes, Parquet also without one.
    #[serde(deserialize_with = "positive")]
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
        if self.format == Format::Parquet && !cfg!(feature = "parquet") {
            return Err(no_parquet());
        }
        Ok(Box::new(FileSink::new(self.clone())))
    }

    fn check_tables(&self, tables: &[SinkTable]) -> Result<()> {
        check_names(tables)
    }

    fn path(&self, pipeline: &str) -> Option<PathBuf> {
        Some(self.path.of(pipeline))
    }

    fn store(&self) -> Option<String> {
        Some(format!("file {}", one_path(Path::new(&self.path.0)).display()))
    }
}
