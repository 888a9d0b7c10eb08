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

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        health::StageId,
        intake::{Handover, LinkId},
        row::Table,
    };

    #[tokio::test(start_paused = true)]
    async fn each_stage_of_the_pipeline_has_a_row_at_the_start_each_minute_and_at_the_stop() {
        let (queue, mut intake) = mpsc::channel::<Handover>(8);
        let (registry, stop) = (Registry::new(), CancellationToken::new());
        registry.stage(StageId::spool("eth")).healthy("open");
        registry.stage(StageId::sink("eth", "sqlite")).healthy("stored");
        registry.stage(StageId::spool("other")).healthy("open");
        let link = Link::new(LinkId { source: 0, line: 0 }, vec![Table::of::<Status<'_>>()], queue, usize::MAX);
        let (told, stopping) = (registry.clone(), stop.clone());
        let telling = tokio::spawn(async move { tell(link, "eth", &told, stopping).await });
        let began = tokio::time::Instant::now();
        let mut next = async || {
            let handover = intake.recv().await.expect("it tells until the stop");
            let rows = handover.records.len();
            handover.done(1);
            (began.elapsed().as_secs(), rows)
        };
        assert_eq!(next().await, (0, 2), "two stages, and none of the other pipeline");
        assert_eq!(next().await, (60, 2));
        assert_eq!(next().await, (120, 2));
        tokio::time::sleep(Duration::from_secs(5)).await;
        stop.cancel();
        assert_eq!(next().await, (125, 2), "the last word is not a minute late");
        telling.await.unwrap().unwrap();
    }
}
