//! `[table.NAME]`: read, typed for the columns of the sources, and every mistake shown within its expression.

use std::{collections::BTreeMap, sync::Arc};

use figment::value::{Dict, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    explain::Keys,
    hints,
    layers::{Layer, Layers, join, path},
    load::Reader,
    names,
    options::Options,
    problem::{Problem, Spot},
    tables::{Sources, TableChoice, TableConfig},
};
use crate::{
    chunk::Plan,
    own,
    row::Table,
    spool::SourceInfo,
    table::{
        Definition, Derivation, Derived, Part,
        expression::{Condition, Mistake, Planned, Selection, Source},
    },
};

/// A table that is made of another one, row by row, for the sinks that take it. It needs no room in the spool: what it is made
/// of is there.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DerivedConfig {
    /// The table that it is made of: one of the sources', `coverage`, `status`, or another derived one.
    pub(super) from: String,
    /// Which rows it has: those for which this is true, `"price * size >= 10000 and side = 'buy'"`. Without it, all.
    #[serde(default)]
    pub(super) r#where: Option<String>,
    /// Its columns, in this order: `"ts_event as timestamp, symbol, price * size as value"`. The first that is the time of the
    /// table it is made of, or else the first time, orders it. Without it, all columns as they are.
    #[serde(default)]
    pub(super) select: Option<String>,
}

/// The steps that are planned, in their fixed order between `where` and `select`.
const PLANNED: [&str; 5] = ["dedup", "bars", "snapshot", "throttle", "asof"];

/// A derived table as far as it could be read.
pub(super) struct DerivedDraft {
    name: String,
    from: Option<String>,
    /// `None` where something is wrong with it.
    definition: Option<Definition>,
}

impl Reader<'_> {
    /// Reads every `[table.NAME]`.
    pub(super) fn derived_tables(&mut self) -> Vec<DerivedDraft> {
        let at = path(["table"]);
        let tables = match self.document.data.get("table") {
            None => return Vec::new(),
            Some(Value::Dict(_, tables)) if tables.values().all(|table| table.as_dict().is_some()) => tables,
            Some(_) => {
                let problem = Problem::error("a derived table needs a name");
                self.report.add(problem.at(self.document.key(&at), "write [table.NAME]"));
                self.useless.push(at);
                return Vec::new();
            }
        };
        let tables = tables.iter().filter_map(|(name, table)| Some((name, table.as_dict()?)));
        tables.map(|(name, table)| self.derived_table(name, table)).collect()
    }

    fn derived_table(&mut self, name: &str, table: &Dict) -> DerivedDraft {
        let at = path(["table", name]);
        let mut draft = DerivedDraft { name: name.to_owned(), from: None, definition: None };
        if !names::is_valid(name) {
            let problem = Problem::error(format!("`{name}` is no name for a table"));
            self.report.add(problem.at(self.document.key(&at), names::VALID));
            return draft;
        }
        let mut table = table.clone();
        let mut is_whole = true;
        for step in PLANNED {
            if table.remove(step).is_some() {
                is_whole = false;
                let spot = self.document.key(&join(&at, &[step.to_owned()]));
                let problem = Problem::error(format!("`{step}` is not in this version"));
                self.report.add(problem.at(spot, "").help("a table has `from`, `where` and `select`: take it out"));
                self.useless.push(join(&at, &[step.to_owned()]));
            }
        }
        let layers = Layers::merge(vec![Layer::File { document: self.document, at: at.clone(), dict: table }]);
        let options = [Options::of::<DerivedConfig>()];
        let keys = Keys::of_table(&format!("table.{name}"), &options);
        let config = layers.read_mended::<DerivedConfig>(layers.root.clone(), &keys, |_, _| {}, self.report);
        let Some(config) = config else { return draft };
        is_whole &= config.is_right() && !layers.is_broken(&[]);
        let config = config.value;
        if !layers.is_broken(&path(["from"])) {
            draft.from = Some(config.from.clone());
        }
        let condition = self.expression(name, Part::Where, config.r#where.as_deref(), Condition::read);
        let selection = self.expression(name, Part::Select, config.select.as_deref(), Selection::read);
        let (Some(condition), Some(selection), true) = (condition, selection, is_whole) else { return draft };
        let filled = DerivedConfig {
            from: config.from.clone(),
            r#where: condition.as_ref().map(Condition::text),
            select: selection.as_ref().map(Selection::text),
        };
        self.keep(&layers, &at, &filled);
        draft.definition =
            Some(Definition { name: name.into(), from: config.from.as_str().into(), condition, selection });
        draft
    }

    /// Reads an expression; `None` where it is none. What a variable stands for is not put into it here.
    fn expression<T>(
        &mut self,
        table: &str,
        part: Part,
        text: Option<&str>,
        read: impl FnOnce(Source) -> Planned<T>,
    ) -> Option<Option<T>> {
        let Some(text) = text else { return Some(None) };
        let at = path(["table", table, &part.to_string()]);
        if self.document.is_broken(&at) {
            return None;
        }
        let values = self.document.values(&at).unwrap_or_default();
        match read(Source::new(text, values)) {
            Ok(read) => Some(Some(read)),
            Err(mistake) => {
                self.add_mistake(table, part, *mistake);
                None
            }
        }
    }

    fn add_mistake(&mut self, table: &str, part: Part, mistake: Mistake) {
        let at = path(["table", table, &part.to_string()]);
        let text = self.document.text(&at).unwrap_or_default();
        let Mistake { span, title, label, help, unknown } = mistake;
        let spot = self.document.value(&at).map(|spot| spot.within(text, span));
        let problem = Problem::error(title);
        let problem = match &unknown {
            Some((written, known)) => problem.at_with_nearest(spot, written, known.iter().map(String::as_str)),
            None => problem.at(spot, label),
        };
        self.report.add(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }

    /// Holds the derived tables against those of the sources; `None` where something is wrong with one, or nobody knows.
    pub(super) fn check_derived(
        &mut self,
        drafts: &[DerivedDraft],
        sources: &Sources<'_>,
        declared: &[SourceInfo],
        columns_fit: bool,
    ) -> Option<Derived> {
        let errors = self.report.errors();
        for draft in drafts {
            self.check_name(draft, sources);
            self.check_from(draft, drafts, sources);
        }
        self.check_circles(drafts);
        let definitions: Option<Vec<Definition>> = drafts.iter().map(|draft| draft.definition.clone()).collect();
        let known: Vec<Definition> = drafts.iter().filter_map(|draft| draft.definition.clone()).collect();
        if self.report.errors() == errors && columns_fit {
            let known = Derived::new(known);
            for definition in known.definitions() {
                self.check_columns_of(definition, &known, declared);
            }
        }
        let is_right = self.report.errors() == errors && columns_fit && sources.are_known();
        definitions.filter(|_| is_right).map(Derived::new)
    }

    fn check_name(&mut self, draft: &DerivedDraft, sources: &Sources<'_>) {
        let DerivedDraft { name, .. } = draft;
        let spot = self.document.key(&path(["table", name]));
        if own::is_own(name) {
            let title = format!("every pipeline has a table `{name}` of its own");
            self.report.add(Problem::error(title).at(spot, "").help("call this one something else"));
        } else if let Some(source) = sources.of_table(name) {
            let title = format!("[source.{source}] has a table `{name}` already");
            let problem = Problem::error(title).at(spot, "");
            self.report.add(problem.help("call this one something else: both would be meant by one name"));
        }
    }

    fn check_from(&mut self, draft: &DerivedDraft, drafts: &[DerivedDraft], sources: &Sources<'_>) {
        let Some(from) = &draft.from else { return };
        let is_derived = drafts.iter().any(|other| other.name == *from);
        if is_derived || own::is_own(from) || sources.have(from) {
            return;
        }
        // What a source may have once its mistakes are mended is not wrong yet.
        let Some(others) = sources.others.as_ref().filter(|others| !others.contains(from)) else { return };
        let derived = drafts.iter().map(|draft| draft.name.as_str()).filter(|name| *name != draft.name);
        let known: Vec<&str> =
            sources.names().chain(others.iter().map(String::as_str)).chain(own::NAMES).chain(derived).collect();
        let spot = self.document.value(&path(["table", &draft.name, "from"])).map(Spot::inside_quotes);
        let problem = Problem::error(format!("there is no table `{from}`"));
        self.report.add(match hints::alias(from, &known) {
            Some(alias) => problem.at_alias(spot, alias),
            None => problem.at_with_nearest(spot, from, known),
        });
    }

    fn check_circles(&mut self, drafts: &[DerivedDraft]) {
        let from: BTreeMap<&str, &str> =
            drafts.iter().filter_map(|draft| Some((draft.name.as_str(), draft.from.as_deref()?))).collect();
        let mut said: Vec<&str> = Vec::new();
        for draft in drafts {
            let mut circle = vec![draft.name.as_str()];
            let mut next = from.get(draft.name.as_str());
            while let Some(table) = next.filter(|table| !circle.contains(table)) {
                circle.push(table);
                next = from.get(table);
            }
            if next != Some(&draft.name.as_str()) || said.contains(&draft.name.as_str()) {
                continue;
            }
            said.extend(&circle);
            circle.push(&draft.name);
            let way = circle.iter().map(|table| format!("`{table}`")).collect::<Vec<_>>().join(" from ");
            let spot = self.document.value(&path(["table", &draft.name, "from"]));
            let problem = Problem::error(format!("a table is made of itself: {way}"));
            self.report.add(problem.at(spot, "").help("one of them has to be `from` a table of a source"));
        }
    }

    /// Types a table's expressions; a table that it is made of has told its own mistakes.
    fn check_columns_of(&mut self, definition: &Definition, known: &Derived, declared: &[SourceInfo]) {
        let way = known.way(definition.name());
        let Some(root) = way.first().map(|first| first.from()) else { return };
        let Some(input) = input(root, declared) else { return };
        let Err(unplanned) = Derivation::new(&way, &input) else { return };
        if *unplanned.table == *definition.name() {
            for mistake in unplanned.mistakes {
                self.add_mistake(definition.name(), unplanned.part, mistake);
            }
        }
    }

    /// Says which derived tables nobody takes, themselves or by way of others.
    pub(super) fn warn_of_idle(&mut self, derived: &Derived, meant: &[TableChoice]) {
        let is_taken = |name: &str| meant.iter().any(|choice| choice.takes(name));
        let taken: Vec<&Definition> = derived.definitions().iter().filter(|of| is_taken(of.name())).collect();
        let feeds = |name: &str| taken.iter().any(|of| derived.way(of.name()).iter().any(|on| on.name() == name));
        for definition in derived.definitions().iter().filter(|of| !feeds(of.name())) {
            let spot = self.document.key(&path(["table", definition.name()]));
            let problem = Problem::warning(format!("no sink takes table `{}`", definition.name()));
            self.report.add(problem.at(spot, "nobody gets its rows"));
        }
    }
}

/// Returns a table with the columns of all sources that have it.
fn input(name: &str, declared: &[SourceInfo]) -> Option<Arc<Table>> {
    let only = TableChoice::Only(BTreeMap::from([(name.to_owned(), TableConfig::default())]));
    let plan = Plan::new("", declared.to_vec(), only).ok()?;
    plan.tables().first().map(|table| table.table.clone())
}
