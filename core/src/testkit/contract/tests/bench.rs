//! The bench of that store: it can do everything.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    super::{CannotTell, SinkBench, StoredRow},
    how::refuses,
    server::Server,
    sink::{Flaw, Kind, MemorySink},
};
use crate::{
    chunk::SinkTable,
    config::OnConflict,
    row::{Column, Value},
    sink::{Owner, Sink},
    spool::SpoolPosition,
    testkit::Proxy,
};

pub(super) struct Bench {
    server: Server,
    proxy: Proxy,
    kind: Kind,
    flaw: Option<Flaw>,
}

impl Bench {
    pub(super) async fn start(kind: Kind, flaw: Option<Flaw>) -> Self {
        let server = Server::start().await;
        let proxy = Proxy::to(server.address().to_string()).await.unwrap();
        Self { server, proxy, kind, flaw }
    }
}

#[async_trait]
impl SinkBench for Bench {
    fn sink(&self) -> Box<dyn Sink> {
        Box::new(MemorySink::new(self.server.connector(self.proxy.address()), self.kind, self.flaw))
    }

    async fn rows(&mut self, table: &SinkTable) -> Vec<StoredRow> {
        let disk = self.server.disk();
        let rows = disk.tables.get(&table.name).map(|rows| rows.rows.as_slice()).unwrap_or_default();
        rows.iter().map(|(_, row)| row.clone()).collect()
    }

    async fn position(&mut self, owner: &Owner) -> Result<Option<SpoolPosition>, CannotTell> {
        let disk = self.server.disk();
        Ok(disk.positions.get(&(owner.pipeline.clone(), owner.sink.clone())).map(|held| held.at))
    }

    fn refuses(&self, _: &Column, value: Option<&Value>) -> bool {
        refuses(value)
    }

    fn refuses_table(&self, name: &str) -> bool {
        name.contains(';')
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    async fn restart(&mut self) -> bool {
        self.server.restart(self.flaw == Some(Flaw::ForgetsAtRestart)).await;
        true
    }

    async fn freeze(&mut self) -> bool {
        self.server.freeze(true);
        true
    }

    async fn thaw(&mut self) {
        self.server.freeze(false);
    }

    async fn drop_table(&mut self, table: &SinkTable) -> bool {
        self.server.disk().tables.remove(&table.name).is_some()
    }

    async fn drop_column(&mut self, table: &SinkTable, column: &str) -> bool {
        let mut disk = self.server.disk();
        let Some(table) = disk.tables.get_mut(&table.name) else { return false };
        table.columns.remove(column);
        table.rows.iter_mut().for_each(|(_, row)| drop(row.remove(column)));
        true
    }

    fn knows(&self, _: OnConflict) -> bool {
        self.kind == Kind::Transaction
    }

    fn huge(&self) -> u64 {
        3_000
    }

    /// Nothing mends what a flawed sink waits for.
    fn patience(&self) -> Duration {
        if self.flaw.is_some() { Duration::from_secs(5) } else { Duration::from_secs(60) }
    }
}
