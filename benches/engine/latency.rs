//! Socket → committed row, with the simulated venue and a whole pipeline in this process.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tidegate_core::{
    Result,
    chunk::{Chunk, ColumnView, Part},
    config::{Environment, Files, Pipeline, load},
    health::Registry,
    http::HttpClient,
    pipeline::{self, Surroundings},
    row::Timestamp,
    sink::{Guarantee, Sink, SinkContext, Written},
    spool::SpoolPosition,
};
use tidegate_sources::deribit::simulator::{Simulator, SimulatorConfig};
use tokio_util::sync::CancellationToken;

use crate::{effort::Effort, table::Table};

/// Events a second.
const RATE: f64 = 1_000.0;

pub(crate) fn run(effort: Effort, folder: &Path) {
    let mut table = Table::new(&["from", "rows", "a second", "p50", "p99", "max", "commits"]);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let seen = runtime.block_on(measure(effort, folder));
    let Seen { since_made, since_received, commits } = seen;
    for (from, mut nanoseconds) in
        [("made by the venue (whole ms)", since_made), ("taken from the socket", since_received)]
    {
        assert!(!nanoseconds.is_empty(), "nothing was stored");
        nanoseconds.sort_unstable();
        let quantile = |share: f64| nanoseconds[((nanoseconds.len() - 1) as f64 * share) as usize];
        let shown = |nanoseconds: i64| format!("{:.2} ms", nanoseconds as f64 / 1e6);
        table.line([
            from.to_owned(),
            nanoseconds.len().to_string(),
            format!("{:.0}", nanoseconds.len() as f64 / effort.seconds as f64),
            shown(quantile(0.5)),
            shown(quantile(0.99)),
            shown(quantile(1.0)),
            commits.to_string(),
        ]);
    }
    table.print("4. → committed in SQLite, at 1,000 events a second, linger 0: fsync of the log, then of the store");
}

/// What was seen at the store's door.
#[derive(Debug, Default)]
struct Seen {
    /// By the venue's own time, which is cut to milliseconds: up to one too many. The socket and its queue are in it.
    since_made: Vec<i64>,
    since_received: Vec<i64>,
    commits: usize,
}

/// A sink that looks at the clock when another one has committed.
struct Watched {
    sink: Box<dyn Sink>,
    seen: Arc<Mutex<Seen>>,
}

async fn measure(effort: Effort, folder: &Path) -> Seen {
    let folder = tempfile::tempdir_in(folder).expect("a folder for files");
    let config = SimulatorConfig { rate: RATE, ..SimulatorConfig::default() };
    let venue = Simulator::start(config).await.expect("a port is free");
    let seen = Arc::new(Mutex::new(Seen::default()));
    let stop = CancellationToken::new();
    let around = Surroundings {
        data_dir: folder.path().join("data"),
        registry: Registry::new(),
        stop: stop.clone(),
        drain: Duration::from_secs(10),
        shown_at: String::new(),
        strays: Vec::new(),
        http: HttpClient::new(),
    };
    let running = tokio::spawn(pipeline::run(watched_pipeline(&venue, folder.path(), &seen), around));
    // The first second is the beginning of everything: tables are made, baselines are asked for.
    tokio::time::sleep(Duration::from_secs(1)).await;
    *lock(&seen) = Seen::default();
    tokio::time::sleep(Duration::from_secs(effort.seconds)).await;
    let measured = std::mem::take(&mut *lock(&seen));
    stop.cancel();
    let ended = running.await.expect("no panic").expect("the pipeline runs");
    assert_eq!(ended.sinks.iter().map(|sink| sink.rows_left).sum::<u64>(), 0, "rows stay behind");
    measured
}

fn watched_pipeline(venue: &Simulator, folder: &Path, seen: &Arc<Mutex<Seen>>) -> Pipeline {
    let (ws, http, history) = (venue.ws_url(), venue.http_url(), venue.history_url());
    let path = folder.join("eth.sqlite");
    let text = format!(
        "[pipeline]\nname = \"eth\"\n[source.deribit]\n\
         endpoint = {{ ws = \"{ws}\", http = \"{http}\", history = \"{history}\" }}\n\
         channels = [\"trades\", \"tickers\"]\n\
         instruments = [{{ currency = \"ETH\", kind = \"option\", top = 60 }}]\n\
         [sink.sqlite]\npath = \"{}\"\nbatch = {{ linger = \"0s\" }}\n",
        path.display()
    );
    let catalog = tidegate::built_in();
    let mut loaded = load(&catalog, Files::of_text("bench.toml", &text), &Environment::new([("", ""); 0]));
    assert_eq!(loaded.report.errors(), 0, "the pipeline's file is sound");
    let mut pipeline = loaded.pipelines.remove(0);
    for stage in &mut pipeline.sinks {
        let (factory, seen) = (stage.factory.clone(), seen.clone());
        stage.factory = Arc::new(move || {
            let sink = factory()?;
            Ok(Box::new(Watched { sink, seen: seen.clone() }) as Box<dyn Sink>)
        });
    }
    pipeline
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Sink for Watched {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        self.sink.open(cx).await
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        let written = self.sink.write(chunk).await?;
        let now = Timestamp::now();
        if matches!(written, Written::Committed) {
            let mut seen = lock(&self.seen);
            seen.commits += 1;
            for part in &chunk.tables {
                // The first two columns of every table are when the venue made a row, and when its frame came.
                let times = |column| ColumnView::of(part.rows.column(column));
                let (ColumnView::Time(made), ColumnView::Time(received)) = (times(0), times(1)) else { continue };
                seen.since_made.extend(made.values().iter().map(|made| now.0 - made));
                seen.since_received.extend(received.values().iter().map(|received| now.0 - received));
            }
        }
        Ok(written)
    }

    async fn applied(&mut self) -> Result<Option<SpoolPosition>> {
        self.sink.applied().await
    }

    async fn check(&mut self) -> Result<()> {
        self.sink.check().await
    }

    async fn close(&mut self) -> Result<()> {
        self.sink.close().await
    }

    fn guarantee(&self) -> Guarantee {
        self.sink.guarantee()
    }
}
