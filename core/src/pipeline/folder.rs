//! Where a pipeline keeps its files: `data_dir/PIPELINE/…`, and while it plays a recording `data_dir/PIPELINE/replay/…`:
//! what was played may stand beside what came live, in another spool and so in another store, but never among it.

use std::path::{Path, PathBuf};

use crate::{Result, config::Pipeline, deadletter::DeadLetters, spool::disk::trouble};

/// The folder of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// Returns the folder of the live feed of a pipeline of this name; makes nothing.
    pub fn new(data_dir: &Path, pipeline: &str) -> Self {
        Self(data_dir.join(pipeline))
    }

    /// Returns the folder of a pipeline, which is another one while it plays a recording; makes nothing.
    pub fn of(data_dir: &Path, pipeline: &Pipeline) -> Self {
        let Self(live) = Self::new(data_dir, &pipeline.name);
        Self(if pipeline.is_replay() { live.join("replay") } else { live })
    }

    /// Returns the folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the folder of the spool.
    pub fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }

    /// Returns the file of the ledger.
    pub fn ledger(&self) -> PathBuf {
        self.0.join("ledger.sqlite")
    }

    /// Returns the folder in which each sink has a position, and a folder of its own.
    pub fn sinks(&self) -> PathBuf {
        self.0.join("sinks")
    }

    /// Returns the file of a sink's dead letters.
    pub fn dead_letters(&self, sink: &str) -> PathBuf {
        self.sinks().join(sink).join(DeadLetters::FILE_NAME)
    }

    /// Returns the folder of a source: its captures.
    pub fn source(&self, source: &str) -> PathBuf {
        self.0.join("sources").join(source)
    }

    /// Makes the folders that every pipeline needs.
    ///
    /// # Errors
    ///
    /// `Transient` when there is no room for one, `Permanent` when it cannot be made otherwise, naming it.
    pub(super) fn create(self) -> Result<Self> {
        for folder in [self.spool(), self.sinks()] {
            std::fs::create_dir_all(&folder)
                .map_err(|cause| trouble(format!("cannot make the folder `{}`", folder.display()), cause))?;
        }
        Ok(self)
    }
}
