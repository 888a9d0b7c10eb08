//! What a start costs behind a kill, with a large spool as little as with a small one; how fast a store catches up that was away
//! while live data flows; how fast the venue's history is taken.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_core::{config::ByteSize, spool::disk::RealDisk, testkit::InlineIntake};
use tidegate_sources::deribit::simulator::SimulatorConfig;
use tokio::runtime::Runtime;

use crate::{
    effort::Effort,
    feeder::{self, Feeder},
    frames::{Feed, Kind},
    program::{Folder, Program, mebibytes, runtime, venue, wait},
    table::Table,
};

/// The pipeline's name.
const NAME: &str = "bench";

/// How large the small spool is: a segment that is full, and one that is written.
const SMALL: u64 = 70 << 20;

/// How much is written between two starts: most of a segment.
const TAIL: u64 = 48 << 20;

/// Frames that become one entry.
const BURST: usize = 64;

/// A program that reads less than this in [`QUIET`] has read what there is.
const STILL: u64 = 64 << 10;
const QUIET: Duration = Duration::from_millis(500);

pub(crate) fn run(effort: Effort, parent: &Path) {
    let runtime = runtime();
    let venue = venue(&runtime, SimulatorConfig { paused: true, ..SimulatorConfig::default() });
    let mut table = Table::new(&["spool", "written at", "start → subscribed", "read by then", "resident"]);
    for bytes in [SMALL.min(effort.spool_bytes / 4), effort.spool_bytes] {
        let folder = Folder::new(parent);
        folder.pipeline_with(NAME, &venue, "5", "start = \"latest\"\n[spool]\nmax_bytes = \"100GiB\"\n");
        let spool = folder.path().join("data").join(NAME).join("spool");
        let Filled { bytes: written, took, .. } = fill(&spool, bytes);
        let mut first = Program::start(&folder);
        first.until("subscribed", 1);
        // The ledger follows the whole spool once.
        catch_up(&runtime, &first);
        drop(first);
        let rounds = effort.rounds.div_ceil(3);
        let mut starts: Vec<(Duration, u64, u64)> = (0..rounds)
            .map(|_| {
                // The writer ends as a killed process does, in the middle of a segment.
                fill(&spool, TAIL.min(bytes));
                let mut program = Program::start(&folder);
                program.until("subscribed", 1);
                let start = (program.began().elapsed(), program.bytes_read(), program.status("VmRSS"));
                catch_up(&runtime, &program);
                start
            })
            .collect();
        starts.sort_unstable();
        let (median, read, resident) = starts[starts.len() / 2];
        table.line([
            mebibytes(written >> 10),
            format!("{} a second", mebibytes((written as f64 / took.as_secs_f64()) as u64 >> 10)),
            format!("{:.0} ms", median.as_secs_f64() * 1e3),
            mebibytes(read >> 10),
            mebibytes(resident),
        ]);
    }
    table.print(&format!(
        "9. {} are added to a spool, its writer is killed, the program starts: the end is read for recovery, ledger and store; median of {}",
        mebibytes(TAIL.min(effort.spool_bytes) >> 10),
        effort.rounds.div_ceil(3),
    ));
}

/// A store has a backlog, and the venue goes on.
pub(crate) fn backlog(effort: Effort, parent: &Path) {
    let runtime = runtime();
    let venue = venue(&runtime, SimulatorConfig { rate: LIVE, instruments: 200, ..SimulatorConfig::default() });
    let folder = Folder::new(parent);
    folder.pipeline_with(NAME, &venue, "200", "[spool]\nmax_bytes = \"100GiB\"\n");
    let filled = fill(&folder.path().join("data").join(NAME).join("spool"), effort.backlog_bytes);
    let mut program = Program::start(&folder);
    program.until("subscribed", 1);
    let (began, before) = (Instant::now(), program.metric(COMMITTED));
    while (program.metric(COMMITTED) as u64) < filled.rows {
        assert!(began.elapsed() < LONGEST, "the backlog is not stored in time");
        wait(&runtime, GLANCE);
    }
    let (took, committed) = (began.elapsed().as_secs_f64(), program.metric(COMMITTED));
    let live = (program.metric(RECEIVED)) / program.began().elapsed().as_secs_f64();
    let speed = (committed - before) / took;
    let mut table = Table::new(&["backlog", "live", "stored", "of the live rate", "peak"]);
    table.line([
        format!("{} rows", filled.rows),
        format!("{live:.0} rows/s"),
        format!("{speed:.0} rows/s"),
        format!("{:.1} ×", speed / live),
        mebibytes(program.status("VmHWM")),
    ]);
    table.print("10. a store that was away catches up while the venue goes on (200 options → spool → SQLite)");
}

/// The venue made many trades while nobody listened.
pub(crate) fn history(effort: Effort, parent: &Path) {
    let runtime = runtime();
    let mut table = Table::new(&["missed", "requests", "start → stored", "rows/s", "peak"]);
    for (pace, rate) in [("as the venue takes them", ""), ("unlimited", "rest = { rate = \"1000000/s\" }\n")] {
        let config = SimulatorConfig { paused: true, credits: 1e9, ..SimulatorConfig::default() };
        let venue = venue(&runtime, config);
        let folder = Folder::new(parent);
        folder.pipeline_from(NAME, &venue, "5", rate, "");
        let mut program = Program::start(&folder);
        program.until("subscribed", 1);
        wait(&runtime, Duration::from_secs(2));
        drop(program);
        let option = venue.read(|oracle| {
            let mut channels = oracle.sessions.iter().flat_map(|session| &session.subscriptions);
            channels.find_map(|one| Some(one.channel.strip_prefix("trades.")?.split('.').next()?.to_owned()))
        });
        let option = option.expect("trades are subscribed to");
        for _ in 0..effort.missed {
            assert!(venue.make_trade(&option), "it is listed");
        }
        let mut program = Program::start(&folder);
        let began = program.began();
        program.until("subscribed", 1);
        while (program.metric(BACKFILLED) as usize) < effort.missed
            || (program.metric(COMMITTED) as usize) < effort.missed
        {
            assert!(began.elapsed() < LONGEST, "the history is not stored in time");
            wait(&runtime, GLANCE);
        }
        let took = began.elapsed().as_secs_f64();
        table.line([
            effort.missed.to_string(),
            pace.to_owned(),
            format!("{took:.1} s"),
            format!("{:.0}", effort.missed as f64 / took),
            mebibytes(program.status("VmHWM")),
        ]);
    }
    table.print("11. trades of one option that were made while nobody listened: REST → spool → SQLite");
}

/// Waits until ledger and store have read what there is.
fn catch_up(runtime: &Runtime, program: &Program) {
    let mut before = program.bytes_read();
    loop {
        wait(runtime, QUIET);
        let read = program.bytes_read();
        if read < before + STILL {
            return;
        }
        before = read;
    }
}

/// What was added to a spool.
struct Filled {
    bytes: u64,
    rows: u64,
    took: Duration,
}

/// Adds at least so many bytes to a spool as a pipeline does.
fn fill(folder: &Path, bytes: u64) -> Filled {
    fs::create_dir_all(folder).expect("a folder for the spool");
    let began = Instant::now();
    let feed = Feed::own(Kind::Tickers, 20_000);
    let disk = RealDisk::create(folder).expect("a folder for the spool");
    let mut setup = feeder::setup(folder);
    setup.config.max_bytes = ByteSize(100 << 30);
    let mut intake = InlineIntake::open(Arc::new(disk), setup).expect("a new spool");
    let (before, mut rows) = (intake.bytes(), 0);
    let mut feeder = Feeder::begin(intake.link(0, feeder::tables()), &feed);
    for burst in feed.frames.chunks(BURST).cycle() {
        burst.iter().for_each(|frame| feeder.read(frame));
        rows += burst.len() as u64;
        feeder.link().hand_over().expect("intake is there");
        intake.enter().expect("the disk works");
        if intake.bytes() >= before + bytes {
            break;
        }
    }
    intake.sync().expect("the disk works");
    Filled { bytes: intake.bytes() - before, rows, took: began.elapsed() }
}

/// Events a second that go on while a store catches up.
const LIVE: f64 = 2_000.0;
/// How long it may take at most.
const LONGEST: Duration = Duration::from_secs(1_200);
const GLANCE: Duration = Duration::from_millis(100);
const COMMITTED: &str = "tidegate_sink_committed_rows_total";
const BACKFILLED: &str = "tidegate_backfilled_rows_total";
const RECEIVED: &str = "tidegate_received_rows_total";
