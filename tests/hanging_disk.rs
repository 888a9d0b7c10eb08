//! A disk that hangs holds up what needs it, and nobody else: the other pipelines, `/health` and the end go on, health names
//! who waits, and once it answers again all is stored, once. The real program, on a layer that holds up its calls.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{collections::VecDeque, path::PathBuf, process::Command};

use serde_json::Value;
use support::{Bench, PATIENCE, Program, busy, hang::Hang};
use tokio::{task::JoinSet, time::timeout};

/// What hangs of the pipeline `bad`, and what is to be seen of it.
#[derive(Clone, Copy)]
struct Case {
    operations: &'static str,
    /// Below the folder of the program.
    path: &'static str,
    /// Put into the source's table, and behind the store's.
    source: &'static str,
    rest: &'static str,
    /// The stage that says so, and how.
    stage: &'static str,
    why: &'static str,
    /// What is said at a stop meanwhile, and the exit code.
    end: &'static str,
    code: i32,
}

/// A stop leaves behind what waits for a spool that hangs: of what the venue repeats, that costs nothing.
const TRADES: &str = "channels = [\"trades\"]\n";
const SPOOL: Case = Case {
    operations: "write",
    path: "data/bad/spool",
    source: TRADES,
    rest: "",
    stage: "bad/spool",
    why: "the disk has not made the oldest row durable for",
    end: "the spool does not come to its end: its disk does not answer, or is too slow; what is durable is sent after",
    code: 1,
};
const STUCK: &str = "a sink or the ledger does not end, and is left behind";
const SINK: Case = Case {
    source: "",
    rest: "timeout = \"1s\"\n",
    stage: "bad/sink.sqlite",
    why: "the stage itself reports nothing",
    end: STUCK,
    ..SPOOL
};

const CASES: [Case; 10] = [
    SPOOL,
    Case { operations: "sync", ..SPOOL },
    // The next segment, and the removal of old ones.
    Case { operations: "open,rename,truncate", rest: "[spool]\nsegment_bytes = \"64KiB\"\nkeep = \"0s\"\n", ..SPOOL },
    // The store itself: its writes are on a thread of SQLite's, and time out.
    Case {
        operations: "write",
        path: "bad.sqlite",
        why: "took longer than 1s",
        end: "stay in the spool",
        code: 0,
        ..SINK
    },
    Case {
        operations: "sync",
        path: "bad.sqlite",
        why: "took longer than 1s",
        end: "stay in the spool",
        code: 0,
        ..SINK
    },
    // Which file it is, looked up on the way.
    Case { operations: "look", path: "bad.sqlite", ..SINK },
    // Where it stands.
    Case { operations: "all", path: "data/bad/sinks/sqlite.json", ..SINK },
    Case {
        operations: "write,sync",
        path: "rows/bad",
        source: "",
        rest: "[sink.file]\npath = \"rows/{pipeline}\"\nformat = \"json\"\ntimeout = \"1s\"\n",
        stage: "bad/sink.file",
        why: "took longer than 1s",
        end: "stay in the spool",
        code: 0,
    },
    Case {
        operations: "write",
        path: "data/bad/ledger.sqlite",
        source: "",
        stage: "bad/ledger",
        why: "what is durable has been read for",
        end: STUCK,
        ..SPOOL
    },
    Case {
        operations: "write",
        path: "data/bad/sources",
        source: "capture = {}\n",
        stage: "bad/source.deribit",
        why: "capture held up: its disk does not answer; the feed goes on",
        end: "the end of a capture could not be written in time",
        code: 0,
        ..SPOOL
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_file_hangs_the_others_go_on_health_names_it_the_end_comes_and_all_is_stored_once() {
    let mut cases = VecDeque::from(CASES);
    let mut tests = JoinSet::new();
    // Five at once: each is two pipelines, and waits for the most part.
    cases.drain(..5).for_each(|case| _ = tests.spawn(hangs(case)));
    while let Some(ended) = tests.join_next().await {
        ended.unwrap();
        cases.pop_front().into_iter().for_each(|case| _ = tests.spawn(hangs(case)));
    }
}

async fn hangs(case: Case) {
    let Some(disk) = Hang::new() else { return };
    let pair = Pair::new(&case).await;
    let mut program = pair.run(&disk);
    pair.until_both_store(&mut program).await;
    pair.hangs_to_the_end(&disk, &case, program).await;

    disk.end();
    let mut program = pair.run(&disk);
    pair.until_both_store(&mut program).await;
    disk.begin(case.operations, &[pair.good.path(case.path)]);
    pair.goes_on(&mut program, 100).await;
    disk.end();
    pair.assert_exact(program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_whose_disk_hangs_hold_up_their_sink_alone_and_none_is_lost() {
    let case = Case { operations: "write,sync", path: "data/bad/sinks/sqlite/", ..SINK };
    let Some(disk) = Hang::new() else { return };
    let pair = Pair::new(&case).await;
    let mut program = pair.run(&disk);
    pair.until_both_store(&mut program).await;
    let mut store = pair.bad.connection().await;
    let trigger = "CREATE TRIGGER no_sells BEFORE INSERT ON trades WHEN NEW.side = 'sell' \
                   BEGIN SELECT RAISE(ABORT, 'sells are not wanted'); END";
    sqlx::query(trigger).execute(&mut store).await.unwrap();
    pair.hangs_to_the_end(&disk, &case, program).await;

    disk.end();
    let mut program = pair.run(&disk);
    let letters = |report: &Value| report["checks"]["bad/deadletters.sqlite"]["dead_letters"].as_u64();
    program.until("dead letters", |report| letters(report) >= Some(10)).await;
    sqlx::query("DROP TRIGGER no_sells").execute(&mut store).await.unwrap();
    drop(store);
    program.stop().await;
    let asked = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["deadletter", "redrive", "bad.toml", "--all"])
        .current_dir(pair.good.folder())
        .output();
    assert!(String::from_utf8(asked.unwrap().stdout).unwrap().contains("dead letters of bad asked for"));
    pair.assert_exact(pair.run(&disk)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_spools_hang_than_the_program_has_threads_and_the_others_go_on_and_no_row_is_lost() {
    let Some(disk) = Hang::new() else { return };
    let many = Many::new("").await;
    let mut program = run(&many.good, &disk, &[]);
    many.hang(&disk, &mut program).await;
    disk.end();
    many.assert_exact(program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_spools_hang_than_the_program_has_threads_and_it_ends_and_says_whose() {
    let Some(disk) = Hang::new() else { return };
    let many = Many::new(TRADES).await;
    let mut program = run(&many.good, &disk, &[]);
    many.hang(&disk, &mut program).await;
    program.signal("TERM");
    let (code, log) = program.ended().await;
    assert!(code == 1 && log.matches(SPOOL.end).count() == many.bad.len(), "{code}\n{log}");
    disk.end();
    many.assert_exact(run(&many.good, &disk, &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_whose_disk_hangs_at_the_start_waits_alone_is_told_and_starts_when_it_answers() {
    let case = Case {
        operations: "open",
        path: "data/bad",
        why: "the pipeline is still starting: its disk does not answer",
        end: "the pipeline does not come to its start: its disk does not answer",
        ..SPOOL
    };
    let Some(disk) = Hang::new() else { return };
    let pair = Pair::new(&case).await;
    disk.begin(case.operations, &[pair.good.path(case.path)]);
    pair.hangs_to_the_end(&disk, &case, pair.run(&disk)).await;

    let mut program = pair.run(&disk);
    pair.goes_on(&mut program, 100).await;
    disk.end();
    pair.until_both_store(&mut program).await;
    pair.assert_exact(program).await;
}

/// Says over HTTP who hangs.
async fn assert_asked(program: &mut Program, case: &Case) {
    let asked = timeout(PATIENCE, async {
        (program.get("/health/live").await, program.get("/health").await, program.get("/health/ready").await)
    });
    let ((live, _), (_, health), (ready, waiting)) = asked.await.expect("the program's HTTP answers");
    assert_eq!(live, 200);
    assert!(health.contains(case.why), "{health}");
    // Without its captures and its ledger a pipeline takes and stores every row.
    let is_needed = !(case.stage.contains("/source.") || case.stage.ends_with("/ledger"));
    assert!(ready == if is_needed { 503 } else { 200 }, "{waiting}");
    assert!(!is_needed || waiting.contains(case.stage), "{waiting}");
    assert!(!waiting.contains("good/"), "{waiting}");
}

/// Two pipelines of one program, each with a venue of its own: what one was sent is not what the other one was.
struct Pair {
    good: Bench,
    bad: Bench,
}

impl Pair {
    async fn new(case: &Case) -> Self {
        let good = Bench::start(busy(RATE), "", "").await;
        let bad = Bench::start(busy(RATE), "", "").await.at(good.path("bad.sqlite"));
        named(&good, &good, "good", "", "");
        named(&good, &bad, "bad", case.source, case.rest);
        std::fs::remove_file(good.path("eth.toml")).unwrap();
        Self { good, bad }
    }

    /// Starts the program. It has one worker: whatever keeps that keeps everybody.
    fn run(&self, disk: &Hang) -> Program {
        run(&self.good, disk, &[("TOKIO_WORKER_THREADS", "1")])
    }

    /// The disk hangs, and is still hanging at the end.
    async fn hangs_to_the_end(&self, disk: &Hang, case: &Case, mut program: Program) {
        let path = [self.good.path(case.path)];
        disk.begin(case.operations, &path);
        disk.until_met(&path).await;
        self.goes_on(&mut program, 300).await;
        let is_told = |report: &Value| {
            let check = &report["checks"][case.stage];
            check["status"] == "degraded" && check["reason"].as_str().unwrap().contains(case.why)
        };
        program.until(&format!("{} says that {}", case.stage, case.why), is_told).await;
        assert_asked(&mut program, case).await;
        self.goes_on(&mut program, 100).await;
        program.signal("TERM");
        let (code, log) = program.ended().await;
        let Case { operations, path, end, .. } = case;
        assert!(code == case.code && log.contains(end), "{operations} {path}: {code}, not: {end}\n{log}");
        let mut lines = log.lines().filter(|line| line.contains(" stopped ") && line.contains(" good "));
        assert!(lines.next().is_some_and(|line| line.ends_with("nothing left in the spool")), "{log}");
    }

    async fn until_both_store(&self, program: &mut Program) {
        let both = |report: &Value| stored(report, "good") >= SOME && stored(report, "bad") >= SOME;
        program.until("both store", both).await;
    }

    /// Waits until the one that does not hang has stored so many rows more.
    async fn goes_on(&self, program: &mut Program, rows: u64) {
        goes_on(program, "good", rows).await;
    }

    async fn assert_exact(&self, mut program: Program) {
        for bench in [&self.good, &self.bad] {
            bench.settle(&mut program).await.assert_exact(&program.log());
        }
        let all_well =
            |report: &Value| report["checks"].as_object().unwrap().values().all(|check| check["status"] == "healthy");
        program.until("all are well again", all_well).await;
        let (code, log) = program.stop().await;
        assert_eq!(code, 0, "{log}");
        let rows = self.good.path("rows/bad");
        if rows.exists() {
            let files = std::fs::read_dir(rows).unwrap().map(|file| file.unwrap().path());
            let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
            let lines: usize = files.map(|path| std::fs::read_to_string(path).unwrap().lines().count()).sum();
            let rows = "SELECT (SELECT count(*) FROM trades) + (SELECT count(*) FROM tickers)";
            assert_eq!(lines as i64, self.bad.number(rows).await, "the files have what the other store has");
        }
    }
}

/// One pipeline, and more that hang than the program has threads.
struct Many {
    good: Bench,
    bad: Vec<Bench>,
}

impl Many {
    async fn new(source: &str) -> Self {
        let good = Bench::start(busy(RATE), "", "").await;
        named(&good, &good, "good", "", "");
        std::fs::remove_file(good.path("eth.toml")).unwrap();
        let mut bad = Vec::new();
        for number in 0..=std::thread::available_parallelism().unwrap().get() {
            let bench = Bench::start(busy(RATE), "", "").await.at(good.path(&format!("bad{number}.sqlite")));
            named(&good, &bench, &format!("bad{number}"), source, "");
            bad.push(bench);
        }
        Self { good, bad }
    }

    /// The spools hang, until each is told.
    async fn hang(&self, disk: &Hang, program: &mut Program) {
        let names: Vec<_> = (0..self.bad.len()).map(|number| format!("bad{number}")).collect();
        let all_store =
            |report: &Value| stored(report, "good") >= SOME && names.iter().all(|name| stored(report, name) >= SOME);
        program.until("all store", all_store).await;
        let spools: Vec<_> = names.iter().map(|name| self.good.path(&format!("data/{name}/spool"))).collect();
        disk.begin("write", &spools);
        disk.until_met(&spools).await;
        goes_on(program, "good", 500).await;
        let is_told = |report: &Value, name: &str| {
            report["checks"][format!("{name}/spool")]["reason"].as_str().unwrap().contains(SPOOL.why)
        };
        program.until("each is told", |report| names.iter().all(|name| is_told(report, name))).await;
        let asked = timeout(PATIENCE, program.get("/health/ready")).await;
        let (code, waiting) = asked.expect("the program's HTTP answers");
        assert!(code == 503 && names.iter().all(|name| waiting.contains(&format!("{name}/spool"))), "{waiting}");
    }

    async fn assert_exact(&self, mut program: Program) {
        for bench in self.bad.iter().chain([&self.good]) {
            bench.settle(&mut program).await.assert_exact(&program.log());
        }
        let (code, log) = program.stop().await;
        assert_eq!(code, 0, "{log}");
    }
}

/// Writes the pipeline of a bench under a name of its own into the folder of the program.
fn named(folder: &Bench, bench: &Bench, name: &str, source: &str, rest: &str) {
    let pipeline = bench.pipeline(source, rest).replace("name = \"eth\"", &format!("name = \"{name}\""));
    folder.write(&format!("{name}.toml"), &pipeline);
}

/// Starts the program on every pipeline of a folder.
fn run(folder: &Bench, disk: &Hang, more: &[(&str, &str)]) -> Program {
    let variables = disk.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let variables = [&variables, more].concat();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_tidegate"));
    Program::start_with(&program, folder.folder(), &["run", ".", "--supervised", "50ms", "--drain", "10s"], &variables)
}

fn stored(report: &Value, pipeline: &str) -> u64 {
    report["checks"][format!("{pipeline}/sink.sqlite")]["rows_committed"].as_u64().unwrap_or(0)
}

async fn goes_on(program: &mut Program, pipeline: &str, rows: u64) {
    let wanted = stored(&program.next_report().await, pipeline) + rows;
    program.until(&format!("{pipeline} stores on"), |report| stored(report, pipeline) > wanted).await;
}

/// Events a second at each venue, and so many rows show that a pipeline works.
const RATE: f64 = 300.0;
const SOME: u64 = 20;
