//! `demo`: a simulated venue with faults, a pipeline into SQLite, and at the end the store beside the venue's own list.
//!
//! ```text
//! parent: simulator ──WebSocket, HTTP──→ child: `tidegate run demo.toml` ──→ demo.sqlite
//!   │ screen ←──reports, one JSON line each──┘                                  │
//!   └─ at the end: sent.jsonl (what the venue made, over all runs) beside ──────┘
//! ```
//!
//! Where to look: `stage` (the run: children, kills, the end), `folder` (files and locks), `child`, `report`, `tally` (what
//! children say), `picture` and `screen`, `sink` (which store, by `--sink`), `store`, `stored` and `asked` (what it holds),
//! `summary`.

mod asked;
mod child;
mod folder;
mod kills;
mod picture;
mod report;
mod screen;
mod sink;
mod stage;
mod store;
mod stored;
mod summary;
mod tally;

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use tidegate_core::catalog::Catalog;
use tidegate_sources::deribit::simulator::{
    Condition, Fault, Faults, Simulator, SimulatorConfig, comparison::Comparison,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use self::{
    asked::Asked,
    folder::Folder,
    screen::{Look, Screen},
    sink::Sink,
    stage::{Ending, Set, Stage},
    store::Store,
    summary::Around,
};
use super::{DemoArgs, Failure, Outcome, simulate};

/// Where the demo runs unless it is told otherwise.
pub(super) const DEFAULT_DIR: &str = "tidegate-demo";

pub(super) fn run(catalog: &Catalog, args: &DemoArgs) -> Outcome {
    simulate::check_rate(args.rate)?;
    // Not by clap, which would quote all of it.
    let sink = args.sink.as_deref().map_or_else(|| Ok(Sink::default()), Sink::read);
    let sink = sink.map_err(|why| Failure::usage(format!("--sink: {why}")))?;
    let runtime = super::run::runtime()?;
    let outcome = runtime.block_on(demo(catalog, args, sink));
    // What still reads a pipe of a killed child is not waited for.
    runtime.shutdown_background();
    outcome
}

async fn demo(catalog: &Catalog, args: &DemoArgs, sink: Sink) -> Outcome {
    let began = Instant::now();
    let mut signals = Signals::new()?;
    let mut folder = tokio::select! {
        folder = Folder::take(&args.dir, args.seed) => folder?,
        () = signals.stop() => return Err(Failure::failed("ended before it began")),
    };
    folder.look_at(&sink)?;
    let simulator = start(args, &folder).await?;
    let text = folder.write_pipeline(&simulate::endpoint(&simulator), &sink)?;
    let store = if sink.is_file() {
        Store::file(folder.database(&sink))
    } else {
        let asked = tokio::select! {
            asked = Asked::dial(catalog, &folder, &sink, &text) => asked?,
            () = signals.stop() => return Err(Failure::failed("ended before it began")),
        };
        Store::asked(asked, sink.shown.clone())
    };
    folder.remember(&sink)?;
    let title = picture::title(&args.dir, &sink, folder.seed());
    let screen = Screen::new(io::stdout(), Look::of_stdout(), title);
    let mut stage = Stage::begin(Set { folder, simulator, sink, store, screen }, args, began).await?;
    let ending = stage.run(&mut signals).await?;
    let outcome = tokio::select! {
        outcome = finish(&mut stage, ending) => outcome?,
        () = signals.stop() => {
            return Err(Failure::failed("ended at once by a second signal: nothing was compared; start the demo again"));
        }
    };
    stage.simulator.stop().await.map_err(|error| Failure::failed(format!("the simulator had to stop: {error}")))?;
    Ok(outcome)
}

async fn start(args: &DemoArgs, folder: &Folder) -> Result<Simulator, Failure> {
    let config = SimulatorConfig {
        seed: folder.seed(),
        rate: args.rate,
        sent: Some(folder.sent()),
        faults: faults(),
        // As many as the pipeline follows: a ranking anew would leave some, and their last gaps would stay open.
        instruments: 50,
        paused: true,
        ..SimulatorConfig::default()
    };
    let sent = folder.sent();
    let started = Simulator::start(config).await;
    started.map_err(|error| Failure::failed(format!("cannot start the simulator with `{}`: {error}", sent.display())))
}

/// Comes to the end of the run, and shows what it came to.
async fn finish(stage: &mut Stage, ending: Ending) -> Outcome {
    let done = stage.end(ending).await?;
    let Stage { folder, simulator, sink, store, .. } = stage;
    let mut out = io::stdout();
    // Whoever read it may have gone, as `head` does; the exit code says what the text would have said.
    let mut put = |text: String| _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Some(failure) = &done.failure {
        put(summary::failed(failure, folder.root(), &folder.log_path()));
        return Ok(ExitCode::FAILURE);
    }
    let began = Instant::now();
    let stored = store.finish().await?;
    let comparison = simulator.read(|oracle| Comparison::of(oracle, &stored, folder.history(), done.ended_ms));
    let around = Around {
        root: folder.root(),
        sink,
        database: &folder.database(sink),
        gaps_open: done.gaps_open,
        seed: folder.seed(),
        kills: done.kills,
        compared_in: began.elapsed(),
        has_sqlite3: is_on_path("sqlite3"),
    };
    put(summary::summary(&comparison, &around));
    Ok(if comparison.is_exact() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything that goes wrong in an ordinary month, so often that half a minute shows most of it. What lasts is short.
fn faults() -> Faults {
    let lasting = |condition, milliseconds| Fault::Lasting(condition, Duration::from_millis(milliseconds));
    Faults::default()
        // Where each of 50 instruments begins is asked for first, 15 of them a second.
        .after(Duration::from_secs(4))
        .with(Fault::Cut, 8.0)
        .with(Fault::Torn, 3.0)
        .with(Fault::Close { code: 1001 }, 3.0)
        .with(Fault::HalfOpen, 4.0)
        .with(Fault::Malformed, 8.0)
        .with(Fault::Truncated, 4.0)
        .with(Fault::Binary, 2.0)
        .with(Fault::Duplicate, 20.0)
        .with(Fault::Reorder, 20.0)
        .with(Fault::Skip, 20.0)
        .with(lasting(Condition::Slow { by: Duration::from_millis(200) }, 1_000), 4.0)
        .with(lasting(Condition::RestLag { by: Duration::from_millis(300) }, 2_000), 4.0)
        .with(lasting(Condition::Http5xx, 700), 6.0)
        .with(lasting(Condition::RestDown, 700), 3.0)
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The signals that ask for the end.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
