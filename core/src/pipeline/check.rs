//! Dials what a pipeline names, without running it.

use crate::{
    Result,
    caught::caught,
    chunk::Plan,
    config::{Feed, Pipeline, SinkStage, SourceStage},
    connection,
};

/// What came of dialling one stage.
#[derive(Debug)]
pub struct Check {
    /// The stage's name: `eth/source.deribit`.
    pub stage: String,
    /// What was found.
    pub outcome: Result<String>,
}

/// Dials every source and store of a pipeline, one after the other. Takes nothing over and changes nothing, so a host may
/// be running beside it.
pub async fn check_connections(pipeline: &Pipeline) -> Vec<Check> {
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
    let plan = |sink: &SinkStage| {
        Plan::deriving(&pipeline.name, declared.clone(), sink.tables.clone(), pipeline.derived.clone())
    };
    for sink in &pipeline.sinks {
        let stage = format!("{}/sink.{}", pipeline.name, sink.name);
        let reach = async {
            let mut store = (sink.factory)()?;
            store.reach(plan(sink)?.tables()).await
        };
        checks.push(Check { stage, outcome: caught("the probe", reach).await.flatten() });
    }
    checks
}
