use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use ::metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString};

use crate::{
    health::{Registry, StageId},
    policy::BreakerState,
    spool::GapOutcome,
};

use super::*;

#[test]
fn the_list_is_what_the_handles_register() {
    let recorder = Registered::default();
    ::metrics::with_local_recorder(&recorder, register_everything);

    let mut registered = BTreeSet::new();
    for (kind, name, labels) in recorder.series.lock().unwrap().iter() {
        let keys: Vec<String> = labels.keys().cloned().collect();
        registered.insert((*kind, name.clone(), keys));
    }
    let mut listed = BTreeSet::new();
    for metric in ALL {
        let mut labels: Vec<String> = metric.labels.iter().map(|&label| label.into()).collect();
        labels.sort();
        listed.insert((metric.kind, metric.name.to_owned(), labels));
    }
    let missing: Vec<_> = listed.difference(&registered).collect();
    let unlisted: Vec<_> = registered.difference(&listed).collect();
    assert!(missing.is_empty() && unlisted.is_empty(), "never registered: {missing:?}, not in the list: {unlisted:?}");
}

#[test]
fn every_metric_is_described_with_its_unit() {
    let recorder = Registered::default();
    ::metrics::with_local_recorder(&recorder, describe_all);
    let described = recorder.described.lock().unwrap();
    for metric in ALL {
        let expected = (metric.kind, Some(metric.unit), metric.help.to_owned());
        assert_eq!(described.get(metric.name), Some(&expected), "{}", metric.name);
    }
}

#[test]
fn names_and_labels_are_unique_and_follow_the_conventions_of_prometheus() {
    let mut names = HashSet::new();
    let is_snake = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !word.contains("__");
    for Metric { name, kind, unit, labels, help } in ALL {
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("tidegate_") && is_snake(name), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name} is a {kind:?}");
        let base = name.trim_end_matches("_total");
        assert_eq!(base.ends_with("_seconds"), *unit == Unit::Seconds, "{name} is in {unit:?}");
        assert_eq!(base.ends_with("_bytes"), *unit == Unit::Bytes, "{name} is in {unit:?}");
        assert!(help.ends_with('.') && help.len() > 15, "{name}: {help}");
        assert_eq!(labels.iter().collect::<HashSet<_>>().len(), labels.len(), "{name}: {labels:?}");
        assert!(labels.first() == Some(&"pipeline") && labels.iter().all(|label| is_snake(label)), "{name}");
    }
}

#[test]
fn each_value_of_a_label_is_a_series_of_its_own_from_the_beginning() {
    let recorder = Registered::default();
    let source = ::metrics::with_local_recorder(&recorder, || SourceMetrics::new(&StageId::source("eth", "deribit")));
    assert_eq!(recorder.values("tidegate_gaps_closed_total", "outcome"), zeros(<GapOutcome as LabelValue>::NAMES));
    assert_eq!(recorder.values("tidegate_reconnects_total", "reason"), zeros(ReconnectReason::NAMES));
    assert_eq!(recorder.values("tidegate_rest_requests_total", "outcome"), zeros(RestOutcome::NAMES));

    source.gaps_closed.of(&GapOutcome::Lost("venue forgot".into())).increment(1);
    source.gaps_closed.of(&GapOutcome::Resynchronised).increment(2);
    source.reconnects.of(&ReconnectReason::Planned).increment(3);
    source.rest_requests.of(&RestOutcome::Malformed).increment(4);
    assert_eq!(recorder.values("tidegate_gaps_closed_total", "outcome")["lost"], 1);
    assert_eq!(recorder.values("tidegate_gaps_closed_total", "outcome")["resynchronised"], 2);
    assert_eq!(recorder.values("tidegate_reconnects_total", "reason")["planned"], 3);
    assert_eq!(recorder.values("tidegate_rest_requests_total", "outcome")["malformed"], 4);
}

#[test]
fn what_is_left_out_is_counted_by_its_reason() {
    let recorder = Registered::default();
    ::metrics::with_local_recorder(&recorder, || {
        let mut source = SourceMetrics::new(&StageId::source("eth", "deribit"));
        source.ignored.of("a method of no interest").increment(1);
        source.ignored.of("a value that is no number").increment(2);
        source.ignored.of("a method of no interest").increment(1);
    });
    let counted = recorder.values("tidegate_ignored_total", "reason");
    let expected = [("none", 0), ("a method of no interest", 2), ("a value that is no number", 2)];
    assert_eq!(counted, expected.map(|(reason, n)| (reason.to_owned(), n)).into());
}

#[test]
fn stages_are_labelled_as_the_toml_and_the_report_name_them() {
    let recorder = Registered::default();
    ::metrics::with_local_recorder(&recorder, register_everything);
    let stages: BTreeSet<String> = recorder.values("tidegate_stage_status", "stage").into_keys().collect();
    assert_eq!(stages, ["deadletters.sqlite", "sink.sqlite", "source.deribit", "spool"].map(String::from).into());
}

#[test]
fn the_state_of_a_stage_and_of_a_breaker_are_numbers_that_grow_with_trouble() {
    let recorder = Registered::default();
    ::metrics::with_local_recorder(&recorder, || {
        let sink = Registry::new().stage(StageId::sink("eth", "sqlite"));
        let breaker = BreakerMetrics::new(sink.id(), "store");
        let shown = || {
            let status = recorder.gauge("tidegate_stage_status");
            (status, recorder.gauge("tidegate_breaker_state"))
        };
        assert_eq!(shown(), (1.0, 0.0));
        sink.healthy("open");
        assert_eq!(shown(), (0.0, 0.0));
        sink.degraded("connection refused; trying again in 1 s");
        breaker.show(BreakerState::Open);
        assert_eq!(shown(), (2.0, 2.0));
        sink.failed("password refused");
        breaker.show(BreakerState::HalfOpen);
        assert_eq!(shown(), (4.0, 1.0));
        sink.healthy("as if nothing had happened");
        assert_eq!(shown(), (4.0, 1.0), "a refused move is not shown");
    });
}

fn register_everything() {
    let registry = Registry::new();
    let source = registry.stage(StageId::source("eth", "deribit"));
    let spool = registry.stage(StageId::spool("eth"));
    let sink = registry.stage(StageId::sink("eth", "sqlite"));
    registry.stage(StageId::dead_letters("eth", "sqlite"));
    SourceMetrics::new(source.id());
    SpoolMetrics::new(spool.id());
    SinkMetrics::new(sink.id());
    BreakerMetrics::new(sink.id(), "store");
    PipelineMetrics::new("eth", "0.1.0").started();
}

fn zeros(names: &[&str]) -> BTreeMap<String, u64> {
    names.iter().map(|name| ((*name).to_owned(), 0)).collect()
}

type Series = (MetricKind, String, BTreeMap<String, String>);
/// A series' labels and its number, as the bits that the recorder keeps.
type Number = (BTreeMap<String, String>, Arc<AtomicU64>);
type Described = (MetricKind, Option<Unit>, String);

/// Keeps what was registered and described; a counter or gauge can be read back.
#[derive(Debug, Default)]
struct Registered {
    series: Mutex<HashSet<Series>>,
    numbers: Mutex<BTreeMap<String, Vec<Number>>>,
    described: Mutex<BTreeMap<String, Described>>,
}

impl Registered {
    fn add(&self, kind: MetricKind, key: &Key) -> Arc<AtomicU64> {
        let labels: BTreeMap<_, _> = key.labels().map(|l| (l.key().to_owned(), l.value().to_owned())).collect();
        self.series.lock().unwrap().insert((kind, key.name().to_owned(), labels.clone()));
        let number = Arc::new(AtomicU64::new(0));
        let mut numbers = self.numbers.lock().unwrap();
        numbers.entry(key.name().to_owned()).or_default().push((labels, Arc::clone(&number)));
        number
    }

    fn describe(&self, kind: MetricKind, name: &KeyName, unit: Option<Unit>, help: &SharedString) {
        self.described.lock().unwrap().insert(name.as_str().to_owned(), (kind, unit, help.to_string()));
    }

    /// Returns the raw numbers of a metric by the values of one label.
    fn values(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let numbers = self.numbers.lock().unwrap();
        numbers[name].iter().map(|(labels, n)| (labels[label].clone(), n.load(Ordering::Relaxed))).collect()
    }

    /// Returns the number of a gauge with one series.
    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.numbers.lock().unwrap()[name][0].1.load(Ordering::Relaxed))
    }
}

impl Recorder for Registered {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe(MetricKind::Counter, &name, unit, &help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe(MetricKind::Gauge, &name, unit, &help);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe(MetricKind::Histogram, &name, unit, &help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.add(MetricKind::Counter, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.add(MetricKind::Gauge, key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.add(MetricKind::Histogram, key);
        Histogram::noop()
    }
}
