//! Derived tables as topics.

use std::sync::Arc;

use async_trait::async_trait;
use tidegate_core::{Result, catalog::Component, sink::Sink};

use super::{Bench, has_topic, read};
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
        Arc::new(move || config.build())
    }

    fn name(&self, table: &str) -> String {
        self.topic(table)
    }

    async fn numbers(&self, table: &str, column: &str) -> Vec<u64> {
        let (brokers, topic) = (self.config.brokers.clone(), table.to_owned());
        let stored =
            tokio::task::spawn_blocking(
                move || {
                    if has_topic(&brokers, &topic) { read(&brokers, &topic) } else { Vec::new() }
                },
            );
        stored.await.unwrap().iter().map(|message| message.json()[column].as_u64().unwrap()).collect()
    }
}
