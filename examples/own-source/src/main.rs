//! A source of your own, in a crate of your own: `cargo run -p own-source -- run dice.toml`, with
//!
//! ```toml
//! [pipeline]
//! name = "dice"
//! [source.dice]
//! throws = 1000
//! [sink.stdout]
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate::{
    Error, Result,
    catalog::Component,
    row::{Mark, Position, Table, Timestamp, kinds::Trade},
    source::{Source, SourceContext},
};

/// Throws dice.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Dice {
    /// How often.
    throws: u64,
}

impl Component for Dice {
    const TYPE: &'static str = "dice";
    const EXAMPLE: &'static str = "throws = 1000";
    type Built = Box<dyn Source>;

    fn build(&self) -> Result<Self::Built> {
        if self.throws == 0 {
            return Err(Error::config("`throws` is 0: then there is nothing to collect"));
        }
        Ok(Box::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl Source for Dice {
    fn tables(&self) -> Vec<Table> {
        vec![Table::of::<Trade<'_>>()]
    }

    async fn run(self: Box<Self>, mut cx: SourceContext) -> Result<()> {
        for n in 1..=self.throws {
            let now = Timestamp::now();
            // A number without holes: intake finds what is missing, and drops what is proved to have come already.
            let mark = Mark { symbol: "DICE", position: Position::Sequence(n), ts_event: now };
            cx.emit(now, mark, &Trade { price: (n % 6 + 1) as f64, size: 1.0, ..Trade::default() });
            if n % 100 == 0 || n == self.throws {
                // Back when the rows are on disk: now a message that they came from could be acknowledged.
                cx.flush().await?;
            }
        }
        cx.finish("all dice are thrown").await
    }
}

fn main() -> std::process::ExitCode {
    tidegate::main_with(|catalog| _ = catalog.source::<Dice>())
}
