//! `status`: how each stage of a pipeline is, when it starts, once a minute, and when it stops.

use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::Status;
use crate::{
    Result,
    health::{Check, Registry},
    intake::{Link, Step},
    row::{Label, Mark, Origin, Position, Timestamp},
};

/// Hands over a row for each stage of `pipeline` until `stop` is cancelled, and once more then.
///
/// # Errors
///
/// `Permanent` when the pipeline has ended.
pub(crate) async fn tell(mut link: Link, pipeline: &str, registry: &Registry, stop: CancellationToken) -> Result<()> {
    let mut minutes = tokio::time::interval(EVERY);
    // A machine that stood still has nothing to make up for.
    minutes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(minutes.tick()).await.is_some() {
        emit(&mut link, pipeline, registry);
        // A full spool is waited for, but not beyond the stop.
        if let Some(handed_over) = stop.run_until_cancelled(link.handed_over()).await {
            handed_over?;
        }
        if link.was_refused() {
            link.step(Step::Opened);
        }
    }
    emit(&mut link, pipeline, registry);
    link.handed_over().await
}

fn emit(link: &mut Link, pipeline: &str, registry: &Registry) {
    let now = Timestamp::now();
    link.outbox().begin(now, Origin::Live);
    for (name, check) in registry.report().checks {
        let Some(stage) = name.strip_prefix(pipeline).and_then(|name| name.strip_prefix('/')) else { continue };
        let status = check.status.to_string();
        let detail = serde_json::to_string(&check).unwrap_or_default();
        let row = Status {
            pipeline: Label(pipeline),
            status: Label(&status),
            reason: (!check.reason.is_empty()).then_some(&*check.reason),
            since: since(&check).unwrap_or(now),
            detail: &detail,
        };
        link.outbox().emit(Mark { symbol: stage, position: Position::Unnumbered, ts_event: now }, &row);
    }
}

fn since(check: &Check) -> Option<Timestamp> {
    let since = humantime::parse_rfc3339(&check.since).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp(i64::try_from(since.as_nanos()).ok()?))
}

const EVERY: Duration = Duration::from_secs(60);
