//! What `/health/ready` answers.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use serde::Serialize;
use tokio::time::Instant;

use super::{
    StageKind,
    report::Subscriptions,
    stage::Stage,
    state::{Standing, Status},
};

/// Whether data flows from end to end. Serialised, it is the body of `/health/ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether nothing is waited for.
    pub ready: bool,
    /// What is, each with its reason.
    pub waiting_for: Vec<String>,
}

impl Readiness {
    pub(super) fn of(stages: &[Arc<Stage>], now: Instant) -> Self {
        let mut waiting_for = Vec::new();
        for stage in stages.iter().filter(|stage| stage.is_required()) {
            if let Some(why) = missing(stage, now).or_else(|| unstarted(stage, stages, now)) {
                waiting_for.push(format!("{}: {why}", stage.id));
            }
        }
        if !stages.iter().any(|stage| stage.id.kind() == StageKind::Source) {
            waiting_for.push("no pipeline is running".into());
        }
        Self { ready: waiting_for.is_empty(), waiting_for }
    }
}

/// Returns what a stage lacks to be ready.
fn missing(stage: &Stage, now: Instant) -> Option<String> {
    let Standing { status, reason, .. } = stage.judged(now);
    if matches!(status, Status::Failed | Status::Stopped) {
        return Some(format!("{status}: {reason}"));
    }
    let is_overdue = status != stage.status();
    let lacks = match stage.id.kind() {
        StageKind::Source if !stage.evidence.is_subscribed.load(Relaxed) => {
            let Subscriptions { wanted, confirmed, .. } = Subscriptions::of(stage);
            format!("{confirmed} of {wanted} subscriptions confirmed")
        }
        StageKind::Sink if !stage.evidence.is_committed_or_idle.load(Relaxed) => "nothing committed yet".into(),
        StageKind::Source | StageKind::Sink | StageKind::Spool if is_overdue => return Some(reason),
        StageKind::Source
        | StageKind::Sink
        | StageKind::Host
        | StageKind::Spool
        | StageKind::Ledger
        | StageKind::DeadLetters => return None,
    };
    Some(if reason.is_empty() { lacks } else { format!("{lacks}; {status}: {reason}") })
}

/// Returns that a pipeline has no sources yet: its spool is opened first.
fn unstarted(stage: &Stage, stages: &[Arc<Stage>], now: Instant) -> Option<String> {
    let is_source_of_it =
        |other: &Arc<Stage>| other.id.kind() == StageKind::Source && other.id.pipeline() == stage.id.pipeline();
    if stage.id.kind() != StageKind::Spool || stages.iter().any(is_source_of_it) {
        return None;
    }
    let Standing { status, reason, .. } = stage.judged(now);
    let lacks = "the pipeline has not started";
    Some(if reason.is_empty() { lacks.to_owned() } else { format!("{lacks}; {status}: {reason}") })
}
