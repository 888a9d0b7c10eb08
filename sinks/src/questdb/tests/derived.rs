//! Derived tables in QuestDB.

use std::sync::Arc;

use async_trait::async_trait;
use tidegate_core::{Result, sink::Sink};

use super::{super::sink::QuestDb, Bench, Client};
use crate::delivered::{Store, derived_rows_are_there_once};

#[tokio::test(flavor = "multi_thread")]
async fn derived_rows_are_there_once_through_kills_and_a_changed_definition() {
    let bench = tokio::task::spawn_blocking(Bench::new).await.unwrap();
    derived_rows_are_there_once(&bench).await;
}

#[async_trait]
impl Store for Bench {
    fn factory(&self) -> Arc<dyn Fn() -> Result<Box<dyn Sink>> + Send + Sync> {
        let config = self.config.clone();
        Arc::new(move || Ok(Box::new(QuestDb::new(config.clone()))))
    }

    fn name(&self, table: &str) -> String {
        Self::name(self, table)
    }

    async fn numbers(&self, table: &str, column: &str) -> Vec<u64> {
        // An error is a table that is not there yet: what is missing in the end is seen.
        let rows = Client::new(&self.config).await.unwrap().sql(&format!("SELECT {column} FROM {table}")).await;
        rows.unwrap_or_default().iter().map(|row| row[0].as_u64().unwrap()).collect()
    }
}
