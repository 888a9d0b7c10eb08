//! What the engine logs becomes a part of the story that is told of a history.

use std::fmt::{self, Write};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::machine;

/// Runs something, and lets the machine hear what is logged meanwhile.
pub(super) fn listening<T>(run: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(Listener, run)
}

struct Listener;

struct Words(String);

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        machine::say(format!("    it says:{}", words.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            "pipeline" => Ok(()),
            name => write!(self.0, " {name}={value:?}"),
        };
        written.expect("a string takes all");
    }
}
