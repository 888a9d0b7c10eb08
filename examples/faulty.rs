//! Components that panic, for the tests of what becomes of the others: `cargo run --example faulty -- run faulty.toml`,
//! with `[source.faulty]` or `[sink.faulty]`; and faults of the program's own, planned by the variable `FAULTS`.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate::{
    Result,
    catalog::Component,
    chunk::{Chunk, Part},
    config::Secret,
    log_source::{LogContext, LogSource},
    row::{Mark, Position, Table, Timestamp, kinds::Trade},
    sink::{Guarantee, Sink, SinkContext, Written},
    source::{Source, SourceContext},
    spool::SpoolPosition,
};

/// Gives a few rows, then panics, or never comes back.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FaultySource {
    /// Rows before the panic.
    rows: u64,
    /// A secret, which the panic's own words show as any debug print of it does.
    #[serde(default)]
    key: Option<Secret>,
    /// How often it can be made before that panics: once when the file is read, once when its pipeline starts, and then for
    /// each run.
    #[serde(default = "always")]
    builds: u32,
    /// Whether it keeps its thread for ever instead.
    #[serde(default)]
    blocks: bool,
}

fn always() -> u32 {
    u32::MAX
}

static BUILDS: AtomicU32 = AtomicU32::new(0);

impl Component for FaultySource {
    const TYPE: &'static str = "faulty";
    const EXAMPLE: &'static str = "rows = 3";
    type Built = Box<dyn Source>;

    fn build(&self) -> Result<Self::Built> {
        assert!(BUILDS.fetch_add(1, Relaxed) < self.builds, "the making of the source has a fault");
        Ok(Box::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl Source for FaultySource {
    fn tables(&self) -> Vec<Table> {
        vec![Table::of::<Trade<'_>>()]
    }

    async fn run(self: Box<Self>, mut cx: SourceContext) -> Result<()> {
        for n in 1..=self.rows {
            let now = Timestamp::now();
            let mark = Mark { symbol: "FAULTY", position: Position::Unnumbered, ts_event: now };
            cx.emit(now, mark, &Trade { price: n as f64, size: 1.0, ..Trade::default() });
        }
        cx.flush().await?;
        if self.blocks {
            loop {
                std::thread::park();
            }
        }
        let source = self;
        panic!("the source has a fault: {source:?}");
    }
}

/// A log that never comes back from being read.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FaultyLog {}

impl Component for FaultyLog {
    const TYPE: &'static str = "faulty_log";
    const EXAMPLE: &'static str = "";
    type Built = Box<dyn LogSource>;

    fn build(&self) -> Result<Self::Built> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl LogSource for FaultyLog {
    fn tables(&self) -> Vec<Table> {
        vec![Table::of::<Trade<'_>>()]
    }

    async fn reach(&mut self) -> Result<String> {
        Ok("nothing is there to be reached".to_owned())
    }

    async fn run(self: Box<Self>, _: LogContext) -> Result<()> {
        loop {
            std::thread::park();
        }
    }
}

/// Panics at every write, or never comes back from one.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FaultySink {
    /// Whether it hangs instead.
    hangs: bool,
}

impl Component for FaultySink {
    const TYPE: &'static str = "faulty";
    const EXAMPLE: &'static str = "hangs = false";
    type Built = Box<dyn Sink>;

    fn build(&self) -> Result<Self::Built> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl Sink for FaultySink {
    async fn open(&mut self, _: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        Ok(Vec::new())
    }

    async fn write(&mut self, _: &Chunk) -> Result<Written> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        panic!("the sink has a fault");
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::Transaction
    }
}

fn main() -> std::process::ExitCode {
    // `the ledger*2`: the program's own faults, for two times.
    if let Some((place, times)) = std::env::var("FAULTS").ok().as_deref().and_then(|faults| faults.split_once('*')) {
        tidegate_core::testkit::plan_panics(place, times.parse().unwrap_or(1));
    }
    tidegate::main_with(|catalog| {
        catalog.source::<FaultySource>();
        catalog.log::<FaultyLog>();
        catalog.sink::<FaultySink>();
    })
}
