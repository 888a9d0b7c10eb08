//! The sink: hands its work to a thread that may block.

use std::path::PathBuf;

use async_trait::async_trait;
use tidegate_core::{
    Error, Result,
    chunk::{Chunk, Part},
    config::NameParts,
    sink::{Guarantee, Sink, SinkContext, Written},
    spool::SpoolPosition,
};

#[cfg(feature = "parquet")]
use super::parquet::Parquet;
use super::{FileConfig, Format, folder::Folder, lines::Lines};
use crate::worker::Worker;

/// Rows in files.
#[derive(Debug)]
pub(super) struct FileSink {
    config: FileConfig,
    worker: Worker<Option<Writer>>,
}

/// The files of one format, open.
#[derive(Debug)]
enum Writer {
    Lines(Lines),
    #[cfg(feature = "parquet")]
    Parquet(Box<Parquet>),
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
        let position = self.worker.run(move |writer| {
            let opened = Writer::open(&config, &cx)?;
            let position = opened.position();
            *writer = Some(opened);
            Ok(position)
        });
        let position = Some(position.await?).filter(|position| *position != SpoolPosition::START);
        Ok(position.map(|position| (Part::spool(), position)).into_iter().collect())
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        let chunk = chunk.clone();
        self.worker.run(move |writer| open(writer)?.write(&chunk)).await
    }

    async fn applied(&mut self) -> Result<Option<SpoolPosition>> {
        self.worker.run(|writer| open(writer)?.applied().map(Some)).await
    }

    async fn check(&mut self) -> Result<()> {
        self.worker.run(|writer| open(writer)?.check()).await
    }

    async fn close(&mut self) -> Result<()> {
        let closed = self.worker.run(|writer| open(writer)?.finish()).await;
        self.worker.reset().await;
        closed
    }

    fn guarantee(&self) -> Guarantee {
        match self.config.format {
            Format::Json => Guarantee::Truncation,
            Format::Parquet => Guarantee::Rename,
        }
    }
}

impl Writer {
    fn open(config: &FileConfig, cx: &SinkContext) -> Result<Self> {
        let parts = NameParts { pipeline: &cx.owner.pipeline, ..NameParts::default() };
        let folder = Folder::open(PathBuf::from(config.path.fill(parts)), config.format, cx)?;
        match config.format {
            Format::Json => Ok(Self::Lines(Lines::open(folder, config.rotate.clone())?)),
            #[cfg(feature = "parquet")]
            Format::Parquet => Ok(Self::Parquet(Box::new(Parquet::open(folder, config.rotate.clone())?))),
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => Err(super::config::no_parquet()),
        }
    }

    fn position(&self) -> SpoolPosition {
        match self {
            Self::Lines(lines) => lines.position(),
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => parquet.position(),
        }
    }

    fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        match self {
            Self::Lines(lines) => lines.write(chunk).map(|()| Written::Committed),
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => parquet.write(chunk),
        }
    }

    fn applied(&mut self) -> Result<SpoolPosition> {
        match self {
            Self::Lines(lines) => Ok(lines.position()),
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => parquet.applied(),
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::Lines(lines) => lines.check(),
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => parquet.check(),
        }
    }

    /// Makes everything count that was taken.
    fn finish(&mut self) -> Result<()> {
        match self {
            Self::Lines(_) => Ok(()),
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => parquet.rotate(),
        }
    }
}

fn open(writer: &mut Option<Writer>) -> Result<&mut Writer> {
    writer.as_mut().ok_or_else(|| Error::transient("the files are not open"))
}
