//! The keys of `[sink.NAME]` with `type = "file"`.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Error, Result,
    catalog::Component,
    config::{ByteSize, Duration, NameTemplate, one_path},
    sink::Sink,
};

use super::sink::FileSink;

/// Writes rows as JSON lines into files that are rotated by size and time: exactly once.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The directory, in which `{pipeline}` may stand. It is made if it is missing. No two sinks share one.
    pub path: NameTemplate,
    /// When the next file begins.
    #[serde(default)]
    pub rotate: Rotate,
}

/// When the next file of a table begins.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// When the file has this size; the last chunk may take it a little beyond.
    pub bytes: ByteSize,
    /// When the file is this old and another row comes.
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
        if self.path.depends_on_row() {
            return Err(Error::config("`path` is one directory: only `{pipeline}` may stand in it"));
        }
        if self.rotate.bytes.0 == 0 || self.rotate.every.0.is_zero() {
            return Err(Error::config("`rotate` needs a size and a time above 0"));
        }
        Ok(Box::new(FileSink::new(self.clone())))
    }

    fn store(&self) -> Option<String> {
        Some(format!("file {}", one_path(Path::new(&self.path.to_string())).display()))
    }
}
