//! The connection driver: everything about a venue's connection but the venue.
//!
//! ```text
//!            ┌──────────── driver: one task, one loop ─────────────┐
//!  socket ───┤ frames → Protocol → Link → intake                   │
//!            │ subscriptions · liveness · backfill · rest · …      ├── pure values: what is due, and when
//!  HTTP  ────┤ transport: sockets, or a script in tests            │
//!            └─────────────────────────────────────────────────────┘
//! ```
//!
//! The loop waits for whatever happens first, tells the values, and does what they say is due. It never waits for the
//! pipeline while frames come: what intake cannot take yet is collected, and when that becomes too much the session ends,
//! in the log, since nobody knows any more what the venue sent.

mod backfill;
pub mod capture;
mod discovery;
mod driver;
mod liveness;
mod metered;
mod played;
mod probe;
mod quiet;
mod reconnect;
mod replay;
mod rest;
mod secrets;
mod standing;
mod subscriptions;
mod transport;
mod vouch;

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Result,
    catalog::Factory,
    config::{ConnectionConfig, Faults},
    protocol::Protocol,
    row::Table,
    source::{Source, SourceContext},
    spool::disk::{Disk, RealDisk},
};
use driver::Driver;
pub use probe::probe;
pub use replay::ReplaySource;
use transport::Sockets;

/// A venue: its protocol, driven over one connection, or by a recording of one.
pub struct ConnectionSource {
    factory: Factory<Box<dyn Protocol>>,
    config: ConnectionConfig,
    tables: Vec<Table>,
}

impl ConnectionSource {
    /// Returns the source of a protocol, which `factory` makes anew after a panic.
    ///
    /// # Errors
    ///
    /// `Config` for what `check` says of these keys; what the factory returned.
    pub fn new(factory: Factory<Box<dyn Protocol>>, config: ConnectionConfig) -> Result<Self> {
        let mut faults = Faults::default();
        config.check(&mut faults);
        faults.into_result()?;
        let tables = factory()?.tables();
        Ok(Self { factory, config, tables })
    }
}

#[async_trait]
impl Source for ConnectionSource {
    fn tables(&self) -> Vec<Table> {
        self.tables.clone()
    }

    async fn run(self: Box<Self>, cx: SourceContext) -> Result<()> {
        if let Some(replay) = self.config.replay {
            return Box::new(ReplaySource::new(self.factory, replay)?).run(cx).await;
        }
        let http = match &self.config.extra_ca {
            Some(file) => cx.http.with_ca(file).await?,
            None => cx.http.clone(),
        };
        let max_message = usize::try_from(self.config.max_message.0).unwrap_or(usize::MAX);
        let (capture, name) = (self.config.capture.clone(), Arc::clone(&cx.name));
        let folder = capture.map(|capture| {
            capture.folder(cx.health.id().pipeline(), &name).unwrap_or_else(|| cx.folder.join("capture"))
        });
        let mut driver = Driver::new(Sockets { http, max_message }, self.factory, self.config, cx)?;
        if let Some(folder) = folder {
            driver.record(RealDisk::create(folder).map(|disk| Arc::new(disk) as Arc<dyn Disk>), &name);
        }
        driver.run().await
    }
}
