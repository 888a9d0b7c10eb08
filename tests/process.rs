//! One process: its pipelines leave each other alone, its signals do what they should, and its end loses nothing.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::fs;

use serde_json::Value;
use support::{Bench, Program, busy};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_is_refused_with_the_first_ones_id() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut first = bench.run();
    first.until_committed(100).await;
    let (code, log) = bench.run().ended().await;
    assert_ne!(code, 0, "{log}");
    assert!(log.contains(&first.id().to_string()), "the first one's process id, {}, is said:\n{log}", first.id());
    // The venue's limits are those of a process: another pipeline beside it has a data directory of its own, too.
    bench.write("other.toml", &named(&bench, "other"));
    let ran = support::tidegate(bench.folder(), &["run", "other.toml"]);
    let said = format!("`data_dir` is another process's: `data/.host` is already in use by pid {}", first.id());
    assert!(ran.code == 2 && ran.said.contains(&said), "{said}: {ran:?}");
    bench.settle(&mut first).await.assert_exact(&first.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_at_most_six_lines_until_all_is_healthy_and_none_for_a_record() {
    let bench = Bench::start(busy(2_000.0), "", "").await;
    let mut program = bench.run();
    program.until_logged("healthy ").await;
    let log = program.log();
    let until = 1 + log.lines().position(|line| line.contains("healthy ")).unwrap();
    assert!(until <= 6, "{until} lines until it is healthy:\n{log}");
    program.until_committed(200).await;
    let before = program.log().lines().count();
    program.until_committed(6_000).await;
    let log = program.log();
    assert_eq!(log.lines().count(), before, "5,800 rows later:\n{log}");
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_files_one_is_broken_and_the_other_four_run() {
    let bench = Bench::start(busy(500.0), "", "").await;
    for name in ["a", "b", "c"] {
        bench.write(&format!("{name}.toml"), &named(&bench, name));
    }
    bench.write("broken.toml", "[pipeline]\nname = \"broken\"\n[source.deribit]\ninstrumets = []\n[sink.sqlite]\n");
    let mut program = bench.run_all();
    let committed = |report: &Value, name: &str| {
        report["checks"][format!("{name}/sink.sqlite")]["rows_committed"].as_u64() > Some(100)
    };
    let four = |report: &Value| ["eth", "a", "b", "c"].iter().all(|name| committed(report, name));
    let report = program.until("four pipelines store rows", four).await;
    let (name, broken) =
        report["checks"].as_object().unwrap().iter().find(|(name, _)| name.contains("broken")).unwrap();
    assert_eq!(broken["status"], "failed", "{name} {broken:#}");
    program.until_logged("broken.toml").await;
    program.until_logged("instrumets").await;
    assert_eq!(program.get("/health").await.0, 503);
    program.signal("TERM");
    let (code, log) = program.ended().await;
    assert_eq!(code, 1, "something was not started:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_panics_is_started_again_and_leaves_the_others_running() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let path = bench.path("faulty.sqlite");
    let faulty = "[pipeline]\nname = \"faulty\"\n[source.faulty]\nrows = 3\n[sink.sqlite]\n";
    bench.write("faulty.toml", &format!("{faulty}path = \"{}\"\n", path.display()));
    let mut program = run_faulty(&bench);
    let again = |report: &Value| report["checks"]["faulty/sink.sqlite"]["rows_committed"].as_u64() >= Some(6);
    let report = program.until("the second run's rows are stored", again).await;
    let source = &report["checks"]["faulty/source.faulty"];
    assert!(source["reason"].as_str().unwrap().contains("the source panicked: the source has a fault"), "{source:#}");
    program.until_logged("starting again in").await;
    program.until_committed(500).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_whose_making_panics_is_made_again_or_refused_and_leaves_the_others_running() {
    for (builds, stage, why) in [
        (0, "faulty", "the component `faulty` panicked: the making of the source has a fault"),
        (
            1,
            "faulty/spool",
            "starting the pipeline panicked: the making of the source has a fault; the pipeline does not",
        ),
        (
            2,
            "faulty/source.faulty",
            "making the source panicked: the making of the source has a fault; starting again in",
        ),
    ] {
        let bench = Bench::start(busy(500.0), "", "").await;
        let path = bench.path("faulty.sqlite");
        let faulty =
            format!("[pipeline]\nname = \"faulty\"\n[source.faulty]\nrows = 3\nbuilds = {builds}\n[sink.sqlite]\n");
        bench.write("faulty.toml", &format!("{faulty}path = \"{}\"\n", path.display()));
        let mut program = run_faulty(&bench);
        let says_so = |report: &Value| {
            let checks = report["checks"].as_object().into_iter().flatten();
            let mut of_stage = checks.filter(|(name, _)| name.contains(stage)).map(|(_, check)| check);
            of_stage.any(|check| {
                let is_bad = matches!(check["status"].as_str(), Some("degraded" | "failed"));
                is_bad && check["reason"].as_str().is_some_and(|reason| reason.contains(why))
            })
        };
        program.until(why, says_so).await;
        program.until_committed(300).await;
        bench.settle(&mut program).await.assert_exact(&program.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_panics_is_tried_again_and_leaves_the_others_running() {
    let bench =
        Bench::start(busy(500.0), "", "[sink.faulty]\nhangs = false\nretry = { first = \"20ms\", longest = \"50ms\" }")
            .await;
    let mut program = run_faulty(&bench);
    program.until_committed(500).await;
    program.until_logged("the sink has a fault").await;
    let report = program.next_report().await;
    let sink = &report["checks"]["eth/sink.faulty"];
    assert!(sink["reason"].as_str().unwrap().contains("the sink has a fault; trying again in"), "{sink:#}");
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_hangs_holds_up_nobody_and_not_the_end() {
    let hanging = "[sink.faulty]\nhangs = true\ntimeout = \"300ms\"\nretry = { first = \"20ms\", longest = \"50ms\" }";
    let bench = Bench::start(busy(500.0), "", hanging).await;
    let mut program = run_faulty(&bench);
    program.until_committed(500).await;
    let hangs = |report: &Value| report["checks"]["eth/sink.faulty"]["status"] == "degraded";
    program.until("the sink that hangs is degraded", hangs).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    program.signal("TERM");
    let (code, log) = program.ended().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("faulty: 0 rows stored since the start, ") && log.contains("rows stay in the spool"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_keep_their_threads_hold_up_nobody_and_are_left_behind() {
    let bench = Bench::start(busy(500.0), "", "").await;
    // More than the runtime has workers.
    let blocking = std::thread::available_parallelism().map_or(2, usize::from) + 2;
    for number in 0..blocking {
        let path = bench.path(&format!("blocks{number}.sqlite"));
        let head = format!("[pipeline]\nname = \"blocks{number}\"\n[source.faulty]\nrows = 3\nblocks = true\n");
        bench.write(&format!("blocks{number}.toml"), &format!("{head}[sink.sqlite]\npath = \"{}\"\n", path.display()));
    }
    // And as many that are logs themselves: nothing of them comes to their store, which is not there.
    for number in 0..blocking {
        let head = format!("[pipeline]\nname = \"log{number}\"\n[source.faulty_log]\n");
        bench.write(
            &format!("log{number}.toml"),
            &format!("{head}[sink.postgres]\nurl = \"postgres://127.0.0.1:1/none\"\n"),
        );
    }
    let mut program = Program::faulty(bench.folder(), &["run", ".", "--supervised", "50ms", "--drain", "1s"], "");
    let has_rows = |report: &Value, number: usize| {
        report["checks"][format!("blocks{number}/sink.sqlite")]["rows_committed"].as_u64() == Some(3)
    };
    program.until("what they gave is stored", |report| (0..blocking).all(|number| has_rows(report, number))).await;
    program.until_committed(500).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    program.signal("TERM");
    let (code, log) = program.ended().await;
    assert_eq!(code, 1, "{log}");
    assert_eq!(log.matches("a source does not end, and is left behind").count(), blocking, "{log}");
    assert_eq!(log.matches("the source does not end, and is left behind").count(), blocking, "{log}");
    let well = "sqlite: 3 rows stored since the start, nothing left in the spool";
    assert_eq!(log.matches(well).count(), blocking, "all that they gave is where it belongs: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_whose_spool_is_full_leaves_the_others_running() {
    let bench = Bench::start(busy(2_000.0), "", "").await;
    bench.write("store", "in the way");
    let spool = "[spool]\nmax_bytes = \"1MiB\"\nsegment_bytes = \"128KiB\"\nkeep = \"0s\"\nwhen_full = \"block\"\n";
    let full = bench.pipeline("queue = \"256KiB\"\n", spool).replace("name = \"eth\"", "name = \"full\"");
    bench.write("full.toml", &full.replace("eth.sqlite", "store/full.sqlite"));
    let mut program = bench.run_all();
    let is_full = |report: &Value| {
        let spool = &report["checks"]["full/spool"];
        spool["status"] == "degraded" && spool["reason"].as_str().unwrap_or_default().contains("the spool is full")
    };
    let committed = |report: &Value| report["checks"]["eth/sink.sqlite"]["rows_committed"].as_u64().unwrap_or(0);
    let report = program.until("the spool of one is full", is_full).await;
    let wanted = committed(&report) + 3_000;
    let report = program.until("the other stores on", |report| committed(report) > wanted).await;
    assert!(is_full(&report), "{report:#}");
    for stage in ["eth/spool", "eth/source.deribit", "eth/sink.sqlite", "eth/ledger"] {
        assert_eq!(report["checks"][stage]["status"], "healthy", "{stage}: {report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_signal_drains_the_spool_says_so_and_ends_well() {
    for signal in ["TERM", "INT"] {
        let bench = Bench::start(busy(500.0), "", "").await;
        let mut program = bench.run();
        program.until_committed(300).await;
        program.signal(signal);
        let (code, log) = program.ended().await;
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("stopping ") && log.contains("nothing left in the spool"), "{log}");
        // What was made after the end is owed by the next start.
        let mut program = bench.run();
        program.until_logged("resumed").await;
        bench.settle(&mut program).await.assert_exact(&program.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_that_is_down_cannot_take_stays_is_counted_and_is_sent_at_the_next_start() {
    let bench = Bench::start(busy(500.0), "", "").await;
    bench.write("store", "in the way");
    bench.write(
        "eth.toml",
        &bench.pipeline("", "breaker = { failures = 1000 }").replace("eth.sqlite", "store/eth.sqlite"),
    );
    let mut program = Program::start(bench.folder(), &["run", "eth.toml", "--supervised", "50ms", "--drain", "5s"]);
    program
        .until("rows are spooled", |report| report["checks"]["eth/spool"]["rows_appended"].as_u64() > Some(500))
        .await;
    program.signal("TERM");
    let is_told = |report: &Value| {
        let why = report["checks"]["eth/sink.sqlite"]["reason"].as_str().unwrap_or_default();
        why.ends_with("; tried again up to the deadline, what is left then stays in the spool")
    };
    program.until("what becomes of the rest is told", is_told).await;
    let (code, log) = program.ended().await;
    assert_eq!(code, 0, "{log}");
    let rows = bench.dump().iter().filter(|item| item.get("ts_recv").is_some()).count();
    assert!(log.contains(&format!("{rows} rows stay in the spool, the next start sends them")), "{rows} rows:\n{log}");
    fs::remove_file(bench.path("store")).unwrap();
    let bench = bench.at("store/eth.sqlite");
    let mut program = bench.run();
    program.until_committed(rows as u64).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    let bench = Bench::start(busy(500.0), "", "").await;
    bench.write("store", "in the way");
    bench.write("eth.toml", &bench.pipeline("", "").replace("eth.sqlite", "store/eth.sqlite"));
    let mut program = bench.run();
    program
        .until("rows are spooled", |report| report["checks"]["eth/spool"]["rows_appended"].as_u64() > Some(300))
        .await;
    program.signal("INT");
    program.until_logged("stopping ").await;
    // Two signals in a breath are one; the reports come each 50 ms.
    for _ in 0..12 {
        program.next_report().await;
    }
    program.signal("INT");
    let (code, log) = program.ended().await;
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("stopped at once by a second signal"), "{log}");
    fs::remove_file(bench.path("store")).unwrap();
    let bench = bench.at("store/eth.sqlite");
    let mut program = bench.run();
    program.until_committed(300).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigusr1_prints_the_full_report() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(100).await;
    program.signal("USR1");
    program.until_logged("\n}\n").await;
    let log = program.log();
    let (_, report) = log.split_once("\n{\n").unwrap();
    let end = report.find("\n}\n").unwrap();
    let report: Value = serde_json::from_str(&format!("{{{}}}", &report[..end])).unwrap();
    assert_eq!(report["checks"]["eth/sink.sqlite"]["status"], "healthy", "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_log_of_json_the_report_of_sigusr1_is_a_line_like_the_others() {
    let bench = Bench::start(busy(500.0), "", "").await;
    bench.write("tidegate.toml", "listen = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n");
    let mut program = bench.run();
    program.until_committed(100).await;
    program.signal("USR1");
    program.until_logged("\n{\"checks\":").await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect();
    let reports: Vec<&Value> = lines.iter().filter(|line| line["checks"].is_object()).collect();
    assert_eq!(reports.len(), 1, "{log}");
    assert_eq!(reports[0]["checks"]["eth/sink.sqlite"]["status"], "healthy", "{:#}", reports[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_file_gets_what_the_terminal_would_and_is_put_aside_at_its_size() {
    let bench = Bench::start(busy(500.0), "", "").await;
    bench.write(
        "tidegate.toml",
        "listen = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\nstats = \"0s\"\n[log.file]\npath = \"run.log\"\nmax = \"1KiB\"\n",
    );
    let mut program = bench.run();
    program.until_committed(100).await;
    let (code, said) = program.stop().await;
    assert_eq!((code, said.contains("subscribed eth")), (0, false), "{said}");
    let text = |name: &str| fs::read_to_string(bench.path(name)).unwrap();
    let files: Vec<String> = (1..=7).rev().map(|number| format!("run.log.{number}")).collect();
    let files = files.iter().filter(|name| bench.path(name).exists()).map(|name| text(name));
    let files: Vec<String> = files.chain([text("run.log")]).collect();
    assert!(files.len() > 1, "{files:?}");
    // A file ends with the line that makes it as long as it may be.
    assert!(files.iter().rev().skip(1).all(|file| (512..4096).contains(&file.len())), "{files:?}");
    let lines: Vec<Value> =
        files.iter().flat_map(|file| file.lines()).map(|line| serde_json::from_str(line).unwrap()).collect();
    let place =
        |words: &str| lines.iter().position(|line| line["message"].as_str().is_some_and(|said| said.contains(words)));
    assert!(
        place("start eth") < place("subscribed eth") && place("subscribed eth") < place("stopped eth"),
        "{lines:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_after_kill_9_says_where_it_resumes() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    program.kill().await;
    let mut program = bench.run();
    program.until_logged("the spool ends at offset ").await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

/// Returns the pipeline under another name, with a database of its own.
fn named(bench: &Bench, name: &str) -> String {
    let text = bench.pipeline("", "").replace("name = \"eth\"", &format!("name = \"{name}\""));
    text.replace("eth.sqlite", &format!("{name}.sqlite"))
}

/// Runs the program with the components that have faults beside the built-in ones.
fn run_faulty(bench: &Bench) -> Program {
    Program::faulty(bench.folder(), &["run", ".", "--supervised", "50ms"], "")
}
