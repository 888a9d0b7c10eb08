//! The real program beside simulated venues: its start, its memory under load, a hundred idle pipelines, its size.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tidegate_sources::deribit::simulator::{Simulator, SimulatorConfig};
use tokio::runtime::Runtime;

use crate::{effort::Effort, table::Table};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate");

/// Idle pipelines, and how many of them one venue carries: it allows 32 connections.
const IDLE: usize = 100;
const FOR_EACH_VENUE: usize = 10;

/// Events a second that memory is watched at.
const LOAD: f64 = 10_000.0;

/// How long the program may take to say something before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// From the call of the program to the confirmation of every channel.
pub(crate) fn start(effort: Effort, folder: &Path) {
    let runtime = runtime();
    let venue = venue(&runtime, SimulatorConfig::default());
    let mut took: Vec<Duration> = (0..effort.rounds * 3)
        .map(|_| {
            let folder = Folder::new(folder);
            folder.pipeline("eth", &venue, "60");
            let mut program = Program::start(&folder);
            program.until("subscribed eth", 1);
            program.began.elapsed()
        })
        .collect();
    took.sort_unstable();
    let shown = |duration: Duration| format!("{:.0} ms", duration.as_secs_f64() * 1e3);
    let mut table = Table::new(&["starts", "fastest", "median", "slowest"]);
    let (fastest, slowest) = (took[0], took[took.len() - 1]);
    table.line([took.len().to_string(), shown(fastest), shown(took[took.len() / 2]), shown(slowest)]);
    table.print("5. the program is called → all of 121 channels are confirmed, a new spool, a venue on this machine");
}

/// Whether memory grows under load.
pub(crate) fn soak(effort: Effort, folder: &Path) {
    let runtime = runtime();
    let venue = venue(&runtime, SimulatorConfig { rate: LOAD, instruments: 200, ..SimulatorConfig::default() });
    let folder = Folder::new(folder);
    folder.pipeline("eth", &venue, "200");
    let mut program = Program::start(&folder);
    program.until("subscribed eth", 1);
    let began = Instant::now();
    let length = Duration::from_secs(effort.soak_seconds);
    let mut table = Table::new(&["after", "resident", "peak", "rows committed"]);
    for part in 1..=SOAK_PARTS {
        wait(&runtime, (began + length * part / SOAK_PARTS).saturating_duration_since(Instant::now()));
        table.line([
            format!("{:.0} s", began.elapsed().as_secs_f64()),
            mebibytes(program.status("VmRSS")),
            mebibytes(program.status("VmHWM")),
            format!("{:.0}", program.metric("tidegate_sink_committed_rows_total")),
        ]);
    }
    table.print("6. memory at 10,000 events a second (trades and tickers of 200 options → spool → SQLite)");
}

/// What a hundred pipelines cost that have nothing to do.
pub(crate) fn idle(effort: Effort, folder: &Path) {
    let runtime = runtime();
    let mut table =
        Table::new(&["pipelines", "threads", "resident", "processor", "spool fsyncs/s", "commits/s", "disk each"]);
    for pipelines in [1, IDLE] {
        let folder = Folder::new(folder);
        let venues: Vec<Simulator> = (0..pipelines.div_ceil(FOR_EACH_VENUE))
            .map(|_| venue(&runtime, SimulatorConfig { paused: true, ..SimulatorConfig::default() }))
            .collect();
        for number in 0..pipelines {
            folder.pipeline(&format!("p{number}"), &venues[number / FOR_EACH_VENUE], "5");
        }
        let mut program = Program::start(&folder);
        program.until("subscribed p", pipelines);
        // What a start does is over: baselines are answered, first rows stored.
        wait(&runtime, Duration::from_secs(effort.seconds.min(15)));
        let (cpu, fsyncs, commits) = (program.cpu(), program.metric(FSYNCS), program.metric(COMMITS));
        let watched = Duration::from_secs(effort.seconds.max(2));
        wait(&runtime, watched);
        let a_second = |before: f64, after: f64| format!("{:.1}", (after - before) / watched.as_secs_f64());
        let used = (program.cpu() - cpu).as_secs_f64() / watched.as_secs_f64();
        table.line([
            pipelines.to_string(),
            program.status("Threads").to_string(),
            mebibytes(program.status("VmRSS")),
            format!("{:.1} % of a core", used * 100.0),
            a_second(fsyncs, program.metric(FSYNCS)),
            a_second(commits, program.metric(COMMITS)),
            format!("{:.2} MiB", size_of(&folder.path().join("data")) as f64 / pipelines as f64 / f64::from(1 << 20)),
        ]);
    }
    table.print("7. pipelines on a venue that makes nothing");
}

/// How large the program is.
pub(crate) fn size() {
    let bytes = fs::metadata(PROGRAM).map_or(0, |found| found.len());
    println!("\n8. the program: {:.1} MiB ({PROGRAM})", bytes as f64 / f64::from(1 << 20));
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

pub(crate) fn venue(runtime: &Runtime, config: SimulatorConfig) -> Simulator {
    runtime.block_on(Simulator::start(config)).expect("a port is free")
}

/// Lets the venues and the program go on for a while.
pub(crate) fn wait(runtime: &Runtime, pause: Duration) {
    runtime.block_on(async { tokio::time::sleep(pause).await });
}

/// A folder with pipelines.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new(parent: &Path) -> Self {
        let folder = Self(tempfile::tempdir_in(parent).expect("a folder for files"));
        folder.write(
            "tidegate.toml",
            "listen = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\nstats = \"0s\"\nreport = \"0s\"\n",
        );
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn pipeline(&self, name: &str, venue: &Simulator, top: &str) {
        self.pipeline_with(name, venue, top, "");
    }

    /// Writes a pipeline that ends with `more`, which goes on with the sink's table.
    pub(crate) fn pipeline_with(&self, name: &str, venue: &Simulator, top: &str, more: &str) {
        self.pipeline_from(name, venue, top, "", more);
    }

    /// Writes one whose source has other options, too.
    pub(crate) fn pipeline_from(&self, name: &str, venue: &Simulator, top: &str, source: &str, more: &str) {
        let (ws, http, history) = (venue.ws_url(), venue.http_url(), venue.history_url());
        let text = format!(
            "[pipeline]\nname = \"{name}\"\n[source.deribit]\n\
             endpoint = {{ ws = \"{ws}\", http = \"{http}\", history = \"{history}\" }}\n\
             channels = [\"trades\", \"tickers\"]\n\
             instruments = [{{ currency = \"ETH\", kind = \"option\", top = {top} }}]\n{source}\
             [sink.sqlite]\npath = \"{name}.sqlite\"\n{more}",
        );
        self.write(&format!("{name}.toml"), &text);
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("room for a file");
    }
}

/// A running program, killed at the end.
pub(crate) struct Program {
    child: Child,
    began: Instant,
    lines: Receiver<String>,
    address: Option<String>,
}

impl Program {
    pub(crate) fn start(folder: &Folder) -> Self {
        let began = Instant::now();
        let mut command = Command::new(PROGRAM);
        command.args(["run", "."]).current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.env_remove("LOG_LEVEL").stderr(Stdio::piped()).spawn().expect("the program is there");
        let log = BufReader::new(child.stderr.take().expect("it was asked for"));
        let (tell, lines) = channel();
        // Ends with the program.
        thread::spawn(move || log.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
        Self { child, began, lines, address: None }
    }

    /// Waits until so many lines hold these words.
    pub(crate) fn until(&mut self, words: &str, times: usize) {
        let mut seen = 0;
        while seen < times {
            let line = self.lines.recv_timeout(PATIENCE).expect("the program says it in time");
            seen += usize::from(line.contains(words));
            if self.address.is_none()
                && let Some((_, rest)) = line.split_once("http://")
            {
                self.address = rest.split(['"', ' ']).next().map(str::to_owned);
            }
        }
    }

    /// Returns a number of `/proc/PID/status`; sizes are in KiB.
    pub(crate) fn status(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the program runs");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).expect("Linux says it")
    }

    /// Returns when it was called.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Returns how many bytes it has read, of files and whatever else.
    pub(crate) fn bytes_read(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/io", self.child.id())).expect("the program runs");
        let read = text.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok());
        read.expect("Linux says it")
    }

    /// Returns what its threads have used, in hundredths of a second.
    fn cpu(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the program runs");
        let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        Duration::from_millis(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10)
    }

    /// Returns the sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let address = self.address.as_deref().expect("the first line said it");
        let mut socket = TcpStream::connect(address).expect("the program listens");
        socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("it takes requests");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it answers");
        let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        answer.lines().filter(of_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn mebibytes(kibibytes: u64) -> String {
    format!("{:.1} MiB", kibibytes as f64 / 1024.0)
}

/// Returns how many bytes of disk a folder's files take.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| {
        let path: PathBuf = entry.path();
        if path.is_dir() { size_of(&path) } else { entry.metadata().map_or(0, |found| found.len()) }
    });
    sizes.sum()
}

const SOAK_PARTS: u32 = 10;
const FSYNCS: &str = "tidegate_spool_fsync_seconds_count";
const COMMITS: &str = "tidegate_sink_chunks_total";
