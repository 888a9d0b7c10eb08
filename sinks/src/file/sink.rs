//! The sink: hands its work to a thread that may block.

use std::fmt;

use async_trait::async_trait;
use tidegate_core::{
    Error, Result,
    chunk::{Chunk, Part},
    sink::{Claim, Guarantee, Owner, Sink, SinkContext, Written},
    spool::SpoolPosition,
};

use super::{FileConfig, Format, adopt, folder::Folder, lines::Lines};
use crate::worker::Worker;

/// Rows in files.
#[derive(Debug)]
pub(super) struct FileSink {
    config: FileConfig,
    worker: Worker<Option<Box<dyn Files>>>,
}

/// The files of one format, open. Everything here blocks.
pub(super) trait Files: fmt::Debug + Send {
    /// Returns where the store is.
    fn position(&self) -> SpoolPosition;

    /// Writes a chunk, which counts at once or later.
    fn write(&mut self, chunk: &Chunk) -> Result<Written>;

    /// Checks that the files are those that were opened.
    fn check(&self) -> Result<()>;

    /// Returns up to where rows count, after what its time has come for was done.
    fn applied(&mut self) -> Result<SpoolPosition> {
        Ok(self.position())
    }

    /// Makes everything count that was taken.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

impl FileSink {
    pub(super) fn new(config: FileConfig) -> Self {
        Self { config, worker: Worker::new() }
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        // A write that was given up may still be under way, and so is its lock.
        self.worker.reset().await;
        self.worker.set(None);
        let (config, cx) = (self.config.clone(), cx.clone());
        let position = self.worker.run(move |files| {
            *files = open_files(config, &cx)?;
            Ok(files.as_ref().map(|files| files.position()))
        });
        let position = position.await?.filter(|position| *position != SpoolPosition::START);
        Ok(position.map(|position| (Part::spool(), position)).into_iter().collect())
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        let chunk = chunk.clone();
        self.worker.run(move |files| opened(files)?.write(&chunk)).await
    }

    async fn applied(&mut self) -> Result<Option<SpoolPosition>> {
        self.worker.run(|files| opened(files)?.applied().map(Some)).await
    }

    async fn check(&mut self) -> Result<()> {
        self.worker.run(|files| opened(files)?.check()).await
    }

    async fn close(&mut self) -> Result<()> {
        let closed = self.worker.run(|files| opened(files)?.finish()).await;
        self.worker.reset().await;
        closed
    }

    async fn claim(&mut self, owner: &Owner) -> Result<Option<Claim>> {
        adopt::claim(&self.config, owner)
    }

    async fn adopt(&mut self, owner: &Owner, at: SpoolPosition) -> Result<()> {
        adopt::adopt(&self.config, owner, at)
    }

    async fn rename(&mut self, old: &Owner, owner: &Owner) -> Result<()> {
        adopt::rename(&self.config, old, owner)
    }

    fn holds_back(&self) -> u64 {
        match self.config.format {
            Format::Json => 0,
            Format::Parquet => self.config.rotate.bytes.0,
        }
    }

    fn guarantee(&self) -> Guarantee {
        match self.config.format {
            Format::Json => Guarantee::Truncation,
            Format::Parquet => Guarantee::Rename,
        }
    }
}

fn open_files(config: FileConfig, cx: &SinkContext) -> Result<Option<Box<dyn Files>>> {
    let Some(folder) = Folder::open(config.path.of(&cx.owner.pipeline), config.format, cx)? else { return Ok(None) };
    match config.format {
        Format::Json => Ok(Some(Box::new(Lines::open(folder, config.rotate)?))),
        #[cfg(feature = "parquet")]
        Format::Parquet => Ok(Some(Box::new(super::parquet::Parquet::open(folder, config.rotate)?))),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => Err(super::config::no_parquet()),
    }
}

fn opened(files: &mut Option<Box<dyn Files>>) -> Result<&mut Box<dyn Files>> {
    files.as_mut().ok_or_else(|| Error::transient("the files are not open"))
}
