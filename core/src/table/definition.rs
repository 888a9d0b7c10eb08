//! What the user wrote of a derived table, before its columns are known.

use std::{fmt, sync::Arc};

use super::expression::{Condition, Selection};

/// A derived table, as `[table.NAME]` defines it.
#[derive(Debug, Clone)]
pub struct Definition {
    pub(crate) name: Arc<str>,
    pub(crate) from: Arc<str>,
    pub(crate) condition: Option<Condition>,
    pub(crate) selection: Option<Selection>,
}

/// The part of a definition that something is wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Where,
    Select,
}

/// The derived tables of a pipeline: no two of one name, none `from` itself by way of others.
#[derive(Debug, Clone, Default)]
pub struct Derived(Arc<[Definition]>);

impl Definition {
    /// Returns a definition of these texts; an empty one is none.
    ///
    /// # Panics
    ///
    /// If one of them is no expression.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn of(name: &str, from: &str, condition: &str, selection: &str) -> Self {
        let source = |text: &str| (!text.is_empty()).then(|| super::expression::Source::new(text, &[]));
        Self {
            name: name.into(),
            from: from.into(),
            condition: source(condition).map(|source| Condition::read(source).expect("an expression")),
            selection: source(selection).map(|source| Selection::read(source).expect("expressions")),
        }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the table that its rows are made of: a source's, the pipeline's own, or another derived one.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// Returns the number of its row among those that one offset of the spool makes: the same for as long as the table has its
    /// name, since dead letters are told apart by it. A source's own row has 0.
    pub(crate) fn sub(&self) -> u32 {
        // FNV-1a. One bit less, for stores that have signed integers only.
        let hash =
            self.name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        (hash & 0x7fff_ffff).max(1)
    }

    /// Returns all of it as one text, with the values of variables: what a change of it is told by.
    pub(crate) fn described(&self) -> [String; 4] {
        let condition = self.condition.as_ref().map(Condition::text).unwrap_or_default();
        let selection = self.selection.as_ref().map(Selection::text).unwrap_or_default();
        [self.name.to_string(), self.from.to_string(), condition, selection]
    }
}

impl Derived {
    /// Returns these tables; whoever made them has seen to it that they end at a table of a source.
    pub(crate) fn new(definitions: Vec<Definition>) -> Self {
        Self(definitions.into())
    }

    /// Returns all definitions.
    pub fn definitions(&self) -> &[Definition] {
        &self.0
    }

    /// Returns the definition of a table.
    pub fn find(&self, name: &str) -> Option<&Definition> {
        self.0.iter().find(|definition| *definition.name == *name)
    }

    /// Tells whether there is a table of this name.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Returns the tables on the way to one, the nearest to the source first.
    pub(crate) fn way(&self, name: &str) -> Vec<&Definition> {
        let mut way: Vec<&Definition> = Vec::new();
        let mut next = self.find(name);
        while let Some(definition) = next.filter(|_| way.len() <= self.0.len()) {
            way.push(definition);
            next = self.find(&definition.from);
        }
        way.reverse();
        way
    }

    /// Returns the table of a source, or of the pipeline's own, that one is made of in the end.
    pub(crate) fn root(&self, name: &str) -> Option<Arc<str>> {
        self.way(name).first().map(|first| first.from.clone())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Where => "where",
            Self::Select => "select",
        })
    }
}
