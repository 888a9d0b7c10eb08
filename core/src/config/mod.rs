//! Configuration: defaults < host file < pipeline file < variables of the process, and every mistake with its line.
//!
//! ```text
//! Files ──Document (values + places)──→ Layers (merged by figment) ──→ Pipeline: typed, built once, tables checked
//!                                          └─ explain, hints ──→ Report: all mistakes of all files, rustc-like
//! Options (the structs' own schemas) ──→ list, new, schema, check --resolved
//! ```

mod commands;
mod decoded;
mod defaults;
mod derived;
mod document;
mod driver;
mod environment;
pub(crate) mod explain;
mod faults;
mod files;
mod graph;
mod hints;
mod host;
mod keys;
mod layers;
mod level;
mod load;
mod logs;
mod names;
mod one_path;
mod options;
mod places;
mod problem;
mod reference;
mod report;
mod resolved;
mod schema;
mod secret;
pub(crate) mod stage;
mod tables;
mod template;
mod text_or;
mod units;
mod wrap;

pub(crate) use document::Path;
pub(crate) use explain::Keys;
pub(crate) use layers::{Layers, Mended};
pub(crate) use options::Options;

pub use commands::{Commands, shell_word};
pub use driver::{
    Batch, CaptureConfig, ConnectionConfig, DeliveryConfig, LineBreaker, Ping, Probe, Reconnect, ReplayConfig, Rest,
    RestBreaker, Retry, Silence, SpoolConfig, Start, StoreBreaker, WhenFull,
};
pub use environment::Environment;
pub use faults::{Fault, Faults};
pub use files::{Files, HOST_FILE};
pub use graph::graph;
pub use host::{Host, LogConfig, LogFile, LogFormat};
pub use keys::OnConflict;
pub use level::LogLevel;
pub use load::{Feed, Loaded, Pipeline, Refused, SinkStage, SourceStage, load};
pub use names::{NameParts, NameTemplate, nearest};
pub use one_path::one_path;
pub use problem::Look;
pub use reference::{Shipped, list, list_component, undocumented};
pub use report::Report;
pub use resolved::resolved;
pub use schema::{host_schema, schema};
pub(crate) use secret::HIDDEN;
pub use secret::Secret;
pub use tables::{TableChoice, TableConfig};
pub use template::template;
pub use text_or::TextOr;
pub use units::{Address, Amount, ByteSize, Duration, Rate, Speed, positive};
