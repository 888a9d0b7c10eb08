//! What the health registry writes to the log.
//!
//! In a process of its own: `tracing` remembers for the whole process whether anybody listens to a line, and asks only
//! the thread that comes by first.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tidegate_core::health::{Registry, StageHealth, StageId};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

#[test]
fn the_start_of_a_pipeline_is_one_line_and_not_one_for_each_stage() {
    let lines = lines_of(|| {
        running(&Registry::new());
    });
    assert_eq!(lines, ["INFO healthy eth 52 of 52 channels"]);
}

#[test]
fn a_change_of_state_is_one_line_that_says_what_happens_next() {
    let lines = lines_of(|| {
        let (source, sink) = running(&Registry::new());
        source.degraded("connection lost: no pong for 10 s; trying again in 1 s (attempt 1)");
        source.degraded("connection lost: no pong for 10 s; trying again in 2 s (attempt 2)");
        source.degraded("connection refused; trying again in 4 s (attempt 3)");
        source.healthy("52 of 52 channels, 11.8 s were missed");
        source.healthy("52 of 52 channels, 12.1 s were missed");
        sink.failed("password refused; change it and restart");
        sink.healthy("as if nothing had happened");
        sink.restarted("restarting in 1 s");
        // In the pipeline's own last line.
        sink.stopped("told to; 3,204 rows stay in the spool");
    });
    let expected = [
        "INFO healthy eth 52 of 52 channels",
        "WARN degraded eth connection lost: no pong for 10 s; trying again in 1 s (attempt 1)",
        "WARN degraded eth connection refused; trying again in 4 s (attempt 3)",
        "INFO healthy eth 52 of 52 channels, 11.8 s were missed",
        "ERROR failed eth password refused; change it and restart",
        "INFO starting eth restarting in 1 s",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_pipeline_is_called_healthy_when_all_of_it_is_and_else_the_stage_that_has_recovered() {
    let lines = lines_of(|| {
        let registry = Registry::new();
        let (source, sink) = running(&registry);
        let ledger = registry.stage(StageId::ledger("eth"));
        ledger.degraded("the disk is full; tried again");
        sink.degraded("the database is locked; trying again in 1 s");
        source.degraded("connection lost; trying again in 1 s");
        source.healthy("52 of 52 channels");
        ledger.healthy("follows the spool");
        sink.healthy("rows are stored again");
    });
    let expected = [
        "WARN degraded eth the disk is full; tried again",
        "WARN degraded eth the database is locked; trying again in 1 s",
        "WARN degraded eth connection lost; trying again in 1 s",
        "INFO healthy eth/source.deribit 52 of 52 channels",
        "INFO healthy eth/ledger follows the spool",
        "INFO healthy eth rows are stored again",
    ];
    assert_eq!(lines[1..], expected);
}

#[test]
fn a_source_that_recovers_beside_a_sink_that_never_began_speaks_for_itself() {
    let lines = lines_of(|| {
        let registry = Registry::new();
        let source = registry.stage(StageId::source("eth", "deribit"));
        let _sink = registry.stage(StageId::sink("eth", "sqlite"));
        source.healthy("52 of 52 channels");
        source.degraded("connection lost; trying again in 1 s");
        source.healthy("52 of 52 channels");
    });
    assert_eq!(
        lines,
        ["WARN degraded eth connection lost; trying again in 1 s", "INFO healthy eth/source.deribit 52 of 52 channels"]
    );
}

#[test]
fn the_line_of_a_start_names_the_stage_whose_words_it_has() {
    let stages = stages_of(|| {
        let registry = Registry::new();
        let (source, ledger) =
            (registry.stage(StageId::source("eth", "deribit")), registry.stage(StageId::ledger("eth")));
        source.healthy("52 of 52 channels");
        ledger.healthy("follows the spool");
    });
    assert_eq!(stages, ["source.deribit: healthy eth 52 of 52 channels"]);
}

#[test]
fn stages_of_one_kind_are_told_apart() {
    let lines = lines_of(|| {
        let registry = Registry::new();
        running(&registry);
        registry.stage(StageId::sink("eth", "archive")).degraded("disk full; trying again in 1 s");
        registry.stage(StageId::host("http")).failed("address in use");
    });
    assert_eq!(
        lines[1..],
        ["WARN degraded eth/sink.archive disk full; trying again in 1 s", "ERROR failed host.http address in use"]
    );
}

fn running(registry: &Registry) -> (StageHealth, StageHealth) {
    let source = registry.stage(StageId::source("eth", "deribit"));
    let spool = registry.stage(StageId::spool("eth"));
    let sink = registry.stage(StageId::sink("eth", "sqlite"));
    spool.healthy("open");
    source.healthy("52 of 52 channels");
    sink.healthy("first rows stored 1.9 s after start");
    (source, sink)
}

/// Runs `work` and returns what it logged at `INFO` and above: level and message.
fn lines_of(work: impl FnOnce()) -> Vec<String> {
    logged_by(work).into_iter().map(|Line { level, message, .. }| format!("{level} {message}")).collect()
}

/// Runs `work` and returns what it logged at `INFO` and above: the field `stage`, and the message.
fn stages_of(work: impl FnOnce()) -> Vec<String> {
    logged_by(work).into_iter().map(|Line { stage, message, .. }| format!("{stage}: {message}")).collect()
}

fn logged_by(work: impl FnOnce()) -> Vec<Line> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::with_default(Lines(Arc::clone(&lines)), work);
    std::mem::take(&mut *lines.lock().expect("nobody panics while holding it"))
}

struct Lines(Arc<Mutex<Vec<Line>>>);

#[derive(Default)]
struct Line {
    level: String,
    stage: String,
    message: String,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { level: event.metadata().level().to_string(), ..Line::default() };
        event.record(&mut line);
        self.0.lock().expect("nobody panics while holding it").push(line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            // A text is shown as one, in quotes.
            "stage" => self.stage = format!("{value:?}").trim_matches('"').to_owned(),
            _ => {}
        }
    }
}
