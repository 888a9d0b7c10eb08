//! Log lines: for people on a terminal, JSON otherwise or by option.

use std::{fmt, io::IsTerminal};

use tidegate_core::row::Timestamp;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `10:31:02  warn   line lost …`, with colours on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. `filter` is `LOG_LEVEL` or the host file's `[log] level`: `info`, or by target.
///
/// # Errors
///
/// A text for the user when the filter cannot be read.
pub(crate) fn start(filter: &str, format: Option<Format>) -> Result<(), String> {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| format!("the log level `{filter}`: {error}"))?;
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { Format::Human } else { Format::Json });
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let layer = match format {
        Format::Human => layer.event_format(Human).boxed(),
        Format::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    // A second start in one process (tests, an embedding program with logging of its own) keeps the first.
    drop(tracing_subscriber::registry().with(filter).with(layer).try_init());
    Ok(())
}

/// Time of day, level, message, then the fields that the message does not say already.
struct Human;

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let seconds = Timestamp::now().0.div_euclid(1_000_000_000).rem_euclid(86_400);
        write!(writer, "{:02}:{:02}:{:02}  ", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
        let level = *event.metadata().level();
        if writer.has_ansi_escapes() && level <= Level::WARN {
            let colour = if level == Level::ERROR { 31 } else { 33 };
            write!(writer, "\u{1b}[{colour}m{}\u{1b}[0m", line.message)?;
        } else {
            writer.write_str(&line.message)?;
        }
        writeln!(writer, "{}", line.fields)
    }
}

/// The parts of one event. The stage's name and its state stand in the message already.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write;
        // Writing to a String does not fail.
        drop(match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "pipeline" | "stage" | "status" => Ok(()),
            name => write!(self.fields, "  {name}={value:?}"),
        });
    }
}
