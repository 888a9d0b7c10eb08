//! The sink: hands its work to a thread that may block.

use async_trait::async_trait;
use tidegate_core::{
    Result,
    chunk::{Chunk, Part},
    sink::{Guarantee, Sink, SinkContext, Written},
    spool::SpoolPosition,
};

use super::{FileConfig, writer::Writer};
use crate::worker::Worker;

/// JSON lines in files.
#[derive(Debug)]
pub(super) struct FileSink {
    config: FileConfig,
    worker: Worker<Option<Writer>>,
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
        let directory = self.config.path.of(&cx.owner.pipeline);
        let (rotate, cx) = (self.config.rotate.clone(), cx.clone());
        let position = self.worker.run(move |writer| {
            let opened = Writer::open(directory, rotate, &cx)?;
            let position = opened.position();
            *writer = Some(opened);
            Ok(position)
        });
        Ok(position.await?.map(|position| (Part::spool(), position)).into_iter().collect())
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        let chunk = chunk.clone();
        self.worker.run(move |writer| open(writer)?.write(&chunk)).await?;
        Ok(Written::Committed)
    }

    async fn check(&mut self) -> Result<()> {
        self.worker.run(|writer| open(writer)?.check()).await
    }

    async fn close(&mut self) -> Result<()> {
        self.worker.reset().await;
        Ok(())
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::Truncation
    }
}

fn open(writer: &mut Option<Writer>) -> Result<&mut Writer> {
    writer.as_mut().ok_or_else(|| tidegate_core::Error::transient("the files are not open"))
}
