//! One source or sink: which keys its driver reads, and which the component.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    document::Path,
    driver::{ConnectionConfig, DeliveryConfig},
    explain::{self, Keys},
    layers::{Layer, Layers, Mended, path},
    load::{Feed, Reader, SinkStage, SourceStage},
    options::{Options, Pattern},
    places::{Place, Writer},
    problem::{Problem, Spot},
    report::{Report, SecretFile},
    secret,
    tables::TableChoice,
};
use crate::{
    Error,
    catalog::{Catalog, Made, PathOf, Role, TableCheck, Unavailable},
    row::Table,
};

/// Says that a component which is known is not there, and what to do about it.
pub(super) fn not_there(catalog: &Catalog, role: Role, component: &str) -> Option<(String, String)> {
    let (_, why) = catalog.missing(role).find(|(known, _)| *known == component)?;
    let role = role.table();
    Some(match why {
        Unavailable::Feature(feature) => {
            (format!("{role} `{component}` is not in this build"), format!("add --features {feature}"))
        }
        Unavailable::Version => {
            (format!("{role} `{component}` is not in this version"), "what there is: tidegate list".into())
        }
    })
}

/// Keys of every source.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SourceKeys {
    /// Whether the pipeline is ready only when this source is; false for a side input.
    pub(super) required: bool,
}

impl Default for SourceKeys {
    fn default() -> Self {
        Self { required: true }
    }
}

/// Keys of every sink.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SinkKeys {
    /// Which tables it takes, and what they are called in the store. Without it, all that the sources have, and all that are
    /// derived. The pipeline's own come only where they are named: `coverage`, what the ledger says of each stream's time, and
    /// `status`, how each stage is, once a minute.
    pub(super) tables: TableChoice,
}

/// All that may stand in a stage's table besides `type`: the options of its structs, the component's own first.
pub(super) fn options(catalog: &Catalog, role: Role, component: &str) -> Option<Vec<Options>> {
    let own = catalog.entry(role, component)?.options.clone();
    if role == Role::Source && (catalog.sources.has(component) || catalog.logs.has(component)) {
        return Some(vec![own, Options::of::<SourceKeys>()]);
    }
    Some([own].into_iter().chain(driver_options(role)).collect())
}

/// The options that the driver reads of a source, or a sink.
pub(super) fn driver_options(role: Role) -> [Options; 2] {
    match role {
        Role::Source => [Options::of::<ConnectionConfig>(), Options::of::<SourceKeys>()],
        Role::Sink => [Options::of::<DeliveryConfig>(), Options::of::<SinkKeys>()],
    }
}

/// The keys that no source may have which is no protocol.
pub(crate) fn source_keys() -> Vec<String> {
    let mut keys = Options::of::<SourceKeys>().keys;
    keys.push("type".into());
    keys
}

/// The keys that no component may have, since its driver reads them.
pub(crate) fn shared_keys(role: Role) -> Vec<String> {
    let mut keys = keys_of(&driver_options(role));
    keys.push("type".into());
    keys
}

pub(super) fn keys_of(options: &[Options]) -> Vec<String> {
    options.iter().flat_map(|options| options.keys.iter().cloned()).collect()
}

impl Role {
    /// Returns the name of its tables in TOML.
    pub(super) fn table(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Sink => "sink",
        }
    }
}

/// A stage's table, on its way to become a stage.
pub(super) struct Draft<'a> {
    pub(super) at: Path,
    pub(super) component: String,
    pub(super) layers: Layers<'a>,
    pub(super) options: Vec<Options>,
}

/// A source as far as it could be read.
pub(super) struct SourceDraft {
    pub(super) name: String,
    pub(super) component: String,
    /// The tables that it has.
    pub(super) tables: Vec<Table>,
    /// Those that it may have besides, once its mistakes are mended; `None` where nobody knows.
    pub(super) others: Option<Vec<String>>,
    /// The source, when nothing is wrong with it.
    pub(super) stage: Option<SourceStage>,
    /// Where the folder of its captures is named.
    capture: Option<Spot>,
}

/// A sink as far as it could be read.
pub(super) struct SinkDraft<'a> {
    pub(super) name: String,
    /// The tables that it takes; `None` when that could not be read.
    pub(super) tables: Option<TableChoice>,
    /// What tells its store from others.
    pub(super) store: Option<String>,
    /// Where it writes on this machine.
    path: Option<PathOf>,
    /// How it looks at its tables, when nothing is wrong with its own keys.
    pub(super) check_tables: Option<TableCheck>,
    /// Whether its tables may have keys.
    pub(super) has_keys: bool,
    /// Whether its tables may have a retention.
    pub(super) has_retention: bool,
    /// The most bytes of rows that it lets wait in the spool.
    pub(super) holds_back: u64,
    /// The sink, when nothing is wrong with it.
    pub(super) stage: Option<SinkStage>,
    draft: Draft<'a>,
}

impl SourceDraft {
    /// Returns the folder that is named for its captures; its own one among the engine's files needs no name.
    pub(super) fn captures(&self, pipeline: &str) -> Option<Place> {
        let Feed::Protocol { connection, .. } = &self.stage.as_ref()?.feed else { return None };
        let folder = connection.capture.as_ref()?.folder(pipeline, &self.name)?;
        Some(Place::new(&folder, Writer::Capture, self.capture.clone()))
    }
}

impl SinkDraft<'_> {
    /// Returns the file or the folder that it writes.
    pub(super) fn writes(&self, pipeline: &str) -> Option<Place> {
        let written = self.path.as_ref()?(pipeline)?;
        let spot = self.place(&path(["path"]));
        Some(Place::new(&written, Writer::Sink(self.draft.component.clone()), spot))
    }
}

impl<'a> Reader<'a> {
    pub(super) fn source(&mut self, name: &str, table: &Dict) -> Option<SourceDraft> {
        let draft = self.draft(Role::Source, name, table)?;
        let catalog = self.catalog;
        let elsewhere = |key: &str| elsewhere(catalog, Role::Source, key);
        let secrets = secrets(&draft.options);
        let keys = draft.keys(&secrets, &elsewhere);
        let (tables, whole) = if catalog.sources.has(&draft.component) {
            let [own, common] = draft.split();
            let common = draft.layers.read::<SourceKeys>(common, &keys, self.report);
            let made = catalog.sources.read(&draft.component, &draft.layers, own, &keys, self.report)?;
            let tables = draft.tables(made.as_ref().map(|made| (made.first.tables(), &*made.wrong)));
            let whole = draft.whole(made).zip(common).map(|(made, common)| {
                self.keep(&draft.layers, &draft.at, &made.values);
                self.keep(&draft.layers, &draft.at, &common);
                (common.required, Feed::Source { factory: made.factory })
            });
            (tables, whole)
        } else if catalog.logs.has(&draft.component) {
            let [own, common] = draft.split();
            let common = draft.layers.read::<SourceKeys>(common, &keys, self.report);
            let made = catalog.logs.read(&draft.component, &draft.layers, own, &keys, self.report)?;
            let tables = draft.tables(made.as_ref().map(|made| (made.first.tables(), &*made.wrong)));
            let whole = draft.whole(made).zip(common).map(|(made, common)| {
                self.keep(&draft.layers, &draft.at, &made.values);
                self.keep(&draft.layers, &draft.at, &common);
                (common.required, Feed::Log { factory: made.factory })
            });
            (tables, whole)
        } else {
            let [own, connection, common] = draft.split();
            let common = draft.layers.read::<SourceKeys>(common, &keys, self.report);
            let connection = draft.layers.read_checked(connection, &keys, ConnectionConfig::check, self.report);
            let made = catalog.protocols.read(&draft.component, &draft.layers, own, &keys, self.report)?;
            let tables = draft.tables(made.as_ref().map(|made| (made.first.tables(), &*made.wrong)));
            let whole = draft.whole(made).zip(connection).zip(common).map(|((made, connection), common)| {
                self.keep(&draft.layers, &draft.at, &made.values);
                self.keep(&draft.layers, &draft.at, &connection);
                self.keep(&draft.layers, &draft.at, &common);
                (common.required, Feed::Protocol { factory: made.factory, connection })
            });
            (tables, whole)
        };
        let capture = draft.layers.value(&path(["capture", "dir"]));
        let (name, component, (tables, others)) = (name.to_owned(), draft.component, tables);
        let stage = whole.map(|(required, feed)| SourceStage {
            name: name.clone(),
            component: component.clone(),
            required,
            tables: tables.clone(),
            feed,
        });
        Some(SourceDraft { name, component, tables, others, stage, capture })
    }

    pub(super) fn sink(&mut self, name: &str, table: &Dict) -> Option<SinkDraft<'a>> {
        let draft = self.draft(Role::Sink, name, table)?;
        let [own, delivery, common] = draft.split();
        let catalog = self.catalog;
        let secrets = secrets(&draft.options);
        let elsewhere = |key: &str| elsewhere(catalog, Role::Sink, key);
        let keys = draft.keys(&secrets, &elsewhere);
        let common = draft.layers.read_mended::<SinkKeys>(common, &keys, |_, _| {}, self.report);
        let delivery = draft.layers.read_checked(delivery, &keys, DeliveryConfig::check, self.report);
        let made = catalog.sinks.read(&draft.component, &draft.layers, own, &keys, self.report)?;
        // A list of which nothing is left was not empty.
        let is_told =
            |common: &&Mended<SinkKeys>| common.is_right() || common.value.tables != TableChoice::Only(BTreeMap::new());
        let mut sink = SinkDraft {
            name: name.to_owned(),
            tables: common.as_ref().filter(is_told).map(|common| common.value.tables.clone()),
            store: None,
            path: None,
            check_tables: None,
            has_keys: false,
            has_retention: false,
            holds_back: 0,
            stage: None,
            draft,
        };
        let Some(made) = made.filter(|made| made.wrong.is_empty()) else { return Some(sink) };
        (sink.has_keys, sink.has_retention) = (made.has_keys, made.has_retention);
        sink.check_tables = Some(made.check_tables);
        if sink.draft.layers.is_broken(&[]) {
            return Some(sink);
        }
        (sink.store, sink.holds_back) = (made.store, made.first.holds_back());
        sink.path = Some(made.path);
        let Some((common, delivery)) = common.filter(Mended::is_right).zip(delivery) else { return Some(sink) };
        self.keep(&sink.draft.layers, &sink.draft.at, &made.values);
        self.keep(&sink.draft.layers, &sink.draft.at, &delivery);
        self.keep(&sink.draft.layers, &sink.draft.at, &common.value);
        sink.stage = Some(SinkStage {
            name: name.to_owned(),
            component: sink.draft.component.clone(),
            factory: made.factory,
            delivery,
            tables: common.value.tables,
        });
        Some(sink)
    }

    /// Reports what a sink has against its tables, but for what follows from a variable that is not set.
    pub(super) fn refuse_tables(&mut self, sink: &SinkDraft<'_>, error: &Error) {
        let catalog = self.catalog;
        let secrets = secrets(&sink.draft.options);
        let elsewhere = |key: &str| elsewhere(catalog, Role::Sink, key);
        let keys = sink.draft.keys(&secrets, &elsewhere);
        if !explain::named(&sink.draft.layers, error).is_some_and(|path| sink.draft.layers.is_broken(&path)) {
            self.report.add(explain::component(&sink.draft.layers, &keys, error));
        }
    }

    /// Finds the component and merges its layers.
    fn draft(&mut self, role: Role, name: &str, table: &Dict) -> Option<Draft<'a>> {
        let at = path([role.table(), name]);
        let mut table = table.clone();
        let mut component = self.component(role, &at, name, table.remove("type"))?;
        if self.catalog.entry(role, &component).is_none() {
            // Its keys are most likely those of the type that was meant.
            component = self.unknown_type(role, &component, &at)?;
        }
        let options = options(self.catalog, role, &component)?;
        let mut layers = self.defaults.of_stage(role, &component, &keys_of(&options));
        layers.push(Layer::File { document: self.document, at: at.clone(), dict: table });
        let draft = Draft { at, component, layers: Layers::merge(layers), options };
        let secrets = secrets(&draft.options);
        guard_secrets(&draft.layers, &secrets, self.report);
        note_secret_files(&draft.layers, &secrets, Some(&self.document.file.path), self.report);
        Some(draft)
    }

    fn component(&mut self, role: Role, at: &[String], name: &str, kind: Option<Value>) -> Option<String> {
        let at: Path = at.iter().cloned().chain(["type".into()]).collect();
        match kind {
            None => Some(name.to_owned()),
            Some(_) if self.document.is_broken(&at) => None,
            Some(Value::String(_, kind)) => Some(kind),
            Some(_) => {
                let problem = Problem::error(format!("the `type` of a {} is a text", role.table()));
                self.report.add(problem.at(self.document.value(&at), "what there is: tidegate list"));
                None
            }
        }
    }

    /// Reports a type that is not there, and returns the one that was meant, if that is there.
    fn unknown_type(&mut self, role: Role, component: &str, at: &[String]) -> Option<String> {
        let type_at: Path = at.iter().cloned().chain(["type".into()]).collect();
        let spot = self.document.value(&type_at).map(Spot::inside_quotes).or_else(|| self.document.key(at));
        let role_name = role.table();
        if let Some((title, remedy)) = not_there(self.catalog, role, component) {
            self.report.add(Problem::error(title).at(spot, "").help(remedy));
            self.useless.push(at.to_vec());
            return None;
        }
        let written = self.document.variables(&type_at).map(|variables| variables.join(" "));
        let other = match role {
            Role::Source => Role::Sink,
            Role::Sink => Role::Source,
        };
        let known = self.catalog.names(role);
        let mut meant = None;
        let problem = match written {
            Some(written) => Problem::error(format!("the value of {written} is no type of a {role_name}"))
                .at(spot, "")
                .note(format!("known are: {}", known.join(", "))),
            None if shared_keys(role).iter().any(|key| key == component) => {
                Problem::error(format!("`{component}` is no type of a {role_name}"))
                    .at(spot, format!("it is a key of one: write it into [{role_name}.NAME]"))
                    .note(format!("what it may be: tidegate list {component}"))
            }
            None if self.catalog.entry(other, component).is_some() => {
                Problem::error(format!("`{component}` is no {role_name}"))
                    .at(spot, format!("it is a {}: write [{0}.NAME]", other.table()))
            }
            None => {
                let problem = Problem::error(format!("unknown {role_name} type `{component}`"));
                // One that is not there may be meant, and is nothing to choose from.
                let mut missing = self.catalog.missing(role).map(|(name, _)| name);
                match super::names::nearest(component, known.iter().copied().chain(missing.by_ref())) {
                    Some(near) => {
                        meant = known.contains(&near).then(|| near.to_owned());
                        problem.at(spot, format!("did you mean `{near}`?"))
                    }
                    None => problem.at_with_nearest(spot, component, known),
                }
            }
        };
        self.report.add(problem.help("what there is: tidegate list"));
        meant
    }
}

impl SinkDraft<'_> {
    /// Returns the type of the sink.
    pub(super) fn component(&self) -> &str {
        &self.draft.component
    }

    /// Returns the place of a value, or of its key, in the sink's table.
    pub(super) fn place(&self, path: &[String]) -> Option<Spot> {
        self.draft.layers.value(path).or_else(|| self.draft.layers.key(path))
    }
}

/// Notes the files that hold the secrets of a stage, or of the host: whoever runs it has to open them.
pub(super) fn note_secret_files(layers: &Layers<'_>, secrets: &[Pattern], pipeline: Option<&str>, report: &mut Report) {
    for (at, value) in layers.singles() {
        let is_file = secrets.iter().any(|secret| secret.holds(&at) && secret.is_file(&at));
        if let (true, Some(path), Some(spot)) = (is_file, value.as_str(), layers.value(&at)) {
            report.note_secret_file(SecretFile { path: path.into(), spot, pipeline: pipeline.map(Into::into) });
        }
    }
}

/// Keeps secrets out of every message, and warns of those that stand in the file itself.
pub(super) fn guard_secrets(layers: &Layers<'_>, secrets: &[Pattern], report: &mut Report) {
    for (at, value) in layers.singles() {
        let Some(spot) = layers.value(&at) else { continue };
        // A list or table in a secret's place is a mistake, and holds it all the same.
        let is_secret = secrets.iter().any(|secret| secret.holds(&at) && !secret.is_file(&at));
        if is_secret || is_nearly_one_of(secrets, &at) {
            for span in secret::outside_variables(&spot.file.text, spot.span.clone()) {
                report.hide(Spot { file: spot.file.clone(), span });
            }
        }
        let written = spot.clone().inside_quotes();
        let written = &written.file.text[written.span];
        let is_text_or_secret = is_secret || value.as_str().is_some();
        if is_text_or_secret && secret::is_written_out(written, is_secret) && !layers.is_broken(&at) {
            let problem = Problem::warning("a secret stands in the file");
            let problem = problem.at(Some(spot), "whoever reads the file has it");
            report
                .add(problem.help("write \"${NAME}\" for a variable, or { file = \"…\" } where the option takes one"));
        }
    }
}

/// Tells whether a key of the table is a secret's but for a slip of the pen: the line that shows the slip hides the value.
fn is_nearly_one_of(secrets: &[Pattern], at: &[String]) -> bool {
    let names = secrets.iter().filter_map(Pattern::only).filter(|path| path.len() == 1);
    super::names::nearest(&at[0], names.map(|path| path[0].as_str())).is_some_and(|name| *name != *at[0])
}

pub(super) fn secrets(options: &[Options]) -> Vec<Pattern> {
    options.iter().flat_map(Options::secrets).collect()
}

impl Draft<'_> {
    /// Parts the table into what each of the structs reads; the component gets what nobody knows.
    pub(super) fn split<const PARTS: usize>(&self) -> [Dict; PARTS] {
        let mut parts = std::array::from_fn(|_| Dict::new());
        for (key, value) in &self.layers.root {
            let reader = self.options.iter().position(|options| options.keys.contains(key)).unwrap_or(0);
            parts[reader].insert(key.clone(), value.clone());
        }
        parts
    }

    /// Returns what was made of the component, if nothing is wrong with its table.
    fn whole<B>(&self, made: Option<Made<B>>) -> Option<Made<B>> {
        made.filter(|made| made.wrong.is_empty() && !self.layers.is_broken(&[]))
    }

    /// Returns the tables of a source, and those that it may have besides, once its mistakes are mended; `None` for any.
    ///
    /// `made` are the tables of what was made without these mistakes, and their keys.
    fn tables(&self, made: Option<(Vec<Table>, &[Path])>) -> (Vec<Table>, Option<Vec<String>>) {
        // Where there are channels, they are the tables, and no other key says anything about them.
        let channels = self.options[0].words_in("channels");
        let says: Path = if channels.is_some() { path(["channels"]) } else { Vec::new() };
        let Some((tables, wrong)) = made else { return (Vec::new(), channels) };
        let is_sure = !wrong.iter().any(|key| key.starts_with(&says)) && !self.layers.is_broken(&says);
        (tables, if is_sure { Some(Vec::new()) } else { channels })
    }

    pub(super) fn keys<'k>(
        &'k self,
        secrets: &'k [Pattern],
        elsewhere: &'k dyn Fn(&str) -> Option<String>,
    ) -> Keys<'k> {
        let table = format!("[{}]", self.at.join("."));
        Keys { table, options: &self.options, component: Some(&self.component), secrets, elsewhere, is_partial: false }
    }
}

/// Says where a key belongs that this kind of stage does not have.
pub(super) fn elsewhere(catalog: &Catalog, role: Role, key: &str) -> Option<String> {
    let has = |keys: Vec<String>| keys.iter().any(|known| known == key);
    if role == Role::Source && has(shared_keys(Role::Sink)) {
        return Some("it belongs to a sink: [sink.NAME]".into());
    }
    if role == Role::Sink && has(shared_keys(Role::Source)) {
        return Some("it belongs to a source: [source.NAME]".into());
    }
    if role == Role::Sink && ["key", "on_conflict", "retention"].contains(&key) {
        let example = match key {
            "retention" => "retention = \"90d\"",
            _ => "key = [\"symbol\", \"id\"], on_conflict = \"replace\"",
        };
        return Some(format!("it is said of each table: tables = {{ trades = {{ {example} }} }}"));
    }
    for (place, keys) in [
        ("[spool]", Options::of::<super::SpoolConfig>().keys),
        ("[pipeline]", vec!["name".into(), "enabled".into()]),
        ("the host file, tidegate.toml", Options::of::<super::Host>().keys),
    ] {
        if has(keys) {
            return Some(format!("it belongs into {place}"));
        }
    }
    let others = [Role::Source, Role::Sink].into_iter().flat_map(|role| {
        catalog.names(role).into_iter().filter_map(move |name| Some((role, name, catalog.entry(role, name)?)))
    });
    let having: Vec<_> = others
        .filter(|(_, _, entry)| entry.options.keys.iter().any(|known| known == key))
        .map(|(role, name, _)| format!("{} {name}", role.table()))
        .collect();
    (!having.is_empty()).then(|| format!("it is a key of {}", having.join(", ")))
}
