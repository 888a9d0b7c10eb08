//! One process: its pipelines, its HTTP, its signals. Pipelines are isolated from each other: what becomes of one is a
//! line in the report, never the end of another.

mod descriptors;
mod http;
mod json_lines;
mod listener;
pub(crate) mod logging;
mod outlet;
mod token;

use std::{io::Write, path::Path, sync::Arc, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tidegate_core::{
    Error, Kind, Result,
    config::{Host, Pipeline, Refused},
    health::{Detail, Registry, Report, StageId},
    http::HttpClient,
    metrics, pipeline,
    spool::disk::{Disk, DiskLock, RealDisk},
};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;
use toml::de::DeTable;
use tracing::{error, info, warn};

/// What is to run.
pub(crate) struct Plan {
    pub(crate) host: Host,
    pub(crate) pipelines: Vec<Pipeline>,
    /// The names of all pipelines in the files, those that are left out too.
    pub(crate) known: Vec<String>,
    pub(crate) refused: Vec<Refused>,
    /// How long the spools may be sent on after the first signal.
    pub(crate) drain: Duration,
    /// How often a parent process wants the report on standard output.
    pub(crate) supervised: Option<Duration>,
}

/// Runs pipelines until they are told to stop, and returns the exit code.
///
/// # Errors
///
/// `Config` when the address is taken or the token cannot be read, before anything was started.
pub(crate) async fn run(plan: Plan) -> Result<u8> {
    descriptors::tell(descriptors::raise(), &plan.pipelines);
    let token = plan.host.bearer_token()?;
    let metrics = install_metrics()?;
    let registry = Registry::new();
    let (stop, end) = (CancellationToken::new(), CancellationToken::new());
    let plan = Arc::new(plan);
    // Before anything else that the other process has too.
    let (_lock, strays) = look_around(&plan).await?;
    let server = http::Server::bind(plan.host.listen.0, token, registry.clone(), metrics.clone()).await?;
    let address = server.address()?;
    let mut signals = Signals::new()?;

    let services = services(&registry, server, &end);
    plan.refused.iter().for_each(|refused| show(refused, &registry));
    let mut running = JoinSet::new();
    let client = HttpClient::new();
    for pipeline in plan.pipelines.iter().cloned() {
        let around = pipeline::Surroundings {
            data_dir: plan.host.data_dir.clone(),
            registry: registry.clone(),
            stop: stop.clone(),
            drain: plan.drain,
            shown_at: format!("http://{address}"),
            strays: strays.clone(),
            http: client.clone(),
        };
        running.spawn(pipeline::run(pipeline, around));
    }
    let orphaned = orphaned(plan.supervised.is_some());
    tokio::pin!(orphaned);
    let mut reports = Reports::new(&plan.host, &registry, metrics, plan.supervised);
    let mut failed = !plan.refused.is_empty();
    // A pipeline that has failed ends no process: what a person has to look at stays in /health until they come.
    let mut is_needed = false;
    let mut told_at = None;
    let is_human = logging::is_human(&plan.host.log);
    let code = loop {
        if running.is_empty() && (!is_needed || stop.is_cancelled()) {
            break u8::from(failed);
        }
        tokio::select! {
            Some(outcome) = running.join_next() => match note_end(outcome) {
                End::Well => {}
                End::Badly => failed = true,
                End::Failed => (failed, is_needed) = (true, true),
            },
            signal = signals.next() => match signal {
                // Whoever reads it may be gone, which is no reason to end.
                Told::Report => tell_report(&registry, is_human),
                // One Ctrl-C may arrive twice: from the terminal, and from a parent that passes it on.
                Told::Stop if told_at.is_some_and(|at: Instant| at.elapsed() < ONE_SIGNAL) => {}
                Told::Stop if stop.is_cancelled() => {
                    error!("stopped at once by a second signal: what is in the spools is sent at the next start");
                    break 1;
                }
                Told::Stop => {
                    told_at = Some(Instant::now());
                    info!("stopping the connections are closed; the spools are sent on for up to {}; Ctrl-C again ends at once", shown(plan.drain));
                    stop.cancel();
                }
            },
            () = reports.due() => {}
            () = &mut orphaned, if !stop.is_cancelled() => stop.cancel(),
        }
    };
    reports.last();
    end.cancel();
    // Somebody may be in the middle of a request, and stay there.
    drop(tokio::time::timeout(LAST_ANSWERS, services.join_all()).await);
    Ok(code)
}

/// Takes the data directory, looks whether another process has a spool, and returns the spools that nobody names. What else may
/// be wrong with a spool is its pipeline's own; so is a disk that hangs, for which nobody else waits.
async fn look_around(plan: &Arc<Plan>) -> Result<(Option<Box<dyn DiskLock>>, Vec<String>)> {
    let seen = Arc::clone(plan);
    let look = tokio::task::spawn_blocking(move || {
        // No pipeline has this name.
        let own = RealDisk::create(seen.host.data_dir.join(".host"));
        let lock = match own.map(|own| own.lock()) {
            Ok(Err(error)) if error.kind() == Kind::Config => {
                return Err(Error::config(format!("`data_dir` is another process's: {error}")));
            }
            Ok(Ok(lock)) => Some(lock),
            // A disk that is full or for reading only: the pipelines say so, and wait.
            Ok(Err(_)) | Err(_) => None,
        };
        for pipeline in &seen.pipelines {
            let spool = pipeline::Folder::of(&seen.host.data_dir, pipeline).spool();
            RealDisk::refusal(spool).map_or(Ok(()), Err)?;
        }
        Ok((lock, strays(&seen)))
    });
    let Ok(looked) = tokio::time::timeout(LONGEST_LOOK, look).await else {
        warn!("slow the disk of `{}` does not answer; what can start is started", plan.host.data_dir.display());
        return Ok((None, Vec::new()));
    };
    looked.map_err(|error| Error::permanent("looking at the spools has panicked").because(error))?
}

/// A file that could not be read has a stage, too.
fn show(refused: &Refused, registry: &Registry) {
    let health = registry.stage(StageId::host(&refused.file.display().to_string()));
    health.failed(format!("not started: {}", refused.why));
}

/// Prints the report: for a person, or as one line among others of JSON.
fn tell_report(registry: &Registry, is_human: bool) {
    let report = json(&registry.report());
    let text = if is_human { format!("{report:#}\n") } else { format!("{report}\n") };
    // Whoever reads it may have stopped to.
    drop(tokio::task::spawn_blocking(move || std::io::stderr().write_all(text.as_bytes())));
}

/// Starts what the process itself does: its heartbeat and its HTTP.
fn services(registry: &Registry, server: http::Server, end: &CancellationToken) -> JoinSet<()> {
    let mut services = JoinSet::new();
    let (heartbeat, beat_until, serve_until) = (registry.clone(), end.clone(), end.clone());
    services.spawn(async move { heartbeat.heartbeat(beat_until).await });
    services.spawn(async move {
        if let Err(error) = server.serve(serve_until).await {
            error!("{}", error.chain());
        }
    });
    services
}

/// Returns the pipelines whose spools lie in the data directory, which no file names and nobody runs; and says so where one
/// begins anew.
fn strays(plan: &Plan) -> Vec<String> {
    let data_dir = &plan.host.data_dir;
    let folders = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    let names = folders.filter_map(|folder| folder.file_name().into_string().ok());
    let is_left = |name: &String| {
        let spool = pipeline::Folder::new(data_dir, name).spool();
        spool.is_dir() && RealDisk::refusal(&spool).is_none()
    };
    let unknown: Vec<String> = names.filter(|name| !plan.known.contains(name)).filter(is_left).collect();
    if unknown.is_empty() {
        return unknown;
    }
    let beside = files_beside(plan);
    let strays: Vec<String> =
        unknown.into_iter().filter(|name| !beside.iter().any(|text| is_named_in(text, name))).collect();
    tell_strays(plan, &strays);
    strays
}

/// Says, where a pipeline begins with a new spool, which spools no pipeline of the files has: one that was given another
/// name leaves its spool behind, with what waits in it.
fn tell_strays(plan: &Plan, strays: &[String]) {
    let data_dir = &plan.host.data_dir;
    let is_new = |new: &&Pipeline| !new.is_replay() && !pipeline::Folder::of(data_dir, new).spool().exists();
    let Some(pipeline) = plan.pipelines.iter().find(is_new) else { return };
    let new = &pipeline.name;
    for stray in strays {
        let spool = pipeline::Folder::new(data_dir, stray).spool();
        let shown = spool.display();
        let rename = pipeline.commands().rename_spool(stray);
        warn!(
            "stray `{shown}` is the spool of a pipeline `{stray}`, which none of the files names; `{new}` begins anew. Was \
             it renamed? Then give it its name back, or stop, and run {rename}: what may wait in there is sent"
        );
    }
}

/// Returns the texts of the files that may name a pipeline that is not to run: one that was refused, or lies beside them.
fn files_beside(plan: &Plan) -> Vec<String> {
    let given = plan.pipelines.iter().map(|pipeline| &pipeline.file);
    let given = given.chain(plan.refused.iter().map(|refused| &refused.file));
    let folders =
        given.filter_map(|file| file.parent()).chain([plan.host.data_dir.parent().unwrap_or_else(|| Path::new(""))]);
    let here = |folder: &Path| if folder.as_os_str().is_empty() { Path::new(".") } else { folder }.to_owned();
    let folders: std::collections::BTreeSet<_> = folders.map(here).collect();
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "toml"));
    files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect()
}

/// Returns whether a file is that of a pipeline of this name. Of one that is no TOML nobody knows more than that the name
/// stands in it; and one whose name comes from a variable may be.
pub(crate) fn is_named_in(text: &str, pipeline: &str) -> bool {
    let Ok(file) = DeTable::parse(text) else { return text.contains(pipeline) };
    let head = file.get_ref().get("pipeline").and_then(|head| head.get_ref().as_table());
    let name = head.and_then(|head| head.get("name")?.get_ref().as_str());
    name.is_some_and(|name| name == pipeline || name.contains("${"))
}

/// How a pipeline ended.
enum End {
    /// It stopped, or had nothing more to do.
    Well,
    /// It stopped, and a stage of it needs a person.
    Badly,
    /// It cannot go on.
    Failed,
}

/// Says how a pipeline ended, and returns it.
fn note_end(outcome: std::result::Result<Result<pipeline::Ended>, tokio::task::JoinError>) -> End {
    match outcome {
        Ok(Ok(ended)) => {
            info!(pipeline = ended.pipeline, "{ended}");
            if ended.is_well() { End::Well } else { End::Badly }
        }
        // Its spool's line says that it has failed, and why.
        Ok(Err(_)) => End::Failed,
        // The pipeline itself catches what its stages do; this is a fault of the engine's own.
        Err(error) => {
            error!("failed a pipeline has ended by a fault of the program: {error}");
            End::Failed
        }
    }
}

fn install_metrics() -> Result<PrometheusHandle> {
    let unusable = |error| Error::permanent("the metrics cannot be set up").because(error);
    let builder = PrometheusBuilder::new();
    let suffix = Matcher::Suffix("_seconds".to_owned());
    let builder = builder.set_buckets_for_metric(suffix, metrics::SECONDS_BUCKETS).map_err(unusable)?;
    let handle = builder.install_recorder().map_err(unusable)?;
    metrics::describe_all();
    Ok(handle)
}

fn json(report: &Report) -> serde_json::Value {
    serde_json::to_value(report).unwrap_or_default()
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    user: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| Error::permanent("cannot listen for signals").because(error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            user: listen(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.terminate.recv() => Told::Stop,
            _ = self.user.recv() => Told::Report,
        }
    }
}

/// What a signal asks for.
enum Told {
    Stop,
    Report,
}

/// What is said from time to time.
struct Reports {
    registry: Registry,
    metrics: PrometheusHandle,
    stats: Option<tokio::time::Interval>,
    report: Option<tokio::time::Interval>,
    parent: Option<tokio::time::Interval>,
    upkeep: tokio::time::Interval,
    log: logging::Watch,
    began: Instant,
    received: std::collections::BTreeMap<String, (Instant, u64)>,
}

impl Reports {
    fn new(host: &Host, registry: &Registry, metrics: PrometheusHandle, parent: Option<Duration>) -> Self {
        Self {
            registry: registry.clone(),
            metrics,
            stats: every(host.log.stats.0),
            report: every(host.log.report.0),
            parent: parent.and_then(every),
            upkeep: every(UPKEEP).expect("a pause that is not 0"),
            log: logging::Watch::new(registry),
            began: Instant::now(),
            received: std::collections::BTreeMap::new(),
        }
    }

    /// Waits until something is due, and says it.
    async fn due(&mut self) {
        tokio::select! {
            () = tick(&mut self.stats) => self.tell_stats(),
            () = tick(&mut self.report) => {
                let report = json(&self.registry.report()).to_string();
                info!(target: json_lines::OF_HOST, report, "report");
            }
            () = tick(&mut self.parent) => self.tell_parent(),
            _ = self.upkeep.tick() => {
                self.metrics.run_upkeep();
                self.log.look();
            }
        }
    }

    /// Gives a parent process the last word.
    fn last(&self) {
        if self.parent.is_some() {
            self.tell_parent();
        }
    }

    /// Prints the report as a line. A parent that is gone is noticed by the end of standard input: the pipelines are
    /// stopped then, which a panic over its broken pipe would not do.
    fn tell_parent(&self) {
        let line = format!("{}\n", json(&self.registry.report()));
        let mut out = std::io::stdout().lock();
        drop(out.write_all(line.as_bytes()).and_then(|()| out.flush()));
    }

    fn tell_stats(&mut self) {
        let report = self.registry.report();
        let now = Instant::now();
        for (name, figures) in figures(&report) {
            let (since, before) =
                self.received.insert(name.clone(), (now, figures.received)).unwrap_or((self.began, 0));
            let seconds = now.duration_since(since).as_secs_f64();
            let rate = if seconds > 0.0 { (figures.received - before) as f64 / seconds } else { 0.0 };
            let Figures { received, backfilled, committed, accepted, gaps_open, lost, dropped, spool, spool_limit } =
                figures;
            let filled = if spool_limit > 0 { spool as f64 / spool_limit as f64 * 100.0 } else { 0.0 };
            info!(
                pipeline = name,
                received,
                per_s = rate.round(),
                backfilled,
                committed,
                // Waits for the end of its Parquet file; other sinks have none.
                accepted = (accepted > 0).then_some(accepted),
                spool_bytes = spool,
                spool = format!("{filled:.1}%"),
                gaps_open,
                lost,
                dropped,
                "stats {name}"
            );
        }
    }
}

#[derive(Default)]
struct Figures {
    received: u64,
    backfilled: u64,
    committed: u64,
    accepted: u64,
    gaps_open: u64,
    /// Gaps that nobody can fill.
    lost: u64,
    dropped: u64,
    spool: u64,
    spool_limit: u64,
}

/// Adds up the stages of each pipeline.
fn figures(report: &Report) -> std::collections::BTreeMap<String, Figures> {
    let mut pipelines: std::collections::BTreeMap<String, Figures> = std::collections::BTreeMap::new();
    for (name, check) in &report.checks {
        // A file that was refused is shown as a stage of the host, and is no pipeline.
        let (Some((pipeline, _)), false) = (name.rsplit_once('/'), matches!(check.detail, Detail::Host {})) else {
            continue;
        };
        let figures = pipelines.entry(pipeline.to_owned()).or_default();
        match &check.detail {
            Detail::Source(source) => {
                figures.received += source.rows_received;
                figures.backfilled += source.rows_backfilled;
                figures.gaps_open += source.gaps.open;
                figures.lost += source.gaps.lost;
            }
            Detail::Spool(spool) => {
                figures.spool = spool.bytes;
                figures.spool_limit = spool.max_bytes;
                figures.dropped = spool.rows_dropped;
            }
            Detail::Sink(sink) => {
                figures.committed += sink.rows_committed;
                figures.accepted += sink.rows_accepted;
            }
            Detail::Ledger(_) | Detail::DeadLetters(_) | Detail::Host {} => {}
        }
    }
    pipelines
}

/// Returns a duration as the command line takes it.
fn shown(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(duration)
}

/// Waits until standard input closes: the parent process is gone. Never, where there is no parent to watch.
async fn orphaned(is_watched: bool) {
    if !is_watched {
        return std::future::pending().await;
    }
    let mut input = tokio::io::stdin();
    let mut bytes = [0; 64];
    while !matches!(input.read(&mut bytes).await, Ok(0) | Err(_)) {}
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => _ = interval.tick().await,
        None => std::future::pending().await,
    }
}

fn every(pause: Duration) -> Option<tokio::time::Interval> {
    if pause.is_zero() {
        return None;
    }
    let mut interval = interval_at(Instant::now() + pause, pause);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(interval)
}

/// Two signals within this time are one: nobody presses a key twice so fast, but `timeout` and some shells tell the process
/// and its group.
const ONE_SIGNAL: Duration = Duration::from_millis(100);
/// How long a look at what is on the disk holds up the start.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// How long requests that are being answered hold up the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
const UPKEEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_pipeline_and_no_other() {
        for file in
            ["[pipeline]\nname = \"eth\"", "pipeline.name = 'eth'", "[pipeline]\nname = \"${NAME}\"", "[pipeline\neth"]
        {
            assert!(is_named_in(file, "eth"), "{file}");
        }
        for file in ["[pipeline]\nname = \"ether\" # \"eth\"", "[sink.x]\npath = \"eth\"", "name = \"eth\""] {
            assert!(!is_named_in(file, "eth"), "{file}");
        }
    }
}
