//! Socket → committed row, with the simulated venue and a whole pipeline in this process.

use std::{path::Path, time::Duration};

use tidegate_core::{
    config::{Environment, Files, Pipeline, load},
    health::Registry,
    http::HttpClient,
    pipeline::{self, Surroundings},
};
use tidegate_sources::deribit::simulator::{Simulator, SimulatorConfig};
use tokio_util::sync::CancellationToken;

use crate::{
    effort::Effort,
    table::{Table, milliseconds, quantiles},
    watched::Shared,
};

/// Events a second.
const RATE: f64 = 1_000.0;

pub(crate) fn run(effort: Effort, folder: &Path) {
    let mut table = Table::new(&["from", "rows", "a second", "p50", "p99", "max", "commits"]);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (since_made, since_received, commits) = runtime.block_on(measure(effort, folder));
    for (from, mut nanoseconds) in
        [("made by the venue (whole ms)", since_made), ("taken from the socket", since_received)]
    {
        let [p50, p99, max] = quantiles(&mut nanoseconds).map(milliseconds);
        let rows = nanoseconds.len();
        let rate = format!("{:.0}", rows as f64 / effort.seconds as f64);
        table.line([from.to_owned(), rows.to_string(), rate, p50, p99, max, commits.to_string()]);
    }
    table.print("4. → committed in SQLite, at 1,000 events a second, linger 0: fsync of the log, then of the store");
}

/// Returns how many nanoseconds each row took, from when it was made and from when it came, and the number of commits.
async fn measure(effort: Effort, folder: &Path) -> (Vec<i64>, Vec<i64>, usize) {
    let folder = tempfile::tempdir_in(folder).expect("a folder for files");
    let config = SimulatorConfig { rate: RATE, ..SimulatorConfig::default() };
    let venue = Simulator::start(config).await.expect("a port is free");
    let seen = Shared::with_times();
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
    drop(seen.lock().take_times());
    let before = seen.lock().commits;
    tokio::time::sleep(Duration::from_secs(effort.seconds)).await;
    let (since_made, since_received) = seen.lock().take_times();
    let commits = seen.lock().commits - before;
    stop.cancel();
    let ended = running.await.expect("no panic").expect("the pipeline runs");
    assert_eq!(ended.sinks.iter().map(|sink| sink.rows_left).sum::<u64>(), 0, "rows stay behind");
    (since_made, since_received, commits)
}

fn watched_pipeline(venue: &Simulator, folder: &Path, seen: &Shared) -> Pipeline {
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
        stage.factory = seen.watch(stage.factory.clone());
    }
    pipeline
}
