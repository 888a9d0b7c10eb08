//! A source as the pipeline's file has it: what is known of it before it runs.

use std::{sync::Arc, time::Duration};

use super::supervise::MakeSource;
use crate::{
    Error, Result,
    config::{Feed, SourceStage},
    connection::ConnectionSource,
    health::{Registry, StageHealth, StageId},
    intake,
    row::Table,
    source::Source,
    spool::SourceInfo,
};

/// A source with what is known of it before it runs.
pub(super) struct SourceFeed {
    pub(super) name: Arc<str>,
    venue: Arc<str>,
    required: bool,
    tables: Vec<Arc<Table>>,
    history_lag: Duration,
    pub(super) make: MakeSource,
}

impl SourceFeed {
    pub(super) fn new(stage: SourceStage) -> Result<Self> {
        let (make, history_lag): (MakeSource, _) = match stage.feed {
            Feed::Protocol { factory, connection } => {
                let history_lag = factory()?.limits().history_lag;
                let make = move || {
                    let source = ConnectionSource::new(factory.clone(), connection.clone())?;
                    Ok(Box::new(source) as Box<dyn Source>)
                };
                (Box::new(make), history_lag)
            }
            Feed::Source { factory } => (Box::new(move || factory()), Duration::ZERO),
            Feed::Log { .. } => return Err(Error::config("a source that is a log has no spool")),
        };
        let tables = make()?.tables().into_iter().map(Arc::new).collect();
        let (name, venue) = (stage.name.into(), stage.component.into());
        Ok(Self { name, venue, required: stage.required, tables, history_lag, make })
    }

    pub(super) fn owned_tables(&self) -> Vec<Table> {
        self.tables.iter().map(|table| (**table).clone()).collect()
    }

    pub(super) fn health(&self, registry: &Registry, pipeline: &str) -> StageHealth {
        let health = registry.stage(StageId::source(pipeline, &self.name));
        if !self.required {
            health.side_input();
        }
        health
    }

    pub(super) fn info(&self) -> SourceInfo {
        SourceInfo { name: self.name.clone(), venue: self.venue.clone(), tables: self.tables.clone() }
    }

    pub(super) fn intake_source(&self) -> intake::SourceSetup {
        intake::SourceSetup { info: self.info(), history_lag: self.history_lag }
    }
}
