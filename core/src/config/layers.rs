//! The layers of one table, merged by figment, and how they are read: every mistake, each with its line.

use std::collections::{BTreeMap, BTreeSet};

use figment::{
    Figment, Metadata, Profile, Provider,
    error::{Actual, Kind},
    value::{Dict, Map, Value},
};
use serde::de::DeserializeOwned;

use super::{
    document::{Document, Path},
    explain::{self, Keys},
    faults::Faults,
    options::Pattern,
    problem::{Problem, Spot},
    report::Report,
    secret,
};

/// The layers of one table of the configuration.
#[derive(Debug)]
pub(crate) struct Layers<'a> {
    /// The weakest first.
    layers: Vec<Layer<'a>>,
    /// What came of merging them.
    pub(crate) root: Dict,
}

/// One layer: a table of a file, or variables of the process.
#[derive(Debug, Clone)]
pub(crate) enum Layer<'a> {
    /// What stands in a file at this path; `dict` is what counts of it.
    File { document: &'a Document, at: Path, dict: Dict },
    /// Variables, by the path of the option that they set.
    Variables(BTreeMap<Path, Variable>),
}

/// A variable that sets an option.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    Line { spot: Spot, variables: Vec<String> },
    Variable(String),
}

/// A mistake that cannot be mended ends a table's reading; more rounds than mistakes can be told apart are none.
const MOST_ROUNDS: usize = 200;

impl<'a> Layers<'a> {
    /// Merges the layers, the weakest first.
    pub(crate) fn merge(layers: Vec<Layer<'a>>) -> Self {
        let figment = layers.iter().fold(Figment::new(), Figment::merge);
        let root = figment.extract().expect("any dictionary is a dictionary");
        Self { layers, root }
    }

    /// Reads `table`, a part of these layers. Reports every mistake in it.
    pub(crate) fn read<T: DeserializeOwned>(&self, table: Dict, keys: &Keys<'_>, report: &mut Report) -> Option<T> {
        self.read_checked(table, keys, |_, _| {}, report)
    }

    /// Reads `table`, and reports also what `check` finds in the values that are right by themselves.
    pub(crate) fn read_checked<T: DeserializeOwned>(
        &self,
        table: Dict,
        keys: &Keys<'_>,
        check: impl FnOnce(&T, &mut Faults),
        report: &mut Report,
    ) -> Option<T> {
        self.read_mended(table, keys, check, report).filter(Mended::is_right).map(|mended| mended.value)
    }

    /// Reads `table` as [`read_checked`](Self::read_checked) does, and returns also one that has mistakes, without these:
    /// what can be told from the rest is told at once.
    pub(crate) fn read_mended<T: DeserializeOwned>(
        &self,
        table: Dict,
        keys: &Keys<'_>,
        check: impl FnOnce(&T, &mut Faults),
        report: &mut Report,
    ) -> Option<Mended<T>> {
        let mut attempt = Attempt { value: table.into(), removed: BTreeSet::new(), meant: Vec::new() };
        for _ in 0..MOST_ROUNDS {
            let error = match T::deserialize(&attempt.value) {
                Ok(value) => {
                    let mut faults = Faults::default();
                    check(&value, &mut faults);
                    let has_faults = self.add_faults(&attempt, faults, keys, report);
                    return Some(Mended { value, wrong: attempt.wrong(), has_faults });
                }
                Err(error) => error,
            };
            if !self.mend(&mut attempt, error, keys, report) {
                return None;
            }
        }
        self.add_untold(keys, report);
        None
    }

    /// Says that not all mistakes were looked for.
    fn add_untold(&self, keys: &Keys<'_>, report: &mut Report) {
        let problem = Problem::error(format!("{} has more mistakes than these", keys.table));
        report.add(problem.at(self.key(&[]), "mend the first ones, and check again"));
    }

    /// Reports faults, but for those that follow from what was taken out. Tells whether there are any.
    fn add_faults(&self, attempt: &Attempt, faults: Faults, keys: &Keys<'_>, report: &mut Report) -> bool {
        let wrong = attempt.wrong();
        let hidden = self.hidden_values(keys.secrets);
        let faults = faults.into_vec();
        let has_faults = faults.iter().any(|fault| !fault.is_harmless);
        for (number, fault) in faults.into_iter().enumerate() {
            if number == MOST_ROUNDS {
                self.add_untold(keys, report);
                break;
            }
            let about: Vec<Path> = fault.keys.iter().map(|path| attempt.original(path)).collect();
            let touches = |path: &Path| wrong.iter().any(|wrong| wrong.starts_with(path) || path.starts_with(wrong));
            if !about.iter().any(|path| touches(path) || self.is_broken(path)) {
                let problem = explain::fault(self, keys, &without_values(fault.message, &hidden), &about);
                report.add(if fault.is_harmless { problem.harmless() } else { problem });
            }
        }
        has_faults
    }

    /// Reports what is wrong and takes it out, so that the next mistake can be found.
    fn mend(&self, attempt: &mut Attempt, mut error: figment::Error, keys: &Keys<'_>, report: &mut Report) -> bool {
        if let Kind::UnknownField(field, _) = &error.kind
            && error.path.last() != Some(field)
        {
            // A hand-written visitor does not put the key into the path, serde's derive does.
            error.path.push(field.clone());
        }
        let path = attempt.original(&error.path);
        if matches!(error.kind, Kind::InvalidType(Actual::Str(_), _))
            && self.written(&path).is_some()
            && edit(&mut attempt.value, &error.path, coerce)
        {
            return true;
        }
        let is_to_come = keys.is_partial && matches!(error.kind, Kind::MissingField(_));
        if !is_to_come && !self.is_said(attempt, &error.kind, &path) {
            let problem = explain::explain(self, &error.kind, &path, keys);
            let around = &path[..path.len().saturating_sub(1)];
            attempt.meant.extend(problem.instead.as_ref().map(|key| join(around, std::slice::from_ref(key))));
            report.add(problem);
            if let Kind::MissingField(field) = &error.kind {
                self.add_missing(attempt, &error.path, &path, field, keys, report);
            }
        }
        attempt.remove(&error.path, path)
    }

    /// Reports the other keys that a table has to have: serde stops at the first.
    fn add_missing(
        &self,
        attempt: &Attempt,
        at: &[String],
        path: &[String],
        first: &str,
        keys: &Keys<'_>,
        report: &mut Report,
    ) {
        let is_there = |key: &str| lookup(&attempt.value, &join(at, &[key.to_owned()])).is_some();
        for key in keys.required_at(path).into_iter().filter(|key| key != first && !is_there(key)) {
            let kind = Kind::MissingField(key.into());
            if !self.is_said(attempt, &kind, path) {
                report.add(explain::explain(self, &kind, path, keys));
            }
        }
    }

    /// Tells whether the mistake follows from one that was reported.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is figment's: all others are about the value")]
    fn is_said(&self, attempt: &Attempt, kind: &Kind, path: &[String]) -> bool {
        match kind {
            Kind::MissingField(field) => {
                let missing = join(path, &[field.to_string()]);
                attempt.removed.contains(&missing) || attempt.meant.contains(&missing) || self.is_broken(&missing)
            }
            // Whatever is wrong with its value, the key is wrong too.
            Kind::UnknownField(..) => false,
            _ => self.is_broken(path),
        }
    }

    /// Returns the place of a key in the strongest file that has it.
    pub(crate) fn key(&self, path: &[String]) -> Option<Spot> {
        match self.strongest(path)? {
            Found::File(document, at) => document.key(&at),
            Found::Variable(_) => None,
        }
    }

    /// Returns the place of a value in the strongest file that has it.
    pub(crate) fn value(&self, path: &[String]) -> Option<Spot> {
        match self.strongest(path)? {
            Found::File(document, at) => document.value(&at),
            Found::Variable(_) => None,
        }
    }

    /// Returns the variable of the process that set an option, or a key of the table that stands in no file.
    pub(crate) fn variable(&self, path: &[String]) -> Option<(&Path, &Variable)> {
        if path.is_empty() || matches!(self.strongest(path), Some(Found::File(..))) {
            return None;
        }
        self.layers.iter().rev().find_map(|layer| match layer {
            Layer::File { .. } => None,
            Layer::Variables(variables) => variables.iter().find(|(set, _)| set.starts_with(path)),
        })
    }

    /// Returns how a value was written that came from a variable: `${NAME}`, or the name of the one that set it.
    pub(crate) fn written(&self, path: &[String]) -> Option<String> {
        match self.origin(path) {
            Origin::Variable(name) => Some(name),
            Origin::Line { variables, .. } if !variables.is_empty() => Some(variables.join(" ")),
            Origin::Default | Origin::Line { .. } => None,
        }
    }

    /// Tells whether a variable could not be put into a value at or below this path.
    pub(crate) fn is_broken(&self, path: &[String]) -> bool {
        self.layers.iter().any(|layer| match layer {
            Layer::File { document, at, .. } => document.is_broken(&join(at, path)),
            Layer::Variables(_) => false,
        })
    }

    /// Returns where the value at `path` comes from: the line of the value itself, or of a whole that it is part of.
    pub(crate) fn origin(&self, path: &[String]) -> Origin {
        for length in (1..=path.len()).rev() {
            let (document, at) = match self.strongest(&path[..length]) {
                None => continue,
                Some(Found::Variable(variable)) => return Origin::Variable(variable.name.clone()),
                Some(Found::File(document, at)) => (document, at),
            };
            if length < path.len() && document.is_table(&at) {
                return Origin::Default;
            }
            let Some(spot) = document.value(&at) else { continue };
            let variables = document.variables(&at).unwrap_or_default().to_vec();
            return Origin::Line { spot, variables };
        }
        Origin::Default
    }

    /// Returns every single value of the table, with its path.
    pub(crate) fn singles(&self) -> Vec<(Path, &Value)> {
        let mut singles = Vec::new();
        for (key, value) in &self.root {
            collect_singles(value, vec![key.clone()], &mut singles);
        }
        singles
    }

    /// Returns the values that came from variables, or are held by one of `secrets`, with what is shown for them.
    pub(crate) fn hidden_values(&self, secrets: &[Pattern]) -> Vec<(&str, String)> {
        let texts = self.singles().into_iter().filter_map(|(path, value)| Some((path, value.as_str()?)));
        let hidden = texts.filter_map(|(path, text)| {
            let is_secret = secrets.iter().any(|secret| secret.holds(&path));
            let shown = if is_secret { Some(secret::HIDDEN.into()) } else { self.written(&path) };
            shown.map(|shown| (text, shown))
        });
        hidden.collect()
    }

    fn strongest(&self, path: &[String]) -> Option<Found<'a, '_>> {
        self.layers.iter().rev().find_map(|layer| match layer {
            Layer::File { document, at, .. } => {
                let path = join(at, path);
                document.value(&path).map(|_| Found::File(document, path))
            }
            Layer::Variables(variables) => variables.get(path).map(Found::Variable),
        })
    }
}

/// The strongest layer that has a value.
enum Found<'a, 'l> {
    File(&'a Document, Path),
    Variable(&'l Variable),
}

fn collect_singles<'v>(value: &'v Value, path: Path, singles: &mut Vec<(Path, &'v Value)>) {
    let child = |name: String| join(&path, &[name]);
    match value {
        Value::Dict(_, dict) => {
            dict.iter().for_each(|(key, value)| collect_singles(value, child(key.clone()), singles));
        }
        Value::Array(_, items) => {
            items.iter().enumerate().for_each(|(i, item)| collect_singles(item, child(i.to_string()), singles));
        }
        Value::String(..) | Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) => {
            singles.push((path, value));
        }
    }
}

/// Returns `message` with what is shown for hidden values.
pub(crate) fn without_values(message: String, hidden: &[(&str, String)]) -> String {
    hidden.iter().fold(message, |message, (value, shown)| replace_word(&message, value, shown))
}

/// Replaces `value` in `message`; a short one only where it stands as a word of its own.
fn replace_word(message: &str, value: &str, by: &str) -> String {
    if value.is_empty() {
        return message.to_owned();
    }
    let (mut replaced, mut rest) = (String::new(), message);
    while let Some(at) = rest.find(value) {
        let (before, after) = (&rest[..at], &rest[at + value.len()..]);
        let is_part = before.ends_with(char::is_alphanumeric) || after.starts_with(char::is_alphanumeric);
        replaced.push_str(before);
        replaced.push_str(if value.len() < 4 && is_part { value } else { by });
        rest = after;
    }
    replaced.push_str(rest);
    replaced
}

impl Provider for &Layer<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::default()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let dict = match self {
            Layer::File { dict, .. } => dict.clone(),
            Layer::Variables(variables) => {
                let mut dict = Dict::new();
                for (path, variable) in variables {
                    insert(&mut dict, path, variable.value.as_str().into());
                }
                dict
            }
        };
        Ok(Profile::Default.collect(dict))
    }
}

/// A table as it was read, without what was wrong with it.
pub(crate) struct Mended<T> {
    pub(crate) value: T,
    /// What was taken out, and the keys that were meant by misspelt ones.
    pub(crate) wrong: Vec<Path>,
    /// Whether its check found something.
    pub(crate) has_faults: bool,
}

impl<T> Mended<T> {
    /// Tells whether nothing was wrong.
    pub(crate) fn is_right(&self) -> bool {
        self.wrong.is_empty() && !self.has_faults
    }
}

/// A value that is read again and again, each time without what was found wrong.
struct Attempt {
    value: Value,
    /// What was taken out, by its path in the file.
    removed: BTreeSet<Path>,
    /// Keys that were meant by misspelt ones.
    meant: Vec<Path>,
}

impl Attempt {
    fn wrong(&self) -> Vec<Path> {
        self.removed.iter().chain(&self.meant).cloned().collect()
    }

    /// Returns the path in the file, where no element has been taken out of its array.
    fn original(&self, path: &[String]) -> Path {
        let mut original = Path::new();
        for part in path {
            let Ok(mut index) = part.parse::<usize>() else {
                original.push(part.clone());
                continue;
            };
            let mut earlier: Vec<usize> =
                self.removed.iter().filter_map(|removed| child_index(removed, &original)).collect();
            earlier.sort_unstable();
            index = earlier.into_iter().fold(index, |index, removed| index + usize::from(removed <= index));
            original.push(index.to_string());
        }
        original
    }

    /// Takes out what stands at `path`, or the table around it if that is not there.
    fn remove(&mut self, path: &[String], original: Path) -> bool {
        let Some((name, around)) = path.split_last() else { return false };
        let removed = edit(&mut self.value, around, |around| match around {
            Value::Dict(_, dict) => dict.remove(name).is_some(),
            Value::Array(_, items) => match name.parse() {
                Ok(index) if index < items.len() => {
                    items.remove(index);
                    true
                }
                _ => false,
            },
            Value::String(..) | Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) => false,
        });
        if removed {
            self.removed.insert(original);
            return true;
        }
        self.remove(around, original[..original.len() - 1].to_vec())
    }
}

/// Returns the index of an element of the array at `array`.
fn child_index(path: &[String], array: &[String]) -> Option<usize> {
    match path.strip_prefix(array)? {
        [index] => index.parse().ok(),
        _ => None,
    }
}

/// Reads a text as a number or a truth value, since only text can come from a variable.
fn coerce(value: &mut Value) -> bool {
    let number = value.to_num_lossy().map(|number| Value::Num(value.tag(), number));
    let read = number.or_else(|| value.to_bool_lossy().map(|truth| Value::Bool(value.tag(), truth)));
    read.map(|read| *value = read).is_some()
}

/// Returns the value at `path`.
fn lookup<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    let Some((name, rest)) = path.split_first() else { return Some(value) };
    let child = match value {
        Value::Dict(_, dict) => dict.get(name),
        Value::Array(_, items) => items.get(name.parse::<usize>().ok()?),
        Value::String(..) | Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) => None,
    };
    lookup(child?, rest)
}

/// Changes the value at `path`.
fn edit(value: &mut Value, path: &[String], change: impl FnOnce(&mut Value) -> bool) -> bool {
    let Some((name, rest)) = path.split_first() else { return change(value) };
    let child = match value {
        Value::Dict(_, dict) => dict.get_mut(name),
        Value::Array(_, items) => name.parse().ok().and_then(|at: usize| items.get_mut(at)),
        Value::String(..) | Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) => None,
    };
    child.is_some_and(|child| edit(child, rest, change))
}

fn insert(dict: &mut Dict, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => drop(dict.insert(name.clone(), value)),
        [name, rest @ ..] => {
            let child = dict.entry(name.clone()).or_insert_with(|| Dict::new().into());
            if let Value::Dict(_, child) = child {
                insert(child, rest, value);
            }
        }
    }
}

/// Returns the path `rest` below `at`.
pub(crate) fn join(at: &[String], rest: &[String]) -> Path {
    at.iter().chain(rest).cloned().collect()
}

/// Returns a path of these names.
pub(crate) fn path<const N: usize>(names: [&str; N]) -> Path {
    names.map(String::from).to_vec()
}
