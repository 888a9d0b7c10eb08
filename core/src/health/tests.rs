use std::num::NonZeroU32;

use serde_json::{Value, json};

use crate::policy::Breaker;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// One pipeline with everything that it needs.
struct Pipeline {
    registry: Registry,
    source: StageHealth,
    spool: StageHealth,
    sink: StageHealth,
    dead_letters: StageHealth,
}

impl Pipeline {
    fn starting() -> Self {
        let registry = Registry::new();
        Self {
            source: registry.stage(StageId::source("eth", "deribit")),
            spool: registry.stage(StageId::spool("eth")),
            sink: registry.stage(StageId::sink("eth", "sqlite")),
            dead_letters: registry.stage(StageId::dead_letters("eth", "sqlite")),
            registry,
        }
    }

    fn running() -> Self {
        let pipeline = Self::starting();
        let now = Instant::now();
        pipeline.spool.healthy("open");
        pipeline.dead_letters.healthy("open");
        pipeline.source.connections(1);
        pipeline.source.subscriptions(52, 52, 0);
        pipeline.source.subscribed();
        pipeline.source.frame(now);
        pipeline.source.received(now, 3);
        pipeline.source.healthy("52 of 52 channels");
        pipeline.sink.committed(now, 3);
        pipeline.sink.healthy("first rows stored 1.9 s after start");
        pipeline
    }

    fn status(&self) -> Status {
        self.registry.report().status
    }

    fn waiting_for(&self) -> Vec<String> {
        let readiness = self.registry.ready();
        assert_eq!(readiness.ready, readiness.waiting_for.is_empty());
        readiness.waiting_for
    }
}

#[test]
fn is_green_when_everything_runs() {
    let pipeline = Pipeline::running();
    assert_eq!(pipeline.status(), Status::Healthy);
    assert!(pipeline.registry.report().is_up());
    assert_eq!(pipeline.waiting_for(), [""; 0]);
    assert!(pipeline.registry.live());
}

#[test]
fn an_empty_registry_is_neither_up_nor_ready() {
    let registry = Registry::new();
    assert_eq!(registry.report().status, Status::Starting);
    assert!(!registry.report().is_up());
    assert_eq!(registry.ready().waiting_for, ["no pipeline is running"]);
}

#[test]
fn is_red_until_every_stage_has_begun() {
    let pipeline = Pipeline::starting();
    assert_eq!(pipeline.status(), Status::Starting);
    assert!(!pipeline.registry.report().is_up());
    pipeline.source.subscriptions(52, 40, 0);
    let expected = ["eth/source.deribit: 40 of 52 subscriptions confirmed", "eth/sink.sqlite: nothing committed yet"];
    assert_eq!(pipeline.waiting_for(), expected);
}

#[test]
fn every_required_stage_can_turn_the_whole_red() {
    let stages: [fn(&Pipeline) -> &StageHealth; 4] = [|p| &p.source, |p| &p.spool, |p| &p.sink, |p| &p.dead_letters];
    for stage in stages {
        let pipeline = Pipeline::running();
        let stage = stage(&pipeline);
        stage.degraded("store down; trying again in 1 s (attempt 1)");
        assert_eq!(pipeline.status(), Status::Degraded, "{}", stage.id());
        assert!(pipeline.registry.report().is_up(), "it mends itself");

        stage.failed("password refused; change it and restart");
        assert_eq!(pipeline.status(), Status::Failed, "{}", stage.id());
        assert!(!pipeline.registry.report().is_up());
        let expected = format!("{}: failed: password refused; change it and restart", stage.id());
        assert_eq!(pipeline.waiting_for(), [expected]);

        stage.stopped("told to");
        assert_eq!(pipeline.status(), Status::Stopped, "{}", stage.id());
        assert!(!pipeline.registry.report().is_up());
        assert_eq!(pipeline.waiting_for(), [format!("{}: stopped: told to", stage.id())]);
    }
}

#[test]
fn a_lost_line_takes_readiness_away_until_the_venue_has_confirmed_again() {
    let pipeline = Pipeline::running();
    pipeline.source.unsubscribed();
    pipeline.source.subscriptions(52, 0, 0);
    pipeline.source.degraded("connection lost: no pong for 10 s; trying again in 1 s (attempt 1)");
    let why = "eth/source.deribit: 0 of 52 subscriptions confirmed; \
               degraded: connection lost: no pong for 10 s; trying again in 1 s (attempt 1)";
    assert_eq!(pipeline.waiting_for(), [why]);

    pipeline.source.subscribed();
    assert_eq!(pipeline.waiting_for(), [""; 0]);
}

#[test]
fn a_store_in_trouble_takes_readiness_away_until_it_has_committed_again() {
    let pipeline = Pipeline::running();
    pipeline.sink.degraded("connection refused; trying again in 2 s (attempt 2)");
    let why = "eth/sink.sqlite: nothing committed yet; degraded: connection refused; trying again in 2 s (attempt 2)";
    assert_eq!(pipeline.waiting_for(), [why]);
    pipeline.sink.committed(Instant::now(), 1);
    assert_eq!(pipeline.waiting_for(), [""; 0]);
}

#[test]
fn a_store_that_is_open_and_has_nothing_to_do_is_ready() {
    let pipeline = Pipeline::running();
    let quiet = pipeline.registry.stage(StageId::sink("eth", "archive"));
    assert_eq!(pipeline.waiting_for(), ["eth/sink.archive: nothing committed yet"]);
    quiet.idle();
    assert_eq!(pipeline.waiting_for(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_reads_for_ever_is_no_healthy_one() {
    let registry = Registry::new();
    let ledger = registry.stage(StageId::ledger("eth"));
    ledger.healthy("follows the spool");
    ledger.overdue_after(30 * SECOND);
    ledger.untaken_since(Some(Instant::now()));
    tokio::time::advance(31 * SECOND).await;
    let shown = || registry.report().checks["eth/ledger"].clone();
    assert_eq!(shown().status, Status::Degraded);
    let why = "what is durable has been read for 31 s, expected within 30 s; the stage itself reports nothing";
    assert_eq!(shown().reason, why);
    ledger.ledger(Instant::now(), 7, 0);
    assert_eq!(shown().status, Status::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_stuck_before_it_has_seen_what_came_is_no_healthy_one() {
    let pipeline = Pipeline::running();
    pipeline.sink.overdue_after(10 * SECOND);
    pipeline.sink.idle();
    pipeline.sink.healthy("everything in the spool is stored");
    tokio::time::advance(100 * SECOND).await;
    let shown = || pipeline.registry.report().checks["eth/sink.sqlite"].clone();
    assert_eq!(shown().status, Status::Healthy, "it waits for something to do");
    pipeline.sink.busy_since(Some(Instant::now()));
    tokio::time::advance(11 * SECOND).await;
    assert_eq!(shown().status, Status::Degraded);
    assert!(shown().reason.starts_with("it has been at one step for 11 s"), "{}", shown().reason);
    pipeline.sink.busy_since(None);
    assert_eq!(shown().status, Status::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_spool_whose_disk_hangs_is_neither_healthy_nor_ready() {
    let pipeline = Pipeline::running();
    pipeline.spool.overdue_after(10 * SECOND);
    pipeline.spool.untaken_since(Some(Instant::now()));
    assert_eq!(pipeline.waiting_for(), [""; 0]);
    tokio::time::advance(11 * SECOND).await;
    let shown = || pipeline.registry.report().checks["eth/spool"].clone();
    assert_eq!(shown().status, Status::Degraded);
    assert!(shown().reason.starts_with("the disk has not made the oldest row durable for 11 s"), "{}", shown().reason);
    assert_eq!(pipeline.waiting_for(), [format!("eth/spool: {}", shown().reason)]);
    pipeline.spool.untaken_since(None);
    assert_eq!(shown().status, Status::Healthy);
    assert_eq!(pipeline.waiting_for(), [""; 0]);
}

#[test]
fn a_pipeline_that_has_not_started_is_not_ready_whatever_the_others_are() {
    let pipeline = Pipeline::running();
    let spool = pipeline.registry.stage(StageId::spool("other"));
    assert_eq!(pipeline.waiting_for(), ["other/spool: the pipeline has not started"]);
    spool.degraded("no space left on device; trying again in 1.0 s");
    let why = "other/spool: the pipeline has not started; degraded: no space left on device; trying again in 1.0 s";
    assert_eq!(pipeline.waiting_for(), [why]);
    pipeline.registry.stage(StageId::source("other", "deribit")).subscribed();
    assert_eq!(pipeline.waiting_for(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_driver_is_seen_by_its_evidence() {
    let pipeline = Pipeline::running();
    pipeline.source.overdue_after(30 * SECOND);
    pipeline.sink.overdue_after(10 * SECOND);
    pipeline.sink.uncommitted_since(Some(Instant::now()));
    tokio::time::advance(11 * SECOND).await;
    assert_eq!(pipeline.status(), Status::Healthy, "accepted and not yet durable is no fault");

    pipeline.source.frame(Instant::now());
    pipeline.sink.untaken_since(Some(Instant::now()));
    tokio::time::advance(10 * SECOND).await;
    assert_eq!(pipeline.status(), Status::Healthy);

    tokio::time::advance(SECOND).await;
    assert_eq!(pipeline.status(), Status::Degraded);
    let why = "the oldest row has waited for 11 s, expected within 10 s; the stage itself reports nothing";
    assert_eq!(pipeline.registry.report().checks["eth/sink.sqlite"].reason, why);
    assert_eq!(pipeline.waiting_for(), [format!("eth/sink.sqlite: {why}")]);

    pipeline.sink.untaken_since(None);
    assert_eq!(pipeline.status(), Status::Healthy);
    tokio::time::advance(20 * SECOND).await;
    assert!(pipeline.waiting_for()[0].starts_with("eth/source.deribit: no frame for 31 s"));
    pipeline.source.frame(Instant::now());
    assert_eq!(pipeline.waiting_for(), [""; 0]);
}

#[test]
fn a_side_input_is_shown_and_not_waited_for() {
    let pipeline = Pipeline::running();
    let side = pipeline.registry.stage(StageId::source("eth", "sentiment"));
    side.side_input();
    side.failed("key revoked; get a new one");
    assert_eq!(pipeline.status(), Status::Healthy);
    assert_eq!(pipeline.waiting_for(), [""; 0]);
    let check = &pipeline.registry.report().checks["eth/source.sentiment"];
    assert_eq!((check.status, check.required), (Status::Failed, false));
}

#[test]
fn a_restarted_stage_has_to_subscribe_and_commit_anew() {
    let pipeline = Pipeline::running();
    pipeline.source.failed("panicked");
    assert!(!pipeline.source.healthy("as if nothing had happened"), "failed needs a person or a restart");
    assert_eq!(pipeline.source.status(), Status::Failed);
    pipeline.source.restarted("restarting after a panic");
    pipeline.sink.restarted("restarting after a panic");
    assert_eq!(pipeline.waiting_for().len(), 2);
    assert!(pipeline.source.healthy("subscribed"));
}

#[test]
fn one_pipeline_is_forgotten_without_the_others() {
    let pipeline = Pipeline::running();
    pipeline.registry.stage(StageId::source("btc", "deribit")).failed("gone");
    assert_eq!(pipeline.status(), Status::Failed);
    pipeline.registry.forget("btc");
    assert_eq!(pipeline.status(), Status::Healthy);
}

#[tokio::test(start_paused = true)]
async fn is_dead_when_the_runtime_no_longer_turns() {
    let registry = Registry::new();
    tokio::time::advance(6 * SECOND).await;
    assert!(!registry.live(), "nobody beats");

    let stop = CancellationToken::new();
    let heart = tokio::spawn({
        let (registry, stop) = (registry.clone(), stop.clone());
        async move { registry.heartbeat(stop).await }
    });
    // Under paused time a sleep returns when the other tasks have nothing left to do.
    tokio::time::sleep(60 * SECOND).await;
    assert!(registry.live());

    stop.cancel();
    heart.await.unwrap();
    tokio::time::advance(6 * SECOND).await;
    assert!(!registry.live(), "the heart has stopped");
}

#[test]
fn the_report_has_the_documented_shape() {
    let pipeline = Pipeline::running();
    pipeline.source.subscriptions(52, 51, 1);
    pipeline.source.quiet(7, ["a\nb"].into_iter());
    pipeline.source.gaps_open(1);
    pipeline.source.gaps_filled(4);
    pipeline.source.gaps_lost(2);
    pipeline.source.gaps_resynchronised(3);
    pipeline.source.unrepeatable(Duration::from_millis(1_500));
    pipeline.source.unrepeatable(Duration::from_millis(1_000));
    pipeline.source.backfilled(212);
    pipeline.sink.checked(Instant::now(), Duration::from_micros(1_500));
    pipeline.spool.appended(Instant::now(), 5);
    pipeline.spool.spool_bytes(61, 1_000);
    pipeline.spool.synced_lag(Duration::from_millis(3));
    pipeline.spool.took(Duration::from_millis(1));
    pipeline.spool.took(Duration::from_millis(2));
    pipeline.spool.dropped(9);
    pipeline.dead_letters.dead_letters(7);
    let report = serde_json::to_value(pipeline.registry.report()).unwrap();

    assert_eq!(report["status"], "healthy");
    let is_time = |value: &Value| humantime::parse_rfc3339(value.as_str().unwrap()).is_ok();
    assert!(is_time(&report["timestamp"]));
    for (name, check) in report["checks"].as_object().unwrap() {
        assert!(is_time(&check["last_check"]) && is_time(&check["since"]), "{name}");
        assert_eq!((&check["status"], &check["required"]), (&json!("healthy"), &json!(true)), "{name}");
    }

    let source = &report["checks"]["eth/source.deribit"];
    assert_eq!(source["subscriptions"], json!({ "wanted": 52, "confirmed": 51, "refused": 1, "quiet": 7 }));
    assert_eq!(source["quiet_channels"], json!(["a\\nb"]), "no name forges a line");
    assert_eq!(
        source["gaps"],
        json!({
            "open": 1, "filled": 4, "resynchronised": 3, "lost": 2, "filling": null, "unrepeatable_seconds": 2.5,
        })
    );
    assert_eq!([&source["rows_received"], &source["rows_backfilled"], &source["connections"]], [3, 212, 1]);
    assert!(is_time(&source["last_frame"]) && is_time(&source["last_row"]));
    assert_eq!(source["duration"], json!(null), "nothing was measured");
    let sink = &report["checks"]["eth/sink.sqlite"];
    assert_eq!(sink["duration"], "1ms 500us");
    assert_eq!((&sink["rows_committed"], &sink["committed_or_idle"]), (&json!(3), &json!(true)));
    assert_eq!((&sink["oldest_uncommitted_seconds"], &sink["commit_seconds"]), (&Value::Null, &Value::Null));
    let spool = &report["checks"]["eth/spool"];
    assert_eq!(
        [&spool["bytes"], &spool["max_bytes"], &spool["rows_appended"], &spool["rows_dropped"]],
        [61, 1_000, 5, 9]
    );
    assert_eq!(spool["synced_lag_seconds"], 0.003);
    assert_eq!(spool["duration"], "2ms", "the last one counts");
    assert_eq!(report["checks"]["eth/deadletters.sqlite"]["dead_letters"], 7);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_shown_with_its_reason_and_the_time_of_the_next_probe() {
    let pipeline = Pipeline::running();
    let mut breaker = Breaker::new(NonZeroU32::MIN, 30 * SECOND, NonZeroU32::MIN);
    let now = Instant::now();
    assert!(breaker.allow(now));
    breaker.failed(now, "connection refused");
    pipeline.sink.breaker("store", now, breaker.snapshot(now));
    tokio::time::advance(10 * SECOND).await;

    let report = pipeline.registry.report();
    let Detail::Sink(sink) = &report.checks["eth/sink.sqlite"].detail else { panic!("not a sink") };
    let shown = &sink.breakers["store"];
    assert_eq!(shown.reason.as_deref(), Some("connection refused"));
    assert_eq!(serde_json::to_value(shown.state).unwrap(), "open");
    let probe = humantime::parse_rfc3339(shown.next_probe.as_deref().unwrap()).unwrap();
    let reported = humantime::parse_rfc3339(&report.timestamp).unwrap();
    let in_seconds = probe.duration_since(reported).unwrap().as_secs_f64().round();
    assert!((in_seconds - 20.0).abs() < 0.5, "10 of 30 seconds have passed, {in_seconds} are left");
}

#[tokio::test(start_paused = true)]
async fn commits_show_how_long_the_oldest_rows_of_the_last_ones_had_waited() {
    let pipeline = Pipeline::starting();
    for milliseconds in 1..=300 {
        pipeline.sink.uncommitted_since(Some(Instant::now()));
        tokio::time::advance(Duration::from_millis(milliseconds)).await;
        pipeline.sink.committed(Instant::now(), 1);
    }
    pipeline.sink.committed(Instant::now(), 0);
    let report = pipeline.registry.report();
    let Detail::Sink(sink) = &report.checks["eth/sink.sqlite"].detail else { panic!("not a sink") };
    // The last 256 of them are 45 to 300 ms; an empty chunk makes nobody wait.
    assert_eq!(sink.commit_seconds, Some(Quantiles { p50: 0.172, p99: 0.297 }));
}

#[test]
fn a_stage_is_one_however_often_it_is_named() {
    let registry = Registry::new();
    registry.stage(StageId::source("eth", "deribit")).received(Instant::now(), 1);
    let elsewhere = registry.clone();
    elsewhere.stage(StageId::source("eth", "deribit")).received(Instant::now(), 2);
    let report = registry.report();
    let Detail::Source(source) = &report.checks["eth/source.deribit"].detail else { panic!("not a source") };
    assert_eq!(source.rows_received, 3);
    assert_eq!(report.checks.len(), 1);
}
