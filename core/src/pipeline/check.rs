//! Dials what a pipeline names, without running it.

use super::Folder;
use crate::{
    Kind, Result,
    caught::caught,
    chunk::Plan,
    config::{Feed, Pipeline, SinkStage, SourceStage},
    connection,
    delivery::{SpoolLog, survey},
    sink::UniqueKey,
    spool::SourceInfo,
    verify::{beside, blocking},
};

/// What came of dialling one stage.
#[derive(Debug)]
pub struct Check {
    /// The stage's name: `eth/source.deribit`.
    pub stage: String,
    /// What was found.
    pub outcome: Result<String>,
}

/// Dials every source and store of a pipeline, one after the other, and holds keys against the rows that its spool in
/// `folder` has, if there is one. Takes nothing over and changes nothing, so a host may be running beside it.
pub async fn check_connections(pipeline: &Pipeline, folder: &Folder) -> Vec<Check> {
    let mut checks = Vec::new();
    for source in &pipeline.sources {
        let stage = format!("{}/source.{}", pipeline.name, source.name);
        let outcome = match &source.feed {
            Feed::Protocol { factory, connection } => {
                caught("the probe", Box::pin(connection::probe(factory, connection))).await.flatten()
            }
            Feed::Log { factory } => {
                let reach = async { factory()?.reach().await };
                caught("the probe", Box::pin(reach)).await.flatten()
            }
            Feed::Source { .. } => Ok("this source has nothing to dial".to_owned()),
        };
        checks.push(Check { stage, outcome });
    }
    let declared: Vec<_> = pipeline.sources.iter().map(SourceStage::info).collect();
    let plan = |sink: &SinkStage| plan(pipeline, declared.clone(), sink);
    for sink in &pipeline.sinks {
        let stage = format!("{}/sink.{}", pipeline.name, sink.name);
        let mut found = Vec::new();
        let outcome = match plan(sink) {
            Ok(plan) => reach(sink, &plan, &mut found).await,
            Err(error) => Err(error),
        };
        checks.push(Check { stage: stage.clone(), outcome });
        let measured = match plan(sink) {
            Ok(plan) => keys(pipeline, folder, sink, &plan, found).await,
            // It was said above.
            Err(_) => Ok(Vec::new()),
        };
        let measured = measured.unwrap_or_else(|error| vec![Err(error)]);
        checks.extend(measured.into_iter().map(|outcome| Check { stage: stage.clone(), outcome }));
    }
    checks
}

/// Dials the store of one sink, as [`check_connections`] does.
///
/// # Errors
///
/// Those of the sink.
pub async fn check_store(pipeline: &Pipeline, sink: &SinkStage) -> Result<String> {
    let declared = pipeline.sources.iter().map(SourceStage::info).collect();
    reach(sink, &plan(pipeline, declared, sink)?, &mut Vec::new()).await
}

async fn reach(sink: &SinkStage, plan: &Plan, found: &mut Vec<UniqueKey>) -> Result<String> {
    let reach = async {
        let mut store = (sink.factory)()?;
        let reached = store.reach(plan.tables()).await;
        *found = store.unique_keys();
        reached
    };
    caught("the probe", reach).await.flatten()
}

fn plan(pipeline: &Pipeline, declared: Vec<SourceInfo>, sink: &SinkStage) -> Result<Plan> {
    Plan::deriving(&pipeline.name, declared, sink.tables.clone(), pipeline.derived.clone())
}

/// Says what each key of a sink's tables makes of the rows in the spool.
async fn keys(
    pipeline: &Pipeline,
    folder: &Folder,
    sink: &SinkStage,
    plan: &Plan,
    found: Vec<UniqueKey>,
) -> Result<Vec<Result<String>>> {
    let is_declared = plan.tables().iter().any(|table| !table.key.is_empty());
    if !folder.spool().is_dir() || !is_declared && found.is_empty() {
        return Ok(Vec::new());
    }
    let mut tries = 0;
    let measured = loop {
        let reader = beside(folder).await?;
        let (name, sink_name, found) = (pipeline.name.clone(), sink.name.clone(), found.clone());
        let wanted = (sink.tables.clone(), pipeline.derived.clone());
        let sources = pipeline.sources.iter().map(SourceStage::info).collect();
        let read = move || survey(SpoolLog::new(reader), (&name, &sink_name), sources, wanted, &found);
        match blocking(read).await? {
            // The host beside may have let go of a segment that was about to be read.
            Err(error) if tries < TRIES && matches!(error.kind(), Kind::Transient { .. }) => tries += 1,
            measured => break measured?,
        }
    };
    Ok(measured.into_iter().filter(|key| key.rows > 0).map(|key| Ok(key.to_string())).collect())
}

const TRIES: u32 = 5;
