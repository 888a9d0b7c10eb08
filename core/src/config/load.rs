//! From the texts of files to pipelines that can be built, or to all that is wrong with them.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use figment::value::{Dict, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    defaults::Defaults,
    document::{Document, Path},
    driver::{ConnectionConfig, DeliveryConfig, SpoolConfig},
    environment::Environment,
    explain::Keys,
    files::Files,
    host::{self, Host, HostRead, not_in_this_version},
    layers::{Layer, Layers, Mended, path},
    names::{self, Name},
    options::Options,
    places::{self, Place},
    problem::{Problem, Spot, Text},
    report::{Report, SecretFile},
    resolved::{self, Setting},
    secret,
    stage::SinkDraft,
    tables::TableChoice,
    units::ByteSize,
};
use crate::{
    catalog::{Catalog, Factory},
    log_source::LogSource,
    protocol::Protocol,
    row::Table,
    sink::Sink,
    source::Source,
    spool::SourceInfo,
    table::Derived,
};

/// What came of the files.
#[derive(Debug)]
pub struct Loaded {
    /// What is one per process; `None` when the host file cannot be used, and then nothing can run.
    pub host: Option<Host>,
    /// The pipelines without errors, those that are switched off among them.
    pub pipelines: Vec<Pipeline>,
    /// The others.
    pub refused: Vec<Refused>,
    /// All mistakes of all files.
    pub report: Report,
    pub(super) host_settings: Vec<Setting>,
}

impl Loaded {
    /// Opens the files that hold secrets, as whoever runs the pipelines here has to. One that cannot be read is an error, and
    /// the pipeline that needs it is refused; if the process needs it, nothing can run.
    pub fn open_secrets(&mut self) {
        let problem = |SecretFile { path, spot, pipeline }: &SecretFile| {
            let why = secret::refusal(path)?;
            let problem = Problem::error(format!("the secret in `{}` cannot be read", path.display()));
            Some((pipeline.clone(), problem.at(Some(spot.clone()), why)))
        };
        let found: Vec<_> = self.report.secret_files().iter().filter_map(problem).collect();
        for (file, problem) in found {
            match file {
                None => self.host = None,
                Some(file) => {
                    let place = self.pipelines.iter().position(|pipeline| pipeline.file == file);
                    if let Some(pipeline) = place.map(|place| self.pipelines.remove(place)) {
                        self.refused.push(Refused { file, name: Some(pipeline.name), why: problem.line() });
                    }
                }
            }
            self.report.add(problem);
        }
        self.report.sort();
    }
}

/// A pipeline that cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its file.
    pub file: PathBuf,
    /// The pipeline's name, where the file says that much.
    pub name: Option<String>,
    /// The first of its errors, in one line.
    pub why: String,
}

/// A checked pipeline, ready to be built.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Its name in logs, metrics and stores, and its folder in the host's `data_dir`.
    pub name: String,
    /// Whether it is to run.
    pub enabled: bool,
    /// Its file.
    pub file: PathBuf,
    /// The host file, if there is one.
    pub host_file: Option<PathBuf>,
    /// Where rows come from, by name.
    pub sources: Vec<SourceStage>,
    /// How the spool is kept.
    pub spool: SpoolConfig,
    /// The tables that are made of those of the sources.
    pub derived: Derived,
    /// Where rows go, by name.
    pub sinks: Vec<SinkStage>,
    pub(super) settings: Vec<Setting>,
}

impl Pipeline {
    /// Returns whether one of its sources plays a recording.
    pub fn is_replay(&self) -> bool {
        self.sources.iter().any(|source| match &source.feed {
            Feed::Protocol { connection, .. } => connection.replay.is_some(),
            Feed::Source { .. } | Feed::Log { .. } => false,
        })
    }

    /// Returns whether its source is a durable log itself. Then it has no spool, and no ledger.
    pub fn is_log(&self) -> bool {
        self.sources.iter().any(|source| matches!(source.feed, Feed::Log { .. }))
    }
}

/// A source of a pipeline.
#[derive(Debug, Clone)]
pub struct SourceStage {
    /// Its name in logs, metrics and stores.
    pub name: String,
    /// The component's type: the `venue` of its rows.
    pub component: String,
    /// Whether the pipeline is ready only when this source is.
    pub required: bool,
    /// The tables of its rows.
    pub tables: Vec<Table>,
    /// How it is made and driven.
    pub feed: Feed,
}

impl SourceStage {
    /// Returns what the spool is told of it.
    pub(crate) fn info(&self) -> SourceInfo {
        let tables = self.tables.iter().cloned().map(Arc::new).collect();
        SourceInfo { name: self.name.as_str().into(), venue: self.component.as_str().into(), tables }
    }
}

/// How records come.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there are as many as sources")]
pub enum Feed {
    /// As frames of a WebSocket, by the connection driver.
    Protocol {
        /// Makes the protocol, once per connection.
        factory: Factory<Box<dyn Protocol>>,
        /// What the driver goes by.
        connection: ConnectionConfig,
    },
    /// From a durable log, part by part.
    Log {
        /// Makes the source, again after an error.
        factory: Factory<Box<dyn LogSource>>,
    },
    /// In another way, by the component's own `run`.
    Source {
        /// Makes the source, again after an error.
        factory: Factory<Box<dyn Source>>,
    },
}

/// A sink of a pipeline.
#[derive(Clone)]
pub struct SinkStage {
    /// Its name in logs, metrics and stores.
    pub name: String,
    /// The component's type.
    pub component: String,
    /// Makes the sink, again after a crash.
    pub factory: Factory<Box<dyn Sink>>,
    /// What the delivery driver goes by.
    pub delivery: DeliveryConfig,
    /// Which tables it takes.
    pub tables: TableChoice,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Protocol { connection, .. } => f.debug_tuple("Protocol").field(connection).finish(),
            Self::Source { .. } => f.write_str("Source"),
            Self::Log { .. } => f.write_str("Log"),
        }
    }
}

impl std::fmt::Debug for SinkStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SinkStage").field("name", &self.name).field("tables", &self.tables).finish_non_exhaustive()
    }
}

/// The table `[pipeline]`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PipelineConfig {
    /// The pipeline's name in logs, metrics and stores. Different from every other in the process. Under another name it
    /// begins anew: what waits in the old one's spool stays there, and a store whose tables the old one has filled is not
    /// written to before a person has looked.
    pub(super) name: Name,
    /// Whether it runs. When not, it is checked and listed all the same.
    #[serde(default = "enabled")]
    pub(super) enabled: bool,
}

fn enabled() -> bool {
    true
}

/// Reads the host file and the pipelines, and reports every mistake in all of them. Does no I/O.
pub fn load(catalog: &Catalog, files: Files, environment: &Environment) -> Loaded {
    let mut report = files.report;
    let errors_of_others = report.errors();
    let host_file = files.host.as_ref().map(|file| PathBuf::from(&file.path));
    let host_document = files.host.and_then(|file| Document::parse(file, environment, &mut report));
    let mut host = host::read(host_document.as_ref(), &files.pipelines, environment, &mut report);
    let defaults = Defaults::new(catalog, host_document.as_ref(), &mut report);
    if let Some(document) = &host_document {
        let useless: Vec<_> = host::MISPLACED.iter().map(|(name, _)| path([name])).chain(defaults.useless()).collect();
        document.report_mistakes(&useless, &mut report);
    }
    // A host that was read in part would put the spools, say, into another folder than they were in.
    if files.host_is_wrong || report.errors() > errors_of_others {
        host = None;
    }
    let mut drafts: Vec<(Arc<Text>, Draft)> = Vec::new();
    for file in files.pipelines {
        let draft = Document::parse(file.clone(), environment, &mut report).map_or_else(Draft::default, |document| {
            let mut useless = Vec::new();
            let draft = Reader {
                catalog,
                defaults: &defaults,
                document: &document,
                report: &mut report,
                settings: Vec::new(),
                useless: &mut useless,
                meant: Vec::new(),
            }
            .pipeline();
            document.report_mistakes(&useless, &mut report);
            draft
        });
        drafts.push((file, draft));
    }
    refuse_equal_names(&drafts, &mut report);
    if let Some(read) = &host
        && !places::refuse(read, host_file.as_deref(), &mut drafts, &mut report)
    {
        host = None;
    }
    report.sort();
    let (mut pipelines, mut refused) = (Vec::new(), Vec::new());
    for (file, draft) in drafts {
        match (report.first_error_in(&file), draft.pipeline) {
            (None, Some(pipeline)) => pipelines.push(Pipeline { host_file: host_file.clone(), ..pipeline }),
            (problem, _) => {
                let why = problem.map_or_else(|| "a default of the host file is wrong".into(), Problem::line);
                let name = draft.name.map(|(name, _)| name);
                refused.push(Refused { file: PathBuf::from(&file.path), name, why });
            }
        }
    }
    let (host, host_settings) = host.map(|HostRead { host, settings, .. }| (host, settings)).unzip();
    Loaded { host, pipelines, refused, report, host_settings: host_settings.unwrap_or_default() }
}

/// What came of one file.
#[derive(Default)]
pub(super) struct Draft {
    /// The pipeline's name, and where it stands.
    pub(super) name: Option<(String, Option<Spot>)>,
    pub(super) pipeline: Option<Pipeline>,
    /// Where its sinks and the captures of its sources are written.
    pub(super) places: Vec<Place>,
}

/// Two pipelines of one name would share a spool, and positions in the stores. Of two, the one is refused that cannot run
/// anyway; else the second.
fn refuse_equal_names(drafts: &[(Arc<Text>, Draft)], report: &mut Report) {
    let mut first_of: HashMap<String, (&str, &Option<Spot>)> = HashMap::new();
    let mut drafts: Vec<&Draft> = drafts.iter().map(|(_, draft)| draft).collect();
    drafts.sort_by_key(|draft| draft.pipeline.is_none());
    for (name, spot) in drafts.into_iter().filter_map(|draft| draft.name.as_ref()) {
        let Some((other, first)) = first_of.get(&name.to_lowercase()) else {
            first_of.insert(name.to_lowercase(), (name, spot));
            continue;
        };
        let problem = if other == name {
            Problem::error(format!("two pipelines are called `{name}`"))
        } else {
            Problem::error(format!("`{name}` and `{other}` would share one spool"))
                .note("some file systems take two names for one that differ in case only")
        };
        let problem = problem.at(spot.clone(), "this one").at((*first).clone(), "the other");
        report.add(problem.help("rename one: the name keys the spool and the position in each store"));
    }
}

/// Reads one file.
pub(super) struct Reader<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) defaults: &'a Defaults<'a>,
    pub(super) document: &'a Document,
    pub(super) report: &'a mut Report,
    pub(super) settings: Vec<Setting>,
    /// Tables of what is not in this version or build: nothing more is said about them.
    pub(super) useless: &'a mut Vec<Path>,
    /// Tables that were meant by misspelt ones: they are not missing.
    meant: Vec<String>,
}

impl<'a> Reader<'a> {
    fn pipeline(mut self) -> Draft {
        self.unknown_tables();
        let head = self.head();
        let spool = self.spool();
        let sources = self.stages("source", Self::source);
        let drafts = self.derived_tables();
        let sinks = self.stages("sink", Self::sink);
        let name = head.as_ref().map(|head| &*head.value.name.0);
        let derived = self.check_tables(name, &sources, &drafts, &sinks);
        self.check_room(spool.as_ref(), &sinks);
        self.check_log(&sources, &sinks);
        let places = head.as_ref().map_or_else(Vec::new, |head| {
            let name = &head.value.name.0;
            let captures = sources.iter().flatten().filter_map(|source| source.captures(name));
            captures.chain(sinks.iter().flatten().filter_map(|sink| sink.writes(name))).collect()
        });
        let spot = self.document.value(&path(["pipeline", "name"]));
        let name = head.as_ref().map(|head| (head.value.name.0.clone(), spot));
        let head = head.filter(Mended::is_right).map(|head| head.value);
        let sources: Option<Vec<_>> = sources.into_iter().map(|source| source?.stage).collect();
        let sinks: Option<Vec<_>> = sinks.into_iter().map(|sink| sink?.stage).collect();
        let sources = sources.zip(derived);
        let (Some(head), Some(spool), Some(((sources, derived), sinks))) = (head, spool, sources.zip(sinks)) else {
            return Draft { name, pipeline: None, places };
        };
        let pipeline = Pipeline {
            name: head.name.0,
            enabled: head.enabled,
            file: PathBuf::from(&self.document.file.path),
            host_file: None,
            sources,
            spool,
            derived,
            sinks,
            settings: self.settings,
        };
        Draft { name, pipeline: Some(pipeline), places }
    }

    /// Reports the tables that a pipeline does not have.
    fn unknown_tables(&mut self) {
        for name in self.document.data.keys() {
            let spot = self.document.key(&path([name]));
            match name.as_str() {
                "pipeline" | "source" | "spool" | "table" | "sink" => {}
                "notify" | "alert" => {
                    self.report.add(not_in_this_version(name).at(spot, ""));
                    self.useless.push(path([name]));
                }
                "listen" | "token" | "data_dir" | "log" | "defaults" => {
                    let problem = Problem::error(format!("`{name}` is one per process")).at(spot, "");
                    self.report.add(problem.help("it belongs into the host file, tidegate.toml"));
                }
                "sources" | "sinks" | "tables" => {
                    let one = name.trim_end_matches('s');
                    let problem = Problem::error(format!("unknown table `{name}`"));
                    self.report.add(problem.at(spot, format!("write [{one}.NAME]")));
                    self.meant.push(one.to_owned());
                }
                _ => {
                    let problem = Problem::error(format!("unknown table `{name}`"));
                    let known = ["pipeline", "source", "spool", "table", "sink"];
                    let problem = problem.at_with_nearest(spot, name, known);
                    self.meant.extend(problem.instead.clone());
                    self.report.add(problem);
                }
            }
        }
    }

    fn head(&mut self) -> Option<Mended<PipelineConfig>> {
        let layers = Layers::merge(self.table("pipeline")?);
        if layers.root.is_empty() && layers.key(&[]).is_none() {
            if self.meant.iter().any(|table| table == "pipeline") {
                return None;
            }
            let problem = Problem::error("the file has no [pipeline]").in_file(&self.document.file);
            self.report.add(problem.help("write [pipeline] and name = \"…\", different from every other"));
            return None;
        }
        let options = [Options::of::<PipelineConfig>()];
        let keys = Keys::of_table("pipeline", &options);
        let head: Mended<PipelineConfig> = layers.read_mended(layers.root.clone(), &keys, |_, _| {}, self.report)?;
        self.keep(&layers, &path(["pipeline"]), &head.value);
        (!layers.is_broken(&[])).then_some(head)
    }

    fn spool(&mut self) -> Option<SpoolConfig> {
        let own = self.table("spool")?;
        let layers = Layers::merge(self.defaults.spool().into_iter().chain(own).collect());
        let options = [Options::of::<SpoolConfig>()];
        let keys = Keys::of_table("spool", &options);
        let spool = layers.read_checked(layers.root.clone(), &keys, SpoolConfig::check, self.report)?;
        self.keep(&layers, &path(["spool"]), &spool);
        Some(spool)
    }

    /// A spool that is full before a sink makes its rows durable would stand still, or drop them.
    fn check_room(&mut self, spool: Option<&SpoolConfig>, sinks: &[Option<SinkDraft<'_>>]) {
        let Some(spool) = spool else { return };
        for sink in sinks.iter().flatten() {
            if sink.holds_back.saturating_mul(2) <= spool.max_bytes.0 {
                continue;
            }
            let (held, room) = (ByteSize(sink.holds_back), spool.max_bytes);
            let title = format!("sink `{}` lets rows of {held} wait in a spool of {room}", sink.name);
            let problem = Problem::error(title).at(self.document.key(&path(["sink", &sink.name])), "");
            self.report
                .add(problem.help("it may be half of it at most: rotate sooner, or raise `max_bytes` of [spool]"));
        }
    }

    /// Returns the layer of a top-level table: none where the file has no such table.
    fn table(&mut self, name: &str) -> Option<Vec<Layer<'a>>> {
        let at = path([name]);
        match self.document.data.get(name) {
            None => Some(Vec::new()),
            Some(Value::Dict(_, dict)) => Some(vec![Layer::File { document: self.document, at, dict: dict.clone() }]),
            Some(_) => {
                let problem = Problem::error(format!("`{name}` is not a table"));
                self.report.add(problem.at(self.document.key(&at), format!("write [{name}]")));
                None
            }
        }
    }

    /// Reads every `[source.NAME]` or `[sink.NAME]`; an empty list is a mistake that was reported.
    fn stages<T>(&mut self, role: &str, read: fn(&mut Self, &str, &Dict) -> Option<T>) -> Vec<Option<T>> {
        let at = path([role]);
        let named = format!("write [{role}.NAME]");
        let tables = match self.document.data.get(role) {
            Some(Value::Dict(_, tables)) if !tables.is_empty() => tables,
            Some(Value::Dict(..)) | None if self.meant.iter().any(|table| table == role) => return vec![None],
            Some(Value::Dict(..)) | None => {
                let problem = Problem::error(format!("the file has no [{role}.NAME]"));
                self.report.add(problem.in_file(&self.document.file).help("what there is: tidegate list"));
                return vec![None];
            }
            Some(_) => {
                let problem = Problem::error(format!("a {role} needs a name"));
                self.report.add(problem.at(self.document.key(&at), named));
                return vec![None];
            }
        };
        let mut stages = Vec::new();
        let is_table_or_list = |value: &Value| value.as_dict().is_some() || holds_tables(value);
        // Keys that stand in [source] itself, lists of tables among them.
        let are_keys = !tables.values().all(is_table_or_list);
        let mut is_unnamed = false;
        for (name, value) in tables {
            let Value::Dict(_, table) = value else {
                stages.push(None);
                let spot = self.document.key(&path([role, name]));
                if holds_tables(value) && !are_keys {
                    let problem = Problem::error(format!("[[{role}.{name}]] is a list of tables"));
                    self.report.add(problem.at(spot, format!("write [{role}.{name}], and another name for a second")));
                } else if self.defaults.is_type(role, name) {
                    let problem = Problem::error(format!("`{role}.{name}` is not a table"));
                    self.report.add(problem.at(spot, format!("write [{role}.{name}]")));
                } else if !is_unnamed {
                    is_unnamed = true;
                    let problem = Problem::error(format!("a {role} needs a name"));
                    self.report.add(problem.at(self.document.key(&at), &*named));
                }
                continue;
            };
            if !names::is_valid(name) {
                let problem =
                    Problem::error(format!("{} is no name for a {role}", resolved::in_toml(&name.as_str().into())));
                self.report.add(problem.at(self.document.key(&path([role, name])), names::VALID));
                // Without a type the name is one, and no more can be said.
                if !table.contains_key("type") {
                    stages.push(None);
                    continue;
                }
            }
            stages.push(read(self, name, table));
        }
        stages
    }

    /// Keeps the values of a struct for `check --resolved`.
    pub(super) fn keep<T: Serialize>(&mut self, layers: &Layers<'_>, at: &[String], values: &T) {
        let values = serde_json::to_value(values).unwrap_or_default();
        resolved::collect(layers, at, &values, &mut self.settings);
    }
}

/// Tells whether a value is a list that has a table in it.
fn holds_tables(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().any(|item| item.as_dict().is_some()))
}
