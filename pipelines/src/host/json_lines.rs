//! The log for programs: a JSON object on each line.

use std::{borrow::Cow, fmt, time::SystemTime};

use serde_json::Value;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// `{"timestamp":"…Z","level":"INFO","message":"…",…,"target":"…"}`: when, how bad, the fields, and from where.
pub(super) struct JsonLines;

/// The field of this name, of an event of the process itself, is JSON already: the health report, to be read in one go.
pub(super) const REPORT: &str = "report";
/// Whose events may have it.
pub(super) const OF_HOST: &str = "tidegate::host";

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let about = event.metadata();
        let now = humantime::format_rfc3339_micros(SystemTime::now());
        write!(writer, "{{\"timestamp\":\"{now}\",\"level\":\"{}\"", about.level())?;
        let mut fields = Fields { may_report: about.target() == OF_HOST, writer, outcome: Ok(()) };
        event.record(&mut fields);
        let Fields { mut writer, outcome, .. } = fields;
        outcome?;
        writeln!(writer, ",\"target\":{}}}", text(about.target()))
    }
}

/// Writes each field behind a comma.
struct Fields<'w> {
    may_report: bool,
    writer: Writer<'w>,
    outcome: fmt::Result,
}

impl Fields<'_> {
    fn add(&mut self, field: &Field, value: impl fmt::Display) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        let writer = &mut self.writer;
        self.outcome = self.outcome.and_then(|()| write!(writer, ",{}:{value}", text(name)));
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // What is no number is null.
        self.add(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if self.may_report && field.name() == REPORT {
            // Written by serde_json: one object, without a line end.
            self.add(field, value);
        } else {
            self.add(field, text(value));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, text(format!("{value:?}")));
    }
}

/// Returns a text as JSON writes it.
fn text<'t>(text: impl Into<Cow<'t, str>>) -> Value {
    Value::String(text.into().into_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing::{info, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_line_is_one_object_whatever_its_fields_hold_and_only_the_report_is_one_within_it() {
        let lines = logged(|| {
            let (subject, error) = ("eth\n\u{1b}[2J\"}", io::Error::other("disk \"full\""));
            warn!(pipeline = "eth", took = 3_u64, rate = f64::NAN, by = -2, is_well = false, %error, "quiet {subject}");
            info!(target: OF_HOST, report = r#"{"checks":{"a":1}}"#, "report");
            info!(target: "somebody", report = r#"{"checks":{"a":1}}"#, r#type = ?Some(1), "report");
        });
        let [quiet, ours, others] = &lines[..] else { panic!("{lines:#?}") };
        assert_eq!(quiet["message"], "quiet eth\n\u{1b}[2J\"}");
        assert_eq!((&quiet["level"], &quiet["pipeline"], &quiet["took"]), (&"WARN".into(), &"eth".into(), &3.into()));
        assert_eq!((&quiet["rate"], &quiet["by"], &quiet["is_well"]), (&Value::Null, &(-2).into(), &false.into()));
        assert_eq!((&quiet["error"], &quiet["target"]), (&"disk \"full\"".into(), &module_path!().into()));
        assert!(humantime::parse_rfc3339(quiet["timestamp"].as_str().unwrap()).is_ok(), "{quiet}");
        assert_eq!(ours["report"]["checks"]["a"], 1);
        assert_eq!((&others["report"], &others["type"]), (&r#"{"checks":{"a":1}}"#.into(), &"Some(1)".into()));
    }

    fn logged(log: impl FnOnce()) -> Vec<Value> {
        let written = Written::default();
        let out = written.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(JsonLines).with_writer(move || out.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let written = written.0.lock().unwrap();
        let lines = std::str::from_utf8(&written).unwrap().lines();
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
