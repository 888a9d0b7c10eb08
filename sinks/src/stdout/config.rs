//! The keys of `[sink.NAME]` with `type = "stdout"`.

use std::io::{self, IsTerminal};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{Result, catalog::Component, sink::Sink};

use super::sink::Stdout;

/// Prints rows: at least once, since nobody can take back what was printed.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StdoutConfig {
    /// How a row looks.
    pub format: Format,
}

/// How a row looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Aligned columns on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line, the table's name in the member `table`.
    Json,
    /// Comma-separated, with a line of names where another table begins.
    Csv,
    /// Aligned columns, without those that no row has had so far.
    Table,
}

impl Component for StdoutConfig {
    const TYPE: &'static str = "stdout";
    type Built = Box<dyn Sink>;

    fn build(&self) -> Result<Self::Built> {
        Ok(Box::new(Stdout::new(self.format, || io::stdout().is_terminal(), Box::new(io::stdout))))
    }

    fn store(&self) -> Option<String> {
        Some("stdout".to_owned())
    }
}
