//! The sink: prints on a thread that may block, since whoever reads may be slow.

use std::{
    fmt,
    io::{self, Write},
};

use async_trait::async_trait;
use tidegate_core::{
    Error, Result,
    chunk::{Chunk, Part},
    sink::{Guarantee, Sink, SinkContext, Written},
    spool::SpoolPosition,
};

use super::{Format, printer::Printer};
use crate::worker::Worker;

/// Standard output, or what stands for it.
pub(super) struct Stdout<W> {
    format: Format,
    /// Whether a person looks at it.
    is_terminal: fn() -> bool,
    output: Box<dyn Fn() -> W + Send>,
    worker: Worker<(Printer, W)>,
}

impl<W: Write + Send + 'static> Stdout<W> {
    pub(super) fn new(format: Format, is_terminal: fn() -> bool, output: Box<dyn Fn() -> W + Send>) -> Self {
        Self { format, is_terminal, output, worker: Worker::new() }
    }
}

#[async_trait]
impl<W: Write + Send + 'static> Sink for Stdout<W> {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        self.worker.reset().await;
        let format = match self.format {
            Format::Auto if (self.is_terminal)() => Format::Table,
            Format::Auto | Format::Json => Format::Json,
            Format::Csv => Format::Csv,
            Format::Table => Format::Table,
        };
        let clash = |table: &&tidegate_core::chunk::SinkTable| table.table.columns.iter().any(|c| &*c.name == "table");
        if let Some(table) = cx.tables.iter().find(clash) {
            let name = &table.name;
            return Err(Error::permanent(format!(
                "table `{name}` has a column `table`, which is what its name is printed as"
            )));
        }
        let tables = cx.tables.iter().map(|table| table.name.clone()).collect();
        self.worker.set((Printer::new(format, tables), (self.output)()));
        Ok(Vec::new())
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        let chunk = chunk.clone();
        let printed = self.worker.run(move |(printer, output)| {
            let text = printer.print(&chunk);
            output.write_all(&text).and_then(|()| output.flush()).map_err(|error| {
                if error.kind() == io::ErrorKind::BrokenPipe {
                    return Error::permanent(
                        "nobody reads standard output any more: rows stay in the spool, Ctrl-C ends it",
                    );
                }
                Error::transient("cannot write to standard output").because(error)
            })
        });
        printed.await?;
        Ok(Written::Committed)
    }

    async fn close(&mut self) -> Result<()> {
        self.worker.reset().await;
        Ok(())
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }
}

impl<W> fmt::Debug for Stdout<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdout").field("format", &self.format).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        fs::OpenOptions,
        sync::{Arc, Mutex},
    };

    use tidegate_core::{
        Kind,
        row::{Mark, Position, Table, Timestamp, kinds::Trade},
        testkit::MemoryLog,
    };

    use super::*;

    #[derive(Clone, Default)]
    pub(in super::super) struct Shared(pub(in super::super) Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn chunks_are_printed_in_order_and_at_least_once_is_said() {
        let (log, output) = (log(), Shared::default());
        let shared = output.clone();
        let mut sink = Stdout::new(Format::Json, || true, Box::new(move || shared.clone()));
        assert!(sink.open(&log.context(std::path::Path::new("."))).await.unwrap().is_empty(), "it keeps no position");
        for n in 0..4 {
            sink.write(&log.chunk(n, n + 1)).await.unwrap();
        }
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let sequence: Vec<_> =
            text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["seq"].clone()).collect();
        assert_eq!(sequence, [1, 2, 3, 4]);
        assert_eq!(sink.guarantee().to_string(), "at-least-once");
    }

    #[tokio::test]
    async fn a_full_disk_behind_it_is_transient_and_a_closed_pipe_needs_a_person() {
        let log = log();
        let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut sink = Stdout::new(Format::Json, || true, Box::new(full));
        sink.open(&log.context(std::path::Path::new("."))).await.unwrap();
        let error = sink.write(&log.chunk(0, 1)).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");

        let mut sink = Stdout::new(Format::Json, || true, Box::new(|| io::pipe().unwrap().1));
        sink.open(&log.context(std::path::Path::new("."))).await.unwrap();
        let error = sink.write(&log.chunk(0, 1)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Permanent);
        assert!(error.to_string().ends_with("rows stay in the spool, Ctrl-C ends it"), "{error}");
    }

    #[tokio::test]
    async fn without_a_format_a_terminal_gets_columns_and_anything_else_json() {
        for (is_terminal, begins) in [((|| true) as fn() -> bool, "trades\nts_event"), (|| false, "{\"table\":")] {
            let (log, output) = (log(), Shared::default());
            let shared = output.clone();
            let mut sink = Stdout::new(Format::Auto, is_terminal, Box::new(move || shared.clone()));
            sink.open(&log.context(std::path::Path::new("."))).await.unwrap();
            sink.write(&log.chunk(0, 4)).await.unwrap();
            let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
            assert!(text.starts_with(begins), "{text}");
        }
    }

    fn log() -> MemoryLog {
        let log = MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>()]);
        for n in 1..=4 {
            let mark = Mark { symbol: "X", position: Position::Sequence(n), ts_event: Timestamp(1) };
            log.emit(mark, &Trade { price: 1.5, ..Trade::default() });
        }
        log
    }
}
