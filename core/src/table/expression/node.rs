//! A typed expression.

use std::{collections::HashSet, sync::Arc};

use super::{
    functions::Function,
    kind::{Kind, Literal},
    planner::Scope,
};

/// An expression of which everything is known but its rows.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) kind: Kind,
    /// A text of labels and literals alone: it has few different values.
    pub(crate) is_label: bool,
    pub(crate) nullable: bool,
    /// Whether it may have no value for some row: what stands before it may keep it from being asked.
    pub(crate) can_fail: bool,
    /// The columns that it reads, ascending.
    pub(crate) columns: Arc<[usize]>,
    /// As it was written: for dead letters.
    pub(crate) text: Arc<str>,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Column(usize),
    Literal(Literal),
    Compare(Comparison, Box<[Node; 2]>),
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    Negate(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    /// `is null`, or `is not null`.
    IsNull {
        of: Box<Node>,
        negated: bool,
    },
    /// `is true`, `is not false`, …
    IsTruth {
        of: Box<Node>,
        truth: bool,
        negated: bool,
    },
    In {
        of: Box<Node>,
        set: Set,
    },
    /// With the pattern of [`crate::table::expression::kernels::texts::Pattern`].
    Like {
        of: Box<Node>,
        pattern: Arc<super::kernels::texts::Pattern>,
    },
    Case {
        branches: Vec<(Node, Node)>,
        otherwise: Box<Node>,
    },
    Coalesce(Vec<Node>),
    NullIf(Box<[Node; 2]>),
    Extreme {
        greatest: bool,
        of: Vec<Node>,
    },
    Cast(Box<Node>),
    Call(Function, Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// The literals of an `in`.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) values: Values,
    /// A `null` among them: what is not found is unknown then.
    pub(crate) has_null: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Values {
    Texts(Arc<HashSet<Box<str>>>),
    I64(Arc<HashSet<i64>>),
    U64(Arc<HashSet<u64>>),
}

impl Node {
    pub(crate) fn literal(literal: Literal, text: &str) -> Self {
        Self {
            kind: literal.kind(),
            is_label: true,
            nullable: literal == Literal::Null,
            can_fail: false,
            columns: [].into(),
            text: text.into(),
            op: Op::Literal(literal),
        }
    }

    /// Returns a node over others: it reads what they read, may fail if one of them may, is NULL if one of them is.
    pub(crate) fn over(op: Op, kind: Kind, text: &str) -> Self {
        let parts = op.parts();
        let mut columns: Vec<usize> = parts.iter().flat_map(|part| part.columns.iter().copied()).collect();
        columns.sort_unstable();
        columns.dedup();
        let texts = || parts.iter().filter(|part| part.kind == Kind::Text);
        let is_label = kind == Kind::Text && texts().all(|part| part.is_label) && texts().next().is_some();
        let nullable = parts.iter().any(|part| part.nullable);
        let can_fail = parts.iter().any(|part| part.can_fail);
        Self { is_label, nullable, can_fail, columns: columns.into(), text: text.into(), kind, op }
    }

    #[must_use]
    pub(crate) fn failing(mut self) -> Self {
        self.can_fail = true;
        self
    }

    #[must_use]
    pub(crate) fn with_nulls(mut self, nullable: bool) -> Self {
        self.nullable = nullable;
        self
    }

    /// Returns the literal that it is.
    pub(crate) fn as_literal(&self) -> Option<&Literal> {
        if let Op::Literal(literal) = &self.op { Some(literal) } else { None }
    }

    /// Returns its column, where it is nothing else.
    pub(crate) fn as_column(&self) -> Option<usize> {
        if let Op::Column(column) = self.op { Some(column) } else { None }
    }

    pub(crate) fn column_name(&self, scope: &Scope<'_>) -> Option<String> {
        self.as_column().map(|column| scope.fields[column].name.clone())
    }

    /// Says what it is, for people: `` `price`, which is f64 ``.
    pub(crate) fn described(&self) -> String {
        format!("`{}`, which is {}", self.text, self.kind)
    }
}

impl Op {
    /// Returns what it is made of.
    pub(crate) fn parts(&self) -> Vec<&Node> {
        match self {
            Self::Column(_) | Self::Literal(_) => Vec::new(),
            Self::Compare(_, parts) | Self::Arithmetic(_, parts) | Self::NullIf(parts) => parts.iter().collect(),
            Self::Negate(of)
            | Self::Not(of)
            | Self::IsNull { of, .. }
            | Self::IsTruth { of, .. }
            | Self::In { of, .. }
            | Self::Like { of, .. }
            | Self::Cast(of) => vec![of],
            Self::And(parts)
            | Self::Or(parts)
            | Self::Coalesce(parts)
            | Self::Call(_, parts)
            | Self::Extreme { of: parts, .. } => parts.iter().collect(),
            Self::Case { branches, otherwise } => {
                let branches = branches.iter().flat_map(|(condition, value)| [condition, value]);
                branches.chain([&**otherwise]).collect()
            }
        }
    }
}
