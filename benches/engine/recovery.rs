//! What a start costs behind a kill: with a large spool as little as with a small one.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_core::{spool::disk::RealDisk, testkit::InlineIntake};
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
        let (written, took) = fill(&spool, bytes);
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

/// Adds at least so many bytes to a spool as a pipeline does; returns how many, and how long it took.
fn fill(folder: &Path, bytes: u64) -> (u64, Duration) {
    fs::create_dir_all(folder).expect("a folder for the spool");
    let began = Instant::now();
    let feed = Feed::own(Kind::Tickers, 20_000);
    let disk = RealDisk::create(folder).expect("a folder for the spool");
    let mut intake = InlineIntake::open(Arc::new(disk), feeder::setup(folder)).expect("a new spool");
    let before = intake.bytes();
    let mut feeder = Feeder::begin(intake.link(0, feeder::tables()), &feed);
    for burst in feed.frames.chunks(BURST).cycle() {
        burst.iter().for_each(|frame| feeder.read(frame));
        feeder.link().hand_over().expect("intake is there");
        intake.enter().expect("the disk works");
        if intake.bytes() >= before + bytes {
            break;
        }
    }
    intake.sync().expect("the disk works");
    (intake.bytes() - before, began.elapsed())
}
