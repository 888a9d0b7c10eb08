//! One source or sink: which keys its driver reads, which the component, and which come from the host file's defaults.

use std::collections::BTreeSet;

use figment::value::{Dict, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    document::{Document, Path},
    driver::{ConnectionConfig, DeliveryConfig},
    explain::{self, Keys},
    host,
    layers::{Layer, Layers, Origin, path},
    load::{Feed, Reader, SinkStage, SourceStage},
    options::{Options, Pattern},
    problem::{Problem, Spot},
    report::Report,
    secret,
    tables::TableChoice,
};
use crate::{
    Error,
    catalog::{Catalog, Role, TableCheck, Unavailable},
};

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
    /// Which tables it takes, and what they are called in the store. Without it, all.
    pub(super) tables: TableChoice,
}

/// All that may stand in a stage's table besides `type`: the options of its structs, the component's own first.
pub(super) fn options(catalog: &Catalog, role: Role, component: &str) -> Option<Vec<Options>> {
    let own = catalog.entry(role, component)?.options.clone();
    Some(match role {
        Role::Source if catalog.sources.has(component) => vec![own, Options::of::<SourceKeys>()],
        Role::Source => vec![own, Options::of::<ConnectionConfig>(), Options::of::<SourceKeys>()],
        Role::Sink => vec![own, Options::of::<DeliveryConfig>(), Options::of::<SinkKeys>()],
    })
}

/// The keys that no source may have which is no protocol.
pub(crate) fn source_keys() -> Vec<String> {
    let mut keys = Options::of::<SourceKeys>().keys;
    keys.push("type".into());
    keys
}

/// The keys that no component may have, since its driver reads them.
pub(crate) fn shared_keys(role: Role) -> Vec<String> {
    let mut keys = match role {
        Role::Source => keys_of(&[Options::of::<ConnectionConfig>(), Options::of::<SourceKeys>()]),
        Role::Sink => keys_of(&[Options::of::<DeliveryConfig>(), Options::of::<SinkKeys>()]),
    };
    keys.push("type".into());
    keys
}

fn keys_of(options: &[Options]) -> Vec<String> {
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
struct Draft<'a> {
    at: Path,
    component: String,
    layers: Layers<'a>,
    options: Vec<Options>,
}

/// A sink, and what is looked at once all tables are known.
pub(super) struct SinkDraft<'a> {
    pub(super) stage: SinkStage,
    /// What tells its store from others.
    pub(super) store: Option<String>,
    pub(super) check_tables: TableCheck,
    draft: Draft<'a>,
}

impl<'a> Reader<'a> {
    pub(super) fn source(&mut self, name: &str, table: &Dict) -> Option<SourceStage> {
        let draft = self.draft(Role::Source, name, table)?;
        let catalog = self.catalog;
        let elsewhere = |key: &str| elsewhere(catalog, Role::Source, key);
        let secrets = secrets(&draft.options);
        let keys = draft.keys(&secrets, &elsewhere);
        let (required, tables, feed) = if catalog.sources.has(&draft.component) {
            let [own, common] = draft.split();
            let common = draft.layers.read::<SourceKeys>(common, &keys, self.report);
            let made = catalog.sources.read(&draft.component, &draft.layers, own, &keys, self.report)?;
            let (common, made) = (common?, made?);
            self.keep(&draft.layers, &draft.at, &made.values);
            self.keep(&draft.layers, &draft.at, &common);
            (common.required, made.first.tables(), Feed::Source { factory: made.factory })
        } else {
            let [own, connection, common] = draft.split();
            let common = draft.layers.read::<SourceKeys>(common, &keys, self.report);
            let connection = draft.layers.read::<ConnectionConfig>(connection, &keys, self.report);
            let made = catalog.protocols.read(&draft.component, &draft.layers, own, &keys, self.report)?;
            let (common, connection, made) = (common?, connection?, made?);
            self.keep(&draft.layers, &draft.at, &made.values);
            self.keep(&draft.layers, &draft.at, &connection);
            self.keep(&draft.layers, &draft.at, &common);
            (common.required, made.first.tables(), Feed::Protocol { factory: made.factory, connection })
        };
        Some(SourceStage { name: name.to_owned(), component: draft.component, required, tables, feed })
    }

    pub(super) fn sink(&mut self, name: &str, table: &Dict) -> Option<SinkDraft<'a>> {
        let draft = self.draft(Role::Sink, name, table)?;
        let [own, delivery, common] = draft.split();
        let catalog = self.catalog;
        let secrets = secrets(&draft.options);
        let elsewhere = |key: &str| elsewhere(catalog, Role::Sink, key);
        let keys = draft.keys(&secrets, &elsewhere);
        let common = draft.layers.read::<SinkKeys>(common, &keys, self.report);
        let delivery = draft.layers.read::<DeliveryConfig>(delivery, &keys, self.report);
        let made = catalog.sinks.read(&draft.component, &draft.layers, own, &keys, self.report)?;
        let (common, delivery, made) = (common?, delivery?, made?);
        self.keep(&draft.layers, &draft.at, &made.values);
        self.keep(&draft.layers, &draft.at, &delivery);
        self.keep(&draft.layers, &draft.at, &common);
        let stage = SinkStage {
            name: name.to_owned(),
            component: draft.component.clone(),
            factory: made.factory,
            delivery,
            tables: common.tables,
        };
        Some(SinkDraft { stage, store: made.store, check_tables: made.check_tables, draft })
    }

    /// Reports what a sink has against its tables.
    pub(super) fn refuse_tables(&mut self, sink: &SinkDraft<'_>, error: &Error) {
        let catalog = self.catalog;
        let secrets = secrets(&sink.draft.options);
        let elsewhere = |key: &str| elsewhere(catalog, Role::Sink, key);
        let keys = sink.draft.keys(&secrets, &elsewhere);
        self.report.add(explain::component(&sink.draft.layers, &keys, error));
    }

    /// Finds the component and merges its layers.
    fn draft(&mut self, role: Role, name: &str, table: &Dict) -> Option<Draft<'a>> {
        let at = path([role.table(), name]);
        let mut table = table.clone();
        let component = self.component(role, &at, name, table.remove("type"))?;
        let Some(options) = options(self.catalog, role, &component) else {
            self.unknown_type(role, &component, &at);
            return None;
        };
        let mut layers = self.defaults.of_stage(role, &component, &keys_of(&options));
        layers.push(Layer::File { document: self.document, at: at.clone(), dict: table });
        let draft = Draft { at, component, layers: Layers::merge(layers), options };
        self.guard_secrets(&draft);
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

    fn unknown_type(&mut self, role: Role, component: &str, at: &[String]) {
        let type_at: Path = at.iter().cloned().chain(["type".into()]).collect();
        let spot = self.document.value(&type_at).map(Spot::inside_quotes).or_else(|| self.document.key(at));
        let role_name = role.table();
        if let Some((_, why)) = self.catalog.missing(role).find(|(known, _)| *known == component) {
            let problem = match why {
                Unavailable::Feature(feature) => {
                    Problem::error(format!("{role_name} `{component}` is not in this build"))
                        .help(format!("add --features {feature}"))
                }
                Unavailable::Version => Problem::error(format!("{role_name} `{component}` is not in this version"))
                    .help("what there is: tidegate list"),
            };
            self.report.add(problem.at(spot, ""));
            return;
        }
        let written = self.document.variables(&type_at).map(|variables| variables.join(" "));
        let other = match role {
            Role::Source => Role::Sink,
            Role::Sink => Role::Source,
        };
        let known = self.catalog.names(role);
        let problem = match written {
            Some(written) => Problem::error(format!("the value of {written} is no type of a {role_name}"))
                .at(spot, "")
                .note(format!("known are: {}", known.join(", "))),
            None if self.catalog.entry(other, component).is_some() => {
                Problem::error(format!("`{component}` is no {role_name}"))
                    .at(spot, format!("it is a {}: write [{0}.NAME]", other.table()))
            }
            None => {
                let missing = self.catalog.missing(role).map(|(name, _)| name);
                Problem::error(format!("unknown {role_name} type `{component}`")).at_with_nearest(
                    spot,
                    component,
                    known.into_iter().chain(missing),
                )
            }
        };
        self.report.add(problem.help("what there is: tidegate list"));
    }

    /// Keeps secrets out of every message, and warns of those that stand in the file itself.
    fn guard_secrets(&mut self, draft: &Draft<'_>) {
        let layers = &draft.layers;
        let secrets = secrets(&draft.options);
        let texts = layers.texts();
        for (at, text) in &texts {
            let Some(spot) = layers.value(at) else { continue };
            let is_secret = secrets.iter().any(|secret| secret.is(at));
            if is_secret || is_nearly_one_of(&secrets, at) {
                self.hide(&spot);
            }
            // A secret may be an address that holds none.
            let is_written_out = secret::password_in(text).is_some() || (is_secret && !text.contains("://"));
            if is_written_out && !text.is_empty() && is_literal(layers, at) {
                self.warn_of_secret(spot);
            }
        }
        // A key of digits only, say, which is a mistake for want of quotes.
        for at in secrets.iter().filter_map(Pattern::only) {
            let is_no_text = layers.root.get(&at[0]).is_some_and(|value| value.as_dict().is_none());
            if let (true, Some(spot)) = (is_no_text, layers.value(at)) {
                self.hide(&spot);
            }
        }
    }

    fn hide(&mut self, spot: &Spot) {
        for span in secret::outside_variables(&spot.file.text, spot.span.clone()) {
            self.report.hide(Spot { file: spot.file.clone(), span });
        }
    }

    fn warn_of_secret(&mut self, spot: Spot) {
        let problem = Problem::warning("a secret stands in the file").at(Some(spot), "whoever reads the file has it");
        self.report
            .add(problem.help("write \"${NAME}\" for a variable, or { file = \"…\" } where the option takes one"));
    }
}

/// Tells whether a key of the table is a secret's but for a slip of the pen: the line that shows the slip hides the value.
fn is_nearly_one_of(secrets: &[Pattern], at: &[String]) -> bool {
    let [key] = at else { return false };
    let names = secrets.iter().filter_map(Pattern::only).filter(|path| path.len() == 1);
    super::names::nearest(key, names.map(|path| path[0].as_str())).is_some()
}

/// Tells whether a value stands in a file as it is.
fn is_literal(layers: &Layers<'_>, at: &[String]) -> bool {
    match layers.origin(at) {
        Origin::Line { variables, .. } => variables.is_empty() && !layers.is_broken(at),
        Origin::Default | Origin::Variable(_) => false,
    }
}

fn secrets(options: &[Options]) -> Vec<Pattern> {
    options.iter().flat_map(Options::secrets).collect()
}

impl Draft<'_> {
    /// Parts the table into what each of the structs reads; the component gets what nobody knows.
    fn split<const PARTS: usize>(&self) -> [Dict; PARTS] {
        let mut parts = std::array::from_fn(|_| Dict::new());
        for (key, value) in &self.layers.root {
            let reader = self.options.iter().position(|options| options.keys.contains(key)).unwrap_or(0);
            parts[reader].insert(key.clone(), value.clone());
        }
        parts
    }

    fn keys<'k>(&'k self, secrets: &'k [Pattern], elsewhere: &'k dyn Fn(&str) -> Option<String>) -> Keys<'k> {
        let table = format!("[{}]", self.at.join("."));
        Keys { table, options: &self.options, component: Some(&self.component), secrets, elsewhere }
    }
}

/// Says where a key belongs that this kind of stage does not have.
fn elsewhere(catalog: &Catalog, role: Role, key: &str) -> Option<String> {
    let has = |keys: Vec<String>| keys.iter().any(|known| known == key);
    if role == Role::Source && has(shared_keys(Role::Sink)) {
        return Some("it belongs to a sink: [sink.NAME]".into());
    }
    if role == Role::Sink && has(shared_keys(Role::Source)) {
        return Some("it belongs to a source: [source.NAME]".into());
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

/// The host file's `[defaults.…]`.
#[derive(Debug)]
pub(super) struct Defaults<'a> {
    document: Option<&'a Document>,
    /// Names of components, so that `[defaults.sink.kafka]` is told from a key.
    types: BTreeSet<(&'static str, String)>,
}

impl<'a> Defaults<'a> {
    /// Looks through the defaults for keys that no component has.
    pub(super) fn new(catalog: &Catalog, document: Option<&'a Document>, report: &mut Report) -> Self {
        let mut types = BTreeSet::new();
        for role in [Role::Source, Role::Sink] {
            let known = catalog.names(role).into_iter().chain(catalog.missing(role).map(|(name, _)| name));
            types.extend(known.map(|name| (role.table(), name.to_owned())));
        }
        let defaults = Self { document, types };
        defaults.check(catalog, report);
        defaults
    }

    fn check(&self, catalog: &Catalog, report: &mut Report) {
        let (Some(document), Some(sections)) = (self.document, host::defaults(self.document, &[])) else { return };
        for (name, value) in sections {
            let at = path(["defaults", name]);
            let spot = document.key(&at);
            match (name.as_str(), value) {
                ("spool", Value::Dict(_, dict)) => {
                    let layers = Layers::merge(vec![Layer::File { document, at, dict: dict.clone() }]);
                    let options = [Options::of::<super::SpoolConfig>()];
                    let keys = Keys::of_table("defaults.spool", &options);
                    layers.read::<super::SpoolConfig>(layers.root.clone(), &keys, report);
                }
                ("source", Value::Dict(_, dict)) => self.check_role(catalog, Role::Source, dict, report),
                ("sink", Value::Dict(_, dict)) => self.check_role(catalog, Role::Sink, dict, report),
                ("source" | "sink" | "spool", _) => {
                    let problem = Problem::error(format!("`defaults.{name}` is not a table"));
                    report.add(problem.at(spot, format!("write [defaults.{name}]")));
                }
                _ => {
                    let problem = Problem::error(format!("unknown table [defaults.{name}]"));
                    report.add(problem.at_with_nearest(spot, name, ["source", "sink", "spool"]));
                }
            }
        }
    }

    fn check_role(&self, catalog: &Catalog, role: Role, dict: &Dict, report: &mut Report) {
        let Some(document) = self.document else { return };
        let role_name = role.table();
        let keys: BTreeSet<String> = catalog
            .names(role)
            .into_iter()
            .filter_map(|name| options(catalog, role, name))
            .flat_map(|o| keys_of(&o))
            .collect();
        for (key, value) in dict {
            let at = path(["defaults", role_name, key]);
            let spot = document.key(&at);
            match (self.of_type(role, key, value), options(catalog, role, key)) {
                (Some(table), Some(options)) => {
                    let known = keys_of(&options);
                    for key in table.keys().filter(|key| !known.contains(key)) {
                        let at: Path = at.iter().chain([key]).cloned().collect();
                        let problem = Problem::error(format!("unknown key `{key}` in [{}]", at[..3].join(".")));
                        let spot = document.key(&at);
                        report.add(match elsewhere(catalog, role, key) {
                            Some(place) => problem.at(spot, place),
                            None => problem.at_with_nearest(spot, key, known.iter().map(String::as_str)),
                        });
                    }
                }
                (Some(_), None) => {
                    let problem = Problem::warning(format!("{role_name} `{key}` is not in this build"));
                    report.add(problem.at(spot, "these defaults change nothing"));
                }
                (None, _) if keys.contains(key) => {}
                (None, _) => {
                    let problem = Problem::error(format!("no {role_name} has the key `{key}`"));
                    let types = self.types.iter().filter(|(of, _)| *of == role_name).map(|(_, name)| name);
                    report.add(problem.at_with_nearest(spot, key, keys.iter().chain(types).map(String::as_str)));
                }
            }
        }
    }

    /// Returns the table of a component's own defaults.
    fn of_type<'v>(&self, role: Role, key: &str, value: &'v Value) -> Option<&'v Dict> {
        value.as_dict().filter(|_| self.types.contains(&(role.table(), key.to_owned())))
    }

    /// Returns the layers of defaults for one stage: those for all of its role that it has keys for, then its type's.
    pub(super) fn of_stage(&self, role: Role, component: &str, keys: &[String]) -> Vec<Layer<'a>> {
        let Some((document, table)) = self.document.zip(host::defaults(self.document, &[role.table()])) else {
            return Vec::new();
        };
        let general =
            table.iter().filter(|(key, value)| keys.contains(key) && self.of_type(role, key, value).is_none());
        let general: Dict = general.map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut layers = vec![Layer::File { document, at: path(["defaults", role.table()]), dict: general }];
        if let Some(own) = table.get(component).and_then(|value| self.of_type(role, component, value)) {
            // An unknown key was reported once, at the defaults.
            let own: Dict =
                own.iter().filter(|(key, _)| keys.contains(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
            layers.push(Layer::File { document, at: path(["defaults", role.table(), component]), dict: own });
        }
        layers
    }

    /// Returns the layer of defaults for every spool.
    pub(super) fn spool(&self) -> Option<Layer<'a>> {
        let (document, dict) = self.document.zip(host::defaults(self.document, &["spool"]))?;
        // An unknown key was reported once, at the defaults.
        let known = Options::of::<super::SpoolConfig>().keys;
        let dict = dict.iter().filter(|(key, _)| known.contains(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        Some(Layer::File { document, at: path(["defaults", "spool"]), dict })
    }
}
