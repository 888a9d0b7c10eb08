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
    problem::Spot,
    report::Report,
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
    File {
        document: &'a Document,
        at: Path,
        dict: Dict,
    },
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
const MOST_ROUNDS: usize = 1_000;

impl<'a> Layers<'a> {
    /// Merges the layers, the weakest first.
    pub(crate) fn merge(layers: Vec<Layer<'a>>) -> Self {
        let figment = layers.iter().fold(Figment::new(), Figment::merge);
        let root = figment.extract().expect("any dictionary is a dictionary");
        Self { layers, root }
    }

    /// Reads `table`, a part of these layers. Reports every mistake in it.
    pub(crate) fn read<T: DeserializeOwned>(&self, table: Dict, keys: &Keys<'_>, report: &mut Report) -> Option<T> {
        let mut attempt = Attempt { value: table.into(), removed: BTreeSet::new(), failed: false, meant: Vec::new() };
        for _ in 0..MOST_ROUNDS {
            let error = match T::deserialize(&attempt.value) {
                Ok(read) => return (!attempt.failed).then_some(read),
                Err(error) => error,
            };
            if !self.mend(&mut attempt, error, keys, report) {
                return None;
            }
        }
        None
    }

    /// Reports what is wrong and takes it out, so that the next mistake can be found.
    fn mend(
        &self,
        attempt: &mut Attempt,
        mut error: figment::Error,
        keys: &Keys<'_>,
        report: &mut Report,
    ) -> bool {
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
        attempt.failed = true;
        if !self.is_said(attempt, &error.kind, &path) {
            let problem = explain::explain(self, &error.kind, &path, keys);
            attempt.meant.extend(problem.instead.clone());
            report.add(problem);
        }
        attempt.remove(&error.path, path)
    }

    /// Tells whether the mistake follows from one that was reported.
    fn is_said(&self, attempt: &Attempt, kind: &Kind, path: &[String]) -> bool {
        let Kind::MissingField(field) = kind else { return self.is_broken(path) };
        let missing: Path = path.iter().cloned().chain([field.to_string()]).collect();
        attempt.removed.contains(&missing) || attempt.meant.iter().any(|meant| meant == field) || self.is_broken(&missing)
    }

    /// Returns the place of a key in the strongest file that has it.
    pub(crate) fn key(&self, path: &[String]) -> Option<Spot> {
        self.find(path, Document::key)
    }

    /// Returns the place of a value in the strongest file that has it.
    pub(crate) fn value(&self, path: &[String]) -> Option<Spot> {
        self.find(path, Document::value)
    }

    fn find(&self, path: &[String], place: fn(&Document, &[String]) -> Option<Spot>) -> Option<Spot> {
        if self.variable(path).is_some() {
            return None;
        }
        self.layers.iter().rev().find_map(|layer| match layer {
            Layer::File { document, at, .. } => place(document, &join(at, path)),
            Layer::Variables(_) => None,
        })
    }

    /// Returns the variable of the process that set an option.
    pub(crate) fn variable(&self, path: &[String]) -> Option<&Variable> {
        self.layers.iter().find_map(|layer| match layer {
            Layer::File { .. } => None,
            Layer::Variables(variables) => variables.get(path),
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
        self.strongest(path).is_some_and(|(document, path)| document.is_broken(&path))
    }

    /// Returns where the value at `path` comes from: the line of the value itself, or of a whole that it is part of.
    pub(crate) fn origin(&self, path: &[String]) -> Origin {
        if let Some(variable) = self.variable(path) {
            return Origin::Variable(variable.name.clone());
        }
        for length in (1..=path.len()).rev() {
            let Some((document, at)) = self.strongest(&path[..length]) else { continue };
            if length < path.len() && document.is_table(&at) {
                return Origin::Default;
            }
            let Some(spot) = document.value(&at) else { continue };
            let variables = document.variables(&at).unwrap_or_default().to_vec();
            return Origin::Line { spot, variables };
        }
        Origin::Default
    }

    fn strongest(&self, path: &[String]) -> Option<(&'a Document, Path)> {
        self.layers.iter().rev().find_map(|layer| match layer {
            Layer::File { document, at, .. } => {
                let path = join(at, path);
                document.value(&path).map(|_| (*document, path))
            }
            Layer::Variables(_) => None,
        })
    }
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

/// A value that is read again and again, each time without what was found wrong.
struct Attempt {
    value: Value,
    /// What was taken out, by its path in the file.
    removed: BTreeSet<Path>,
    failed: bool,
    /// Keys that were meant by misspelt ones.
    meant: Vec<String>,
}

impl Attempt {
    /// Returns the path in the file, where no element has been taken out of its array.
    fn original(&self, path: &[String]) -> Path {
        let mut original = Path::new();
        for part in path {
            let Ok(mut index) = part.parse::<usize>() else {
                original.push(part.clone());
                continue;
            };
            let mut earlier: Vec<usize> = self.removed.iter().filter_map(|removed| child_index(removed, &original)).collect();
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

