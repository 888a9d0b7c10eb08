//! Health, metrics and log of the real program: what a monitor and a person see, and that they see the same.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
};

use serde_json::Value;
use support::{Bench, Program, busy};
use tidegate::metrics;

#[tokio::test(flavor = "multi_thread")]
async fn screen_metrics_health_and_sql_show_the_same_numbers() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(1_000).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    // What was on its way when the venue was frozen arrives.
    let mut before = Value::Null;
    loop {
        let report = program.next_report().await;
        let (committed, appended) =
            (&report["checks"]["eth/sink.sqlite"]["rows_committed"], &report["checks"]["eth/spool"]["rows_appended"]);
        if committed == appended && *committed == before {
            break;
        }
        before = committed.clone();
    }
    let stored = bench.number("SELECT (SELECT count(*) FROM trades) + (SELECT count(*) FROM tickers)").await;
    let of_health = |report: &Value| report["checks"]["eth/sink.sqlite"]["rows_committed"].as_i64().unwrap();
    assert_eq!(of_health(&program.next_report().await), stored, "what a parent process is told");
    let (status, body) = program.get("/health").await;
    assert_eq!(status, 200, "{body}");
    let health: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(of_health(&health), stored);
    assert_eq!(program.metric("tidegate_sink_committed_rows_total").await as i64, stored);
    let source = &health["checks"]["eth/source.deribit"];
    let received = source["rows_received"].as_f64().unwrap();
    assert_eq!(program.metric("tidegate_received_rows_total").await, received);
    assert_eq!(program.metric("tidegate_backfilled_rows_total").await, source["rows_backfilled"].as_f64().unwrap());
    let (_, log) = program.stop().await;
    assert!(log.contains(&format!("sqlite: {stored} rows stored since the start, nothing left in the spool")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_has_the_documented_shape_and_is_green_when_all_is_well() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(200).await;
    let stages = ["eth/ledger", "eth/sink.sqlite", "eth/source.deribit", "eth/spool"];
    let measured = |report: &Value| stages.iter().all(|stage| report["checks"][stage]["duration"].is_string());
    program.until("each stage has shown how long its work takes", measured).await;
    let (status, body) = program.get("/health").await;
    let health: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, health["status"].as_str()), (200, Some("healthy")), "{body}");
    assert!(health["timestamp"].as_str().unwrap().ends_with('Z'), "{body}");
    let names: Vec<&str> = health["checks"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["eth/deadletters.sqlite", "eth/ledger", "eth/sink.sqlite", "eth/source.deribit", "eth/spool"]);
    for (name, check) in health["checks"].as_object().unwrap() {
        for member in ["status", "last_check", "since", "reason"] {
            assert!(check[member].is_string(), "{name} has no `{member}`: {check}");
        }
        let duration = check.as_object().unwrap().get("duration").unwrap();
        let took = duration.as_str().map(|text| humantime::parse_duration(text).unwrap());
        // There is no dead letter.
        let is_unused = name == "eth/deadletters.sqlite";
        assert_eq!(took.is_none(), is_unused, "{name}: {check}");
        assert!(took.is_none_or(|took| !took.is_zero()), "{name}: {check}");
    }
    assert_eq!(program.get("/health/ready").await.0, 200);
    assert_eq!(program.get("/health/live").await, (200, "{\"live\":true}".to_owned()));
    assert_eq!(program.get("/").await.0, 404);

    let refuse = "CREATE TRIGGER no_sells BEFORE INSERT ON trades WHEN NEW.side = 'sell' \
                  BEGIN SELECT RAISE(ABORT, 'sells are not wanted'); END";
    sqlx::query(refuse).execute(&mut bench.connection().await).await.unwrap();
    let is_written = |report: &Value| report["checks"]["eth/deadletters.sqlite"]["duration"].is_string();
    program.until("a dead letter was written, and how long that took is shown", is_written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_those_of_the_one_list_with_their_labels() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(200).await;
    let (_, text) = program.get("/metrics").await;
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label);
        seen.entry(base.to_owned()).or_default().extend(labels.filter(|label| *label != "le").map(str::to_owned));
    }
    for metric in metrics::ALL {
        let labels = seen.remove(metric.name).unwrap_or_else(|| panic!("no `{}` in\n{text}", metric.name));
        assert_eq!(labels, metric.labels.iter().map(|label| (*label).to_owned()).collect(), "{}", metric.name);
        assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}", metric.name);
    }
    assert!(seen.is_empty(), "not in the list: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_venue_that_is_gone_is_degraded_and_not_ready_and_says_what_comes_next() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(200).await;
    assert_eq!(program.get("/health/ready").await.0, 200);
    let folder = bench.leave().await;
    let report = program.until("degraded", |report| status(report, "source.deribit") == "degraded").await;
    let reason = report["checks"]["eth/source.deribit"]["reason"].as_str().unwrap();
    assert!(reason.contains("again in"), "what happens next: {reason}");
    let (code, body) = program.get("/health/ready").await;
    assert!(code == 503 && body.contains("eth/source.deribit"), "{code}: {body}");
    assert_eq!(program.get("/health").await.0, 200, "it mends itself");
    assert_eq!(program.get("/health/live").await.0, 200);
    program.until_logged("  degraded    eth  ").await;
    program.kill().await;
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_opened_turns_health_red_while_the_feed_goes_on() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    std::fs::create_dir(bench.database()).unwrap();
    let mut program = bench.run();
    program.until("failed", |report| status(report, "sink.sqlite") == "failed").await;
    let spooled = |report: &Value| report["checks"]["eth/spool"]["rows_appended"].as_u64() > Some(200);
    program.until("the feed goes on into the spool", spooled).await;
    let (code, body) = program.get("/health").await;
    assert!(code == 503 && body.contains("is a directory"), "{code}: {body}");
    assert_eq!(program.get("/health/ready").await.0, 503);
    program.signal("TERM");
    let (code, log) = program.ended().await;
    assert!(log.contains("failed      eth") && log.contains("rows stay in the spool (`"), "{log}");
    assert_eq!(code, 1, "a store that needs a person is no good end; the log:\n{log}");

    // The person comes: what was spooled is stored, once.
    std::fs::remove_dir(bench.database()).unwrap();
    let mut program = bench.run();
    program.until_committed(200).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_healthy_within_six_lines_and_its_last_line_says_what_it_did() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(500).await;
    program.until_logged("  healthy     eth  ").await;
    let log = program.log();
    assert!(log.lines().count() <= 6, "{log}");
    let first = log.lines().next().unwrap();
    for wanted in
        ["  start       eth  spool data/eth/spool (new)", "http://127.0.0.1:", "sqlite: exactly-once (transaction)"]
    {
        assert!(first.contains(wanted), "no `{wanted}` in {first}");
    }
    for line in log.lines() {
        assert!(line[10..].split_whitespace().nth(1) == Some("eth"), "whose line is it? {line}");
    }
    program.signal("INT");
    let (code, log) = program.ended().await;
    assert_eq!(code, 0, "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.contains("  stopped     eth  in ") && last.contains("nothing left in the spool"), "{log}");

    let mut program = bench.run();
    program.until_logged("healthy").await;
    assert!(program.log().contains("spool data/eth/spool (resumed)"), "{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_and_the_figures_are_in_the_log_and_on_a_signal() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    bench.write("tidegate.toml", "listen = \"127.0.0.1:0\"\n[log]\nstats = \"200ms\"\nreport = \"200ms\"\n");
    let mut program = bench.run();
    program.until_committed(200).await;
    program.until_logged("\"message\":\"report\"").await;
    program.until_logged("stats eth").await;
    program.signal("USR1");
    program.until_logged("\n{\"checks\":").await;
    let log = program.log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let report = lines.iter().find(|line| line["message"] == "report").unwrap();
    assert!(report["report"]["checks"]["eth/sink.sqlite"].is_object(), "{report}");
    let stats =
        lines.iter().find(|line| line["message"].as_str().is_some_and(|text| text.starts_with("stats"))).unwrap();
    for name in ["received", "per_s", "committed", "spool", "backfilled", "gaps_open", "lost", "dropped"] {
        assert!(!stats[name].is_null(), "no `{name}` in {stats}");
    }
    assert_eq!(program.stop().await.0, 0, "a signal for a report ends nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_of_the_log_is_set_for_each_target() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let host = "listen = \"127.0.0.1:0\"\n[log]\nformat = \"human\"\nlevel = \"warn,tidegate_core::pipeline=info\"\n";
    bench.write("tidegate.toml", host);
    let mut program = bench.run();
    program.until_committed(200).await;
    let log = program.log();
    assert!(log.contains("start ") && !log.contains("subscribed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_or_a_public_address_ends_the_program_with_2_before_anything_is_made() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    for (listen, why) in [
        (taken.to_string(), "set `listen` in tidegate.toml to another port"),
        ("0.0.0.0:0".to_owned(), "set `token` in the host file, or the variable TIDEGATE_TOKEN"),
    ] {
        bench.write("tidegate.toml", &format!("listen = \"{listen}\"\n"));
        let mut program = Program::start(bench.folder(), &["run", "eth.toml"]);
        let (code, log) = program.ended().await;
        assert_eq!(code, 2, "{listen}: {log}");
        assert!(log.contains(why), "{log}");
        // The folder itself has been locked: another process that has it is named first.
        assert!(!bench.path("data/eth").exists(), "{listen}: something was made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pipelines_run_side_by_side_and_a_bad_file_leaves_the_others_running() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let other = bench.pipeline("", "").replace("name = \"eth\"", "name = \"two\"").replace("eth.sqlite", "two.sqlite");
    bench.write("two.toml", &other);
    bench.write("bad.toml", "[pipeline]\nname = \"bad\"\n[source.deribyt]\n[sink.stdout]\n");
    let mut program = bench.run_all();
    let both = |report: &Value| {
        let rows = |name: &str| report["checks"][name]["rows_committed"].as_u64() > Some(100);
        rows("eth/sink.sqlite") && rows("two/sink.sqlite")
    };
    program.until("both pipelines store", both).await;
    let (code, body) = program.get("/health").await;
    assert!(code == 503 && body.contains("bad.toml") && body.contains("deribyt"), "{code}: {body}");
    program.until_logged("did you mean `deribit`?").await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 1, "a file was refused; the log:\n{log}");

    // One that has a name and is left out is nobody's trouble.
    let mut program = Program::start(bench.folder(), &["run", ".", "--only", "t*", "--supervised", "50ms"]);
    let healthy = |report: &Value| report["checks"]["two/sink.sqlite"]["status"] == "healthy";
    let report = program.until("it runs", healthy).await;
    assert!(report["checks"]["eth/spool"].is_null(), "{report}");
    assert!(!report.to_string().contains("bad.toml"), "{report}");
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
}

fn status<'a>(report: &'a Value, stage: &str) -> &'a str {
    report["checks"][format!("eth/{stage}")]["status"].as_str().unwrap_or_default()
}
