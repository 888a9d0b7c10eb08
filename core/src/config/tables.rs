//! Which tables a sink takes, and whether the sources have them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor},
};

use super::{
    derived::DerivedDraft,
    hints,
    keys::OnConflict,
    layers::{join, path},
    load::Reader,
    names::{NameParts, NameTemplate},
    problem::{Problem, Spot},
    stage::{SinkDraft, SourceDraft},
    text_or::TextOr,
    units::Duration,
};
use crate::{
    chunk::Plan,
    own,
    row::{ColumnType, Table},
    spool::SourceInfo,
    table::Derived,
};

/// The tables that a sink takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TableChoice {
    /// All that the sources have, and all that are derived; none of the pipeline's own.
    #[default]
    All,
    /// These.
    Only(BTreeMap<String, TableConfig>),
}

/// What differs for one table of a sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TableConfig {
    /// What it is called in the store; without it, as the table.
    pub name: Option<NameTemplate>,
    /// The columns that two rows of one thing have in common: `key = ["symbol", "id"]`. Goes with `on_conflict`, and with
    /// stores that have keys. No row is ever stored twice without it.
    pub key: Vec<String>,
    /// What becomes of a row whose key is in the store already; a row that lacks a column of the key has none. Without it,
    /// rows are appended, but for those of `coverage`, which has a key without being told, and replaces.
    pub on_conflict: Option<OnConflict>,
    /// How long its rows are kept, in place of what the sink says of all tables. Goes with stores that drop old rows by
    /// themselves; one that is older when it comes is a dead letter.
    pub retention: Option<Duration>,
}

impl TableConfig {
    /// Tells whether rows are anything but appended, or meant to be.
    pub(super) fn has_key(&self) -> bool {
        !self.key.is_empty() || self.on_conflict.is_some_and(|on_conflict| on_conflict != OnConflict::Append)
    }
}

impl TableChoice {
    /// Tells whether the sink takes this table. Those of the pipeline's own have to be named.
    pub fn takes(&self, table: &str) -> bool {
        match self {
            Self::All => !own::is_own(table),
            Self::Only(tables) => tables.contains_key(table),
        }
    }

    /// Returns what the user calls this table in the store; `None` for the store's own choice.
    pub fn name(&self, table: &str) -> Option<&NameTemplate> {
        self.config(table)?.name.as_ref()
    }

    /// Returns what differs for this table, if anything may.
    pub(crate) fn config(&self, table: &str) -> Option<&TableConfig> {
        match self {
            Self::All => None,
            Self::Only(tables) => tables.get(table),
        }
    }
}

impl<'de> Deserialize<'de> for TableChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrMap;
        impl<'de> Visitor<'de> for ListOrMap {
            type Value = TableChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"a list of tables, or a table of their names in the store: { trades = "my_trades" }"#)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TableChoice, A::Error> {
                let mut tables = BTreeMap::new();
                while let Some(table) = list.next_element::<String>()? {
                    tables.insert(table, TableConfig::default());
                }
                Ok(TableChoice::Only(tables))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TableChoice, A::Error> {
                let mut tables = BTreeMap::new();
                while let Some((table, config)) = map.next_entry::<String, TextOr<NameTemplate, TableConfig>>()? {
                    let config = match config {
                        TextOr::Text(name) => TableConfig { name: Some(name), ..TableConfig::default() },
                        TextOr::Table(config) => config,
                    };
                    tables.insert(table, config);
                }
                Ok(TableChoice::Only(tables))
            }
        }
        deserializer.deserialize_any(ListOrMap)
    }
}

impl Serialize for TableChoice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_none(),
            Self::Only(tables) if tables.values().all(|table| *table == TableConfig::default()) => {
                serializer.collect_seq(tables.keys())
            }
            Self::Only(tables) => serializer.collect_map(tables),
        }
    }
}

impl JsonSchema for TableChoice {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "tables".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<TextOr<NameTemplate, TableConfig>>();
        json_schema!({
            "x-unit": "list of tables | table of their names",
            "anyOf": [
                { "type": "array", "items": { "type": "string" } },
                { "type": "object", "additionalProperties": name },
            ],
        })
    }
}

impl Reader<'_> {
    /// Holds what the sinks take against what the sources have, and the derived tables against both. What could not be read
    /// at all is `None`. Returns the derived tables, if nothing is wrong with them.
    pub(super) fn check_tables(
        &mut self,
        pipeline: Option<&str>,
        sources: &[Option<SourceDraft>],
        drafts: &[DerivedDraft],
        sinks: &[Option<SinkDraft<'_>>],
    ) -> Option<Derived> {
        let sources_of = Sources::of(sources);
        let columns_fit = self.check_columns(&sources_of.tables);
        let pipeline = pipeline.unwrap_or("pipeline");
        self.check_own(&sources_of.tables);
        let mut declared: Vec<SourceInfo> = sources.iter().flatten().map(declared).collect();
        declared.push(own::whole_source());
        let derived = self.check_derived(drafts, &sources_of, &declared, columns_fit);
        // What each sink means to take; `None` where that is not known.
        let mut meant: Vec<Option<(&SinkDraft<'_>, TableChoice)>> = Vec::new();
        for sink in sinks {
            let choice =
                sink.as_ref().and_then(|sink| Some((sink, self.check_sink(sink, &sources_of, derived.as_ref())?)));
            if let Some((sink, choice)) = &choice
                && columns_fit
                && (sources_of.are_known() && derived.is_some() || *choice != TableChoice::All)
            {
                let plan = (choice, derived.clone().unwrap_or_default());
                self.check_names(sink, plan, pipeline, &declared);
            }
            meant.push(choice);
        }
        let known = derived.clone().unwrap_or_default();
        self.check_stores(pipeline, &meant, &sources_of.tables, &known);
        let meant: Option<Vec<TableChoice>> = meant.into_iter().map(|meant| Some(meant?.1)).collect();
        let (Some(meant), Some(derived)) = (meant, &derived) else { return derived };
        self.warn_of_idle(derived, &meant);
        let is_taken = |table: &str| {
            let derived = derived.definitions().iter().map(|of| of.name());
            let derived = derived.filter(|name| known.root(name).is_some_and(|root| *root == *table));
            [table].into_iter().chain(derived).any(|name| meant.iter().any(|choice| choice.takes(name)))
        };
        for (source, table) in sources_of.tables {
            if !is_taken(&table.name) {
                let spot = self.place_of_table(&source.name, &table.name);
                let problem = Problem::warning(format!("no sink takes table `{}`", table.name));
                self.report.add(problem.at(spot, "it would be read, spooled and dropped"));
            }
        }
        Some(known)
    }

    /// The pipeline's own tables have their names for themselves.
    fn check_own(&mut self, tables: &[(&SourceDraft, &Table)]) {
        for (source, table) in tables.iter().filter(|(_, table)| own::is_own(&table.name)) {
            let title =
                format!("[source.{}] has a table `{}`, which the pipeline has of its own", source.name, table.name);
            let spot = self.place_of_table(&source.name, &table.name);
            self.report.add(Problem::error(title).at(spot, "").help("call it something else"));
        }
    }

    /// Two sources that feed one table name share its columns, so a column has one type. Tells whether all have.
    fn check_columns(&mut self, tables: &[(&SourceDraft, &Table)]) -> bool {
        let mut all_fit = true;
        let mut first_of: HashMap<(&str, &str), (&SourceDraft, ColumnType)> = HashMap::new();
        for (source, table) in tables {
            for column in &table.columns {
                let (first, kind) =
                    *first_of.entry((&table.name, &column.name)).or_insert((source, column.column_type));
                if kind == column.column_type {
                    continue;
                }
                all_fit = false;
                let title = format!(
                    "`{}.{}` has one type in [source.{}] and another in [source.{}]",
                    table.name, column.name, first.name, source.name
                );
                let spot = self.document.key(&path(["source", &source.name]));
                let problem = Problem::error(title).at(spot, "the second");
                let problem = problem.at(self.document.key(&path(["source", &first.name])), "the first");
                self.report.add(problem.help("give one of them a pipeline of its own"));
            }
        }
        all_fit
    }

    /// Returns which of the sources' tables a sink means to take; `None` where that is not known.
    fn check_sink(
        &mut self,
        sink: &SinkDraft<'_>,
        sources: &Sources<'_>,
        derived: Option<&Derived>,
    ) -> Option<TableChoice> {
        let at = path(["sink", &sink.name, "tables"]);
        let choice = sink.tables.clone()?;
        let TableChoice::Only(named) = choice else {
            if sources.tables.is_empty() && sources.are_known() {
                let problem = Problem::error(format!("sink `{}` takes no table", sink.name));
                self.report.add(problem.at(self.document.key(&path(["sink", &sink.name])), "the sources have none"));
            }
            return Some(choice);
        };
        if named.is_empty() {
            let problem = Problem::error(format!("sink `{}` takes no table", sink.name));
            let problem = problem.at(self.document.value(&at), "");
            self.report.add(problem.help("leave `tables` out to take all"));
        }
        // What is wrong with a derived table is said where it is defined.
        let own = self.document.data.get("table").and_then(|tables| tables.as_dict());
        let mut meant = Some(BTreeMap::new());
        for (table, config) in named {
            let is_derived = derived.is_some_and(|derived| derived.has(&table));
            let name = if sources.have(&table) || own::is_own(&table) || is_derived {
                Some(table)
            } else if own.is_some_and(|tables| tables.contains_key(&table)) || self.document.is_broken(&at) {
                None
            } else {
                self.unknown_table(&at, &table, sources)
            };
            meant = meant.zip(name).map(|(mut meant, name)| {
                meant.entry(name).or_insert(config);
                meant
            });
        }
        meant.map(TableChoice::Only)
    }

    /// Reports a table that no source has, if that is sure, and returns the one that was meant.
    fn unknown_table(&mut self, at: &[String], table: &str, sources: &Sources<'_>) -> Option<String> {
        let spot = self.place_in(at, table);
        let others = sources.others.as_ref().filter(|others| !others.iter().any(|other| other == table))?;
        let derived = self.document.data.get("table").and_then(|tables| tables.as_dict());
        let derived: Vec<&str> = derived.into_iter().flat_map(|tables| tables.keys().map(String::as_str)).collect();
        let of_sources = sources.names().chain(others.iter().map(String::as_str));
        let known: Vec<&str> = of_sources.chain(own::NAMES).chain(derived).collect();
        let mut problem = Problem::error(format!("no source has the table `{table}`"));
        problem = match hints::alias(table, &known) {
            Some(alias) => problem.at_alias(spot, alias),
            None => problem.at_with_nearest(spot, table, known),
        };
        let meant = problem.instead.clone();
        self.report.add(problem);
        meant.filter(|meant| sources.have(meant))
    }

    /// Joins and names a sink's tables as they will be, and shows them to the sink.
    fn check_names(
        &mut self,
        sink: &SinkDraft<'_>,
        (choice, derived): (&TableChoice, Derived),
        pipeline: &str,
        sources: &[SourceInfo],
    ) {
        let Some(check) = &sink.check_tables else { return };
        let plan = match Plan::deriving(pipeline, sources.to_vec(), choice.clone(), derived) {
            Ok(plan) => plan,
            Err(error) => return self.refuse_tables(sink, &error),
        };
        let mistakes = self.report.errors();
        self.check_keys(sink, choice, plan.tables());
        // What the store would say of a key was said.
        if self.report.errors() > mistakes {
            return;
        }
        if let Err(error) = check(plan.tables()) {
            self.refuse_tables(sink, &error);
        }
    }

    /// Two sinks that write a table to one place would double its rows.
    fn check_stores(
        &mut self,
        pipeline: &str,
        sinks: &[Option<(&SinkDraft<'_>, TableChoice)>],
        tables: &[(&SourceDraft, &Table)],
        derived: &Derived,
    ) {
        // Many stores take two names for one that differ in case only, so here they are one.
        let mut first_of: BTreeMap<(&str, String), &str> = BTreeMap::new();
        for (sink, choice) in sinks.iter().flatten() {
            let Some(store) = &sink.store else { continue };
            let of_sources = tables.iter().map(|(source, table)| (&*source.component, &*table.name));
            let all: Vec<(&str, &str)> = of_sources.chain(own::NAMES.map(|name| (own::VENUE, name))).collect();
            let derived = derived.definitions().iter().flat_map(|of| {
                let root = derived.root(of.name());
                let made_of = all.iter().filter(move |(_, table)| root.as_ref().is_some_and(|root| **root == **table));
                made_of.map(|(venue, _)| (*venue, of.name()))
            });
            let names: BTreeMap<(&str, String), String> = all
                .iter()
                .copied()
                .chain(derived)
                .filter(|(_, table)| choice.takes(table))
                .map(|(venue, table)| {
                    let row = NameParts { pipeline, venue, table, symbol: "{symbol}" };
                    let name = choice.name(table).map_or_else(|| table.to_owned(), |n| n.fill(row));
                    ((&**store, name.to_ascii_lowercase()), name)
                })
                .collect();
            for (key, table) in names {
                let Some(first) = first_of.get(&key) else {
                    first_of.insert(key, &sink.name);
                    continue;
                };
                let title = format!("sinks `{first}` and `{}` write table `{table}` to one store", sink.name);
                let mut spots = [*first, sink.name.as_str()].map(|name| self.document.key(&path(["sink", name])));
                spots.sort_by_key(|spot| spot.as_ref().map(|spot| spot.span.start));
                let [first, second] = spots;
                let problem = Problem::error(title).at(second, "the second").at(first, "the first");
                self.report.add(
                    problem.help("name it differently by `tables`, or take one out: each row would be there twice"),
                );
            }
        }
    }

    /// Returns where a table is named in a sink's `tables`: as an element, or as a key.
    fn place_in(&self, at: &[String], table: &str) -> Option<Spot> {
        let key = join(at, &[table.to_owned()]);
        self.document.key(&key).or_else(|| self.document.value(at).map(|spot| spot.part(table)))
    }

    /// Returns where a source is told to read a table.
    fn place_of_table(&self, source: &str, table: &str) -> Option<Spot> {
        let channels = self.document.value(&path(["source", source, "channels"]));
        let channel = channels.map(|spot| spot.part(&format!("\"{table}\"")));
        channel.or_else(|| self.document.key(&path(["source", source])))
    }
}

/// What the sources have, as far as it is known.
pub(super) struct Sources<'a> {
    tables: Vec<(&'a SourceDraft, &'a Table)>,
    /// What they may have besides, once their mistakes are mended; `None` for anything.
    pub(super) others: Option<Vec<String>>,
}

impl<'a> Sources<'a> {
    fn of(sources: &'a [Option<SourceDraft>]) -> Self {
        let tables = sources.iter().flatten().flat_map(|source| source.tables.iter().map(move |table| (source, table)));
        let others: Option<Vec<_>> = sources.iter().map(|source| source.as_ref()?.others.clone()).collect();
        Self { tables: tables.collect(), others: others.map(|others| others.concat()) }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.tables.iter().map(|(_, table)| &*table.name)
    }

    /// Returns the source that has a table.
    pub(super) fn of_table(&self, name: &str) -> Option<&'a str> {
        self.tables.iter().find(|(_, table)| *table.name == *name).map(|(source, _)| source.name.as_str())
    }

    pub(super) fn have(&self, name: &str) -> bool {
        self.names().any(|table| table == name)
    }

    /// Tells whether these are all of their tables.
    pub(super) fn are_known(&self) -> bool {
        self.others.as_ref().is_some_and(Vec::is_empty)
    }
}

/// Returns what the spool will say of a source.
fn declared(source: &SourceDraft) -> SourceInfo {
    let tables = source.tables.iter().cloned().map(Arc::new).collect();
    SourceInfo { name: source.name.as_str().into(), venue: source.component.as_str().into(), tables }
}
