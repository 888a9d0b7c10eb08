//! Dials what a pipeline names, without running it.

use super::Folder;
use crate::{
    Result,
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
                caught("the probe", connection::probe(factory, connection)).await.flatten()
            }
            Feed::Source { .. } => Ok("this source has nothing to dial".to_owned()),
        };
        checks.push(Check { stage, outcome });
    }
    let declared: Vec<_> = pipeline.sources.iter().map(SourceStage::info).collect();
    let plan = |sink: &SinkStage| {
        Plan::deriving(&pipeline.name, declared.clone(), sink.tables.clone(), pipeline.derived.clone())
    };
    for sink in &pipeline.sinks {
        let stage = format!("{}/sink.{}", pipeline.name, sink.name);
        let mut found = Vec::new();
        let reach = async {
            let mut store = (sink.factory)()?;
            let plan = plan(sink)?;
            let reached = store.reach(plan.tables()).await;
            found = store.unique_keys();
            reached
        };
        let outcome = caught("the probe", reach).await.flatten();
        checks.push(Check { stage: stage.clone(), outcome });
        let measured = keys(pipeline, folder, sink, declared.clone(), found).await;
        let measured = measured.unwrap_or_else(|error| vec![Err(error)]);
        checks.extend(measured.into_iter().map(|outcome| Check { stage: stage.clone(), outcome }));
    }
    checks
}

/// Says what each key of a sink's tables makes of the rows in the spool.
async fn keys(
    pipeline: &Pipeline,
    folder: &Folder,
    sink: &SinkStage,
    sources: Vec<SourceInfo>,
    found: Vec<UniqueKey>,
) -> Result<Vec<Result<String>>> {
    let wanted = (sink.tables.clone(), pipeline.derived.clone());
    let is_declared = Plan::deriving(&pipeline.name, sources.clone(), wanted.0.clone(), wanted.1.clone())
        .is_ok_and(|plan| plan.tables().iter().any(|table| !table.key.is_empty()));
    if !folder.spool().is_dir() || !is_declared && found.is_empty() {
        return Ok(Vec::new());
    }
    let reader = beside(folder).await?;
    let (name, sink_name) = (pipeline.name.clone(), sink.name.clone());
    let measured =
        blocking(move || survey(SpoolLog::new(reader), (&name, &sink_name), sources, wanted, &found)).await??;
    Ok(measured.into_iter().filter(|key| key.rows > 0).map(|key| Ok(key.to_string())).collect())
}
