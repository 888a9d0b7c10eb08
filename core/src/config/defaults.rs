//! The host file's `[defaults.…]`: what stages and spools fall back to.

use std::collections::BTreeSet;

use figment::value::{Dict, Value};

use super::{
    document::{Document, Path},
    driver::{ConnectionConfig, DeliveryConfig, SpoolConfig},
    explain::Keys,
    host,
    layers::{Layer, Layers, path},
    options::Options,
    problem::Problem,
    report::Report,
    stage::{Draft, SinkKeys, SourceKeys, elsewhere, guard_secrets, keys_of, not_there, options, secrets},
};
use crate::catalog::{Catalog, Role};

/// The host file's `[defaults.…]`.
#[derive(Debug)]
pub(super) struct Defaults<'a> {
    document: Option<&'a Document>,
    /// Names of components, so that `[defaults.sink.kafka]` is told from a key.
    types: BTreeSet<(&'static str, String)>,
    /// Those of them that are not there.
    missing: BTreeSet<(&'static str, String)>,
}

impl<'a> Defaults<'a> {
    /// Looks through the defaults for keys that no component has.
    pub(super) fn new(catalog: &Catalog, document: Option<&'a Document>, report: &mut Report) -> Self {
        let (mut types, mut missing) = (BTreeSet::new(), BTreeSet::new());
        for role in [Role::Source, Role::Sink] {
            missing.extend(catalog.missing(role).map(|(name, _)| (role.table(), name.to_owned())));
            types.extend(catalog.names(role).into_iter().map(|name| (role.table(), name.to_owned())));
        }
        types.extend(missing.iter().cloned());
        let defaults = Self { document, types, missing };
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
                    let options = [Options::of::<SpoolConfig>()];
                    let keys = Keys::of_table("defaults.spool", &options);
                    layers.read::<SpoolConfig>(layers.root.clone(), &keys, report);
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
                    let all = Layer::File { document, at: at.clone(), dict: table.clone() };
                    guard_secrets(&Layers::merge(vec![all]), &secrets(&options), report);
                    for key in table.keys().filter(|key| !known.contains(key)) {
                        let at: Path = at.iter().chain([key]).cloned().collect();
                        let problem = Problem::error(format!("unknown key `{key}` in [{}]", at[..3].join(".")));
                        let spot = document.key(&at);
                        report.add(match elsewhere(catalog, role, key) {
                            Some(place) => problem.at(spot, place),
                            None => problem.at_with_nearest(spot, key, known.iter().map(String::as_str)),
                        });
                    }
                    let dict = table.iter().filter(|(key, _)| known.contains(key));
                    let dict = dict.map(|(key, value)| (key.clone(), value.clone())).collect();
                    let layers = Layers::merge(vec![Layer::File { document, at: at.clone(), dict }]);
                    look_over(catalog, role, &Draft { at, component: key.clone(), layers, options }, report);
                }
                (Some(_), None) => {
                    if let Some((title, remedy)) = not_there(catalog, role, key) {
                        report.add(Problem::warning(title).at(spot, "these defaults change nothing").help(remedy));
                    }
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

    /// Tells whether there is a type of this name, in this version or another.
    pub(super) fn is_type(&self, role: &str, name: &str) -> bool {
        self.types.iter().any(|(of, known)| *of == role && known == name)
    }

    /// Returns the tables of types that are not there.
    pub(super) fn useless(&self) -> impl Iterator<Item = Path> {
        self.missing.iter().map(|(role, component)| path(["defaults", role, component]))
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
        let known = Options::of::<SpoolConfig>().keys;
        let dict = dict.iter().filter(|(key, _)| known.contains(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        Some(Layer::File { document, at: path(["defaults", "spool"]), dict })
    }
}

/// Reports what is wrong with single values of a type's defaults, whether or not a pipeline uses them.
fn look_over(catalog: &Catalog, role: Role, draft: &Draft<'_>, report: &mut Report) {
    let secrets = secrets(&draft.options);
    let keys = Keys { is_partial: true, ..draft.keys(&secrets, &|_| None) };
    let (layers, component) = (&draft.layers, draft.component.as_str());
    match role {
        Role::Source if catalog.sources.has(component) => {
            let [own, common] = draft.split();
            catalog.look_over(role, component, layers, own, &keys, report);
            layers.read::<SourceKeys>(common, &keys, report);
        }
        Role::Source => {
            let [own, connection, common] = draft.split();
            catalog.look_over(role, component, layers, own, &keys, report);
            layers.read::<ConnectionConfig>(connection, &keys, report);
            layers.read::<SourceKeys>(common, &keys, report);
        }
        Role::Sink => {
            let [own, delivery, common] = draft.split();
            catalog.look_over(role, component, layers, own, &keys, report);
            layers.read::<DeliveryConfig>(delivery, &keys, report);
            layers.read::<SinkKeys>(common, &keys, report);
        }
    }
}
