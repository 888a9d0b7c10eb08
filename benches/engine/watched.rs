//! A sink that is looked at from outside: when it was opened, and when rows were committed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tidegate_core::{
    Result,
    catalog::Factory,
    chunk::{Chunk, ColumnView, Part},
    row::Timestamp,
    sink::{Guarantee, Neighbour, Sink, SinkContext, UniqueKey, Weaker, Written},
    spool::SpoolPosition,
};

use crate::clock::{Spent, Stopwatch, cpu_of};

/// What was seen at a store's door.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// From when the sink was opened for the first time.
    pub(crate) watch: Option<Stopwatch>,
    /// What was spent when the store had taken the last rows, and when it had made them durable.
    pub(crate) taken: Option<Spent>,
    pub(crate) stored: Option<Spent>,
    /// What the server's processes had used when the sink was opened.
    pub(crate) server_before: Duration,
    server: Option<u32>,
    pub(crate) rows: usize,
    pub(crate) commits: usize,
    /// Up to where rows are committed.
    pub(crate) position: u64,
    /// By the venue's own time, which is cut to milliseconds: up to one too many. The socket and its queue are in it.
    pub(crate) since_made: Vec<i64>,
    pub(crate) since_received: Vec<i64>,
    has_times: bool,
    /// What is accepted, and not known to be durable.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    to: SpoolPosition,
    rows: usize,
    /// When the rows were made, and when they came.
    times: Vec<(i64, i64)>,
}

/// What several threads look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Seen>>);

impl Shared {
    /// Looks at the time that each row took, too.
    pub(crate) fn with_times() -> Self {
        let shared = Self::default();
        shared.lock().has_times = true;
        shared
    }

    /// Looks at what the processes of a server use, too.
    pub(crate) fn beside(server: u32) -> Self {
        let shared = Self::default();
        shared.lock().server = Some(server);
        shared
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what makes the same sinks, and these are looked at.
    pub(crate) fn watch(&self, factory: Factory<Box<dyn Sink>>) -> Factory<Box<dyn Sink>> {
        let seen = self.clone();
        Arc::new(move || Ok(Box::new(Watched { sink: factory()?, seen: seen.clone() }) as Box<dyn Sink>))
    }
}

impl Seen {
    /// Forgets the times of rows, and returns them.
    pub(crate) fn take_times(&mut self) -> (Vec<i64>, Vec<i64>) {
        (std::mem::take(&mut self.since_made), std::mem::take(&mut self.since_received))
    }

    fn took(&mut self, chunk: &Chunk) {
        let mut waiting = Waiting { to: chunk.to, rows: 0, times: Vec::new() };
        for part in &chunk.tables {
            waiting.rows += part.rows.num_rows();
            // The first two columns of every table are when the venue made a row, and when its frame came.
            let times = |column| ColumnView::of(part.rows.column(column));
            let (ColumnView::Time(made), ColumnView::Time(received)) = (times(0), times(1)) else { continue };
            if self.has_times {
                waiting.times.extend(made.values().iter().copied().zip(received.values().iter().copied()));
            }
        }
        self.waiting.push_back(waiting);
        self.taken = self.watch.as_ref().map(Stopwatch::read);
    }

    fn committed(&mut self, upto: SpoolPosition) {
        let now = Timestamp::now();
        while let Some(part) = self.waiting.pop_front_if(|waiting| waiting.to.offset <= upto.offset) {
            self.rows += part.rows;
            self.since_made.extend(part.times.iter().map(|(made, _)| now.0 - made));
            self.since_received.extend(part.times.iter().map(|(_, received)| now.0 - received));
        }
        self.commits += 1;
        self.position = upto.offset;
        self.stored = self.watch.as_ref().map(Stopwatch::read);
    }
}

struct Watched {
    sink: Box<dyn Sink>,
    seen: Shared,
}

#[async_trait]
impl Sink for Watched {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        let opened = self.sink.open(cx).await?;
        let mut seen = self.seen.lock();
        // What was in doubt is sent again where it is not stored.
        seen.waiting.clear();
        if seen.watch.is_none() {
            seen.server_before = seen.server.map(cpu_of).unwrap_or_default();
            seen.watch = Some(Stopwatch::of_all_threads());
        }
        Ok(opened)
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        let written = self.sink.write(chunk).await?;
        let mut seen = self.seen.lock();
        match &written {
            Written::Committed => {
                seen.took(chunk);
                seen.committed(chunk.to);
            }
            Written::Accepted => seen.took(chunk),
            Written::Refused(_) => {}
        }
        Ok(written)
    }

    async fn applied(&mut self) -> Result<Option<SpoolPosition>> {
        let applied = self.sink.applied().await?;
        if let Some(upto) = applied {
            self.seen.lock().committed(upto);
        }
        Ok(applied)
    }

    async fn check(&mut self) -> Result<()> {
        self.sink.check().await
    }

    async fn close(&mut self) -> Result<()> {
        // Closing would wait for it, and nobody would see when it has come.
        while !self.seen.lock().waiting.is_empty() {
            self.applied().await?;
            tokio::time::sleep(GLANCE).await;
        }
        self.sink.close().await
    }

    fn holds_back(&self) -> u64 {
        self.sink.holds_back()
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        self.sink.neighbours()
    }

    fn newest(&self) -> Option<SpoolPosition> {
        self.sink.newest()
    }

    fn guarantee(&self) -> Guarantee {
        self.sink.guarantee()
    }

    fn weaker(&self) -> Vec<Weaker> {
        self.sink.weaker()
    }

    fn unique_keys(&self) -> Vec<UniqueKey> {
        self.sink.unique_keys()
    }
}

/// As often as the driver asks at first.
const GLANCE: Duration = Duration::from_millis(10);
