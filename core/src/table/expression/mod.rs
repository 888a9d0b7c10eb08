//! The language of `where` and `select`: small, closed, typed before the first row, without clock and chance.
//!
//! ```text
//! text ──source──→ tokens ──syntax──→ tree ──planner──→ Node: typed ──evaluate──→ columns
//!        ${NAME} is one literal        everything else is refused by name, each with its place
//! ```
//!
//! A row for which an expression has no value (division by zero, overflow, a cast that fails) is told apart from its
//! neighbours: what a row becomes never depends on which others are in its chunk.

mod evaluate;
mod functions;
mod kernels;
mod kind;
mod node;
mod planner;
mod source;
mod syntax;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use functions::{FUNCTIONS, FunctionInfo};

pub(crate) use evaluate::{Failure, Rows, as_labels, evaluate};
pub(crate) use kind::Kind;
pub(crate) use node::Node;
pub(crate) use planner::{Field, OPERATORS, Scope};
pub(crate) use source::Source;
pub(crate) use syntax::{Condition, Item, Selection};

/// What is wrong with an expression, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Bytes of the text.
    pub(crate) span: Range<usize>,
    pub(crate) title: String,
    pub(crate) label: String,
    pub(crate) help: Option<String>,
    /// A name that is not there, and those that are.
    pub(crate) unknown: Option<(String, Vec<String>)>,
}

impl Mistake {
    pub(crate) fn new(span: Range<usize>, title: impl Into<String>) -> Self {
        Self { span, title: title.into(), label: String::new(), help: None, unknown: None }
    }

    #[must_use]
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub(crate) fn among(mut self, written: &str, known: impl IntoIterator<Item = String>) -> Self {
        self.unknown = Some((written.to_owned(), known.into_iter().collect()));
        self
    }
}

/// What comes of reading a part of an expression.
pub(crate) type Planned<T> = Result<T, Box<Mistake>>;
