//! What a pipeline may have whose source is a durable log itself: it has no spool.

use super::{
    layers::path,
    load::Reader,
    problem::{Problem, Spot},
    resolved,
    stage::{SinkDraft, SourceDraft},
    tables::TableChoice,
};
use crate::own;

impl Reader<'_> {
    /// Holds the stages against each other where one source is a log.
    pub(super) fn check_log(&mut self, sources: &[Option<SourceDraft>], sinks: &[Option<SinkDraft<'_>>]) {
        let is_log = |source: &&SourceDraft| self.catalog.logs.has(&source.component);
        let Some(log) = sources.iter().flatten().find(is_log) else { return };
        // A host's defaults may have one for the other pipelines.
        resolved::leave_out(&mut self.settings, "spool");
        let why = format!("source `{}` is a log itself, and this pipeline has no spool", log.name);
        for other in sources.iter().flatten().filter(|other| other.name != log.name) {
            let title = format!("source `{}` stands beside `{}`, which is a log itself", other.name, log.name);
            let problem = Problem::error(title).at(self.document.key(&path(["source", &other.name])), "");
            self.report
                .add(problem.help("one of them has a spool and the other has none: give each a file of its own"));
        }
        if let Some(spot) = self.document.key(&path(["spool"])) {
            let problem = Problem::error("[spool] has no use here").at(Some(spot), "").note(why.clone());
            self.report.add(problem.help("take it out"));
        }
        for sink in sinks.iter().flatten() {
            self.check_sink_of_log(sink, &why);
        }
    }

    fn check_sink_of_log(&mut self, sink: &SinkDraft<'_>, why: &str) {
        let key = |name: &str| self.document.key(&path(["sink", &sink.name, name]));
        let guarding = self.catalog.guarding();
        if !guarding.contains(&sink.component()) {
            let title = format!("sink `{}` cannot be fed by a source that is a log itself", sink.name);
            let spot = self.document.value(&path(["sink", &sink.name, "type"])).map(Spot::inside_quotes);
            let spot = spot.or_else(|| self.document.key(&path(["sink", &sink.name])));
            let note = format!(
                "loaders share the parts of the log, and the store has to keep and guard a position for each: a sink of type \
                 `{}` does not",
                sink.component()
            );
            let problem = Problem::error(title).at(spot, "").note(note);
            let known = if guarding.is_empty() { "none of this build".to_owned() } else { guarding.join(", ") };
            self.report.add(problem.help(format!("those that do are: {known}")));
        }
        if let Some(spot) = key("start") {
            let problem = Problem::error("`start` has no use here").at(Some(spot), "").note(
                "a part of the log that the store has no position of is new, as when a topic gets more partitions: it is \
                 stored from its beginning",
            );
            self.report.add(problem.help("take it out"));
        }
        if let Some(TableChoice::Only(chosen)) = &sink.tables {
            for name in chosen.keys().filter(|name| own::is_own(name)) {
                let title = format!("table `{name}` is made of the spool");
                let problem = Problem::error(title).at(key("tables"), "").note(why);
                self.report.add(problem.help("take it out"));
            }
        }
    }
}
