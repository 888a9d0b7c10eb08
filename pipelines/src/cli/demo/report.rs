//! What the pipeline says of itself, as far as the screen shows it: the words are those of `/health`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One report.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Report {
    pub(super) source: Check,
    pub(super) spool: Check,
    pub(super) sink: Check,
    /// What the sink is called.
    pub(super) sink_name: String,
}

/// What is known of a stage; what is not of its kind stays empty.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Check {
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) subscribed: bool,
    pub(super) subscriptions: Subscriptions,
    pub(super) rows_received: u64,
    pub(super) rows_backfilled: u64,
    pub(super) gaps: Gaps,
    pub(super) bytes: u64,
    pub(super) rows_appended: u64,
    pub(super) synced_lag_seconds: f64,
    pub(super) rows_committed: u64,
    pub(super) oldest_uncommitted_seconds: Option<f64>,
    pub(super) commit_seconds: Option<Quantiles>,
}

/// A distribution, in short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// What was asked for, and what of it the venue has confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Subscriptions {
    pub(super) wanted: u64,
    pub(super) confirmed: u64,
}

/// Gaps by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Gaps {
    pub(super) open: u64,
    pub(super) filled: u64,
    pub(super) lost: u64,
    /// How long nobody listened to what the venue does not repeat.
    pub(super) unrepeatable_seconds: f64,
}

#[derive(Deserialize)]
struct Line {
    checks: BTreeMap<String, Check>,
}

impl Report {
    /// Reads a line of the child's standard output; `None` for one that is no report.
    pub(super) fn read(line: &str) -> Option<Self> {
        let Line { checks } = serde_json::from_str(line).ok()?;
        let mut report = Self::default();
        // There is one pipeline, with a source and a sink.
        for (name, check) in checks {
            match name.split_once('/').map(|(_, stage)| stage.split_once('.').unwrap_or((stage, ""))) {
                Some(("source", _)) => report.source = check,
                Some(("spool", _)) => report.spool = check,
                Some(("sink", name)) => (report.sink, report.sink_name) = (check, name.to_owned()),
                Some(_) | None => {}
            }
        }
        Some(report)
    }

    /// Returns whether the venue has confirmed everything and no gap is open.
    pub(super) fn is_healed(&self) -> bool {
        self.source.subscribed && self.source.gaps.open == 0
    }

    /// Returns whether, on top of that, everything that came is stored.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_healed() && self.sink.oldest_uncommitted_seconds.is_none()
    }

    /// Returns what needs a person.
    pub(super) fn failure(&self) -> Option<String> {
        let sink = format!("sink {}", self.sink_name);
        let stages = [("source deribit", &self.source), ("spool", &self.spool), (&sink, &self.sink)];
        let (name, failed) = stages.into_iter().find(|(_, check)| check.status == "failed")?;
        Some(format!("{name} failed: {}", failed.reason))
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::health::{Registry, StageId};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn the_words_are_those_of_the_health_report() {
        let registry = Registry::new();
        let source = registry.stage(StageId::source("demo", "deribit"));
        source.subscribed();
        source.subscriptions(52, 51, 0);
        source.received(Instant::now(), 30);
        source.backfilled(4);
        source.gaps_open(1);
        source.gaps_filled(2);
        source.gaps_lost(3);
        source.unrepeatable(std::time::Duration::from_millis(1_500));
        let spool = registry.stage(StageId::spool("demo"));
        spool.healthy("takes what comes");
        let sink = registry.stage(StageId::sink("demo", "sqlite"));
        sink.uncommitted_since(Some(Instant::now()));
        sink.committed(Instant::now(), 20);
        sink.failed("the disk is gone");

        let line = serde_json::to_string(&registry.report()).unwrap();
        let report = Report::read(&line).unwrap();
        assert_eq!(report.source.subscriptions, Subscriptions { wanted: 52, confirmed: 51 });
        assert_eq!((report.source.rows_received, report.source.rows_backfilled), (30, 4));
        assert_eq!(report.source.gaps, Gaps { open: 1, filled: 2, lost: 3, unrepeatable_seconds: 1.5 });
        assert!(report.source.subscribed && report.sink.oldest_uncommitted_seconds.is_some());
        assert!(report.sink.commit_seconds.is_some());
        assert_eq!((report.spool.status.as_str(), report.sink.rows_committed), ("healthy", 20));
        assert_eq!(report.failure().unwrap(), "sink sqlite failed: the disk is gone");
        assert!(!report.is_quiet());
        assert_eq!(Report::read("no report"), None);
    }
}
