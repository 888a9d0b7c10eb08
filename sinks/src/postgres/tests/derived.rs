//! Derived tables, as tables of Postgres and as hypertables.

use std::sync::Arc;

use async_trait::async_trait;
use tidegate_core::{Result, sink::Sink};

use super::{super::sink::Postgres, Bench};
use crate::delivered::{Store, derived_rows_are_there_once};

#[tokio::test(flavor = "multi_thread")]
async fn derived_rows_are_there_once_through_kills_and_a_changed_definition() {
    derived_rows_are_there_once(&Bench::new().await).await;
}

/// The bench reads only between the sink's transactions: TimescaleDB's build has one backend.
#[tokio::test(flavor = "multi_thread")]
async fn derived_rows_are_there_once_in_hypertables() {
    derived_rows_are_there_once(&Bench::timescale("").await).await;
}

#[async_trait]
impl Store for Bench {
    fn factory(&self) -> Arc<dyn Fn() -> Result<Box<dyn Sink>> + Send + Sync> {
        let settings = self.settings.clone();
        Arc::new(move || Ok(Box::new(Postgres::new(settings.clone()))))
    }

    async fn numbers(&self, table: &str, column: &str) -> Vec<u64> {
        let there = format!("SELECT coalesce(to_regclass('{table}')::text, '')");
        if self.text(&there).await.is_empty() {
            return Vec::new();
        }
        let all = format!("SELECT coalesce(string_agg({column}::text, ' '), '') FROM {table}");
        self.text(&all).await.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }
}
