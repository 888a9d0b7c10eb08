//! The keys of `[sink.NAME]` with `type = "file"`.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Unexpected},
};
use tidegate_core::{
    Result,
    catalog::Component,
    config::{ByteSize, Duration, one_path, positive},
    sink::Sink,
};

use super::sink::FileSink;

/// Writes rows as JSON lines into files that are rotated by size and time: exactly once.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The directory, in which `{pipeline}` may stand. It is made if it is missing. No two sinks share one.
    pub path: Directory,
    /// When the next file begins.
    #[serde(default)]
    pub rotate: Rotate,
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
    /// When the file has this size; the last chunk may take it a little beyond.
    #[serde(deserialize_with = "positive")]
    pub bytes: ByteSize,
    /// When the file is this old and another row comes.
    #[serde(deserialize_with = "positive")]
    pub every: Duration,
}

impl Default for Rotate {
    fn default() -> Self {
        Self { bytes: ByteSize::from_mib(256), every: Duration::from_secs(60 * 60) }
    }
}

impl Component for FileConfig {
    const TYPE: &'static str = "file";
    const EXAMPLE: &'static str = "path = \"rows/{pipeline}\"";
    type Built = Box<dyn Sink>;

    fn build(&self) -> Result<Self::Built> {
        Ok(Box::new(FileSink::new(self.clone())))
    }

    fn store(&self) -> Option<String> {
        Some(format!("file {}", one_path(Path::new(&self.path.0)).display()))
    }
}
