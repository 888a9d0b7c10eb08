//! What the language says, value by value.

mod language;
mod oracle;
mod random;

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, StringArray, TimestampNanosecondArray,
    UInt64Array, types::Int32Type,
};

use super::{
    Condition, Kind, Mistake, Node, Rows, Scope, Selection, Source,
    evaluate::{Failure, evaluate},
    kind::Literal,
    planner::Field,
};

/// Rows of every type, and the names of their columns.
pub(in crate::table) struct Sheet {
    pub(in crate::table) fields: Vec<Field>,
    pub(in crate::table) columns: Vec<ArrayRef>,
    pub(in crate::table) rows: usize,
}

/// One row of it.
#[derive(Debug, Clone, Default)]
pub(in crate::table) struct Line {
    pub(in crate::table) b: Option<bool>,
    pub(in crate::table) i: Option<i64>,
    pub(in crate::table) j: i64,
    pub(in crate::table) u: Option<u64>,
    pub(in crate::table) f: Option<f64>,
    pub(in crate::table) g: f64,
    pub(in crate::table) t: Option<&'static str>,
    pub(in crate::table) l: Option<&'static str>,
    pub(in crate::table) m: &'static str,
    pub(in crate::table) at: i64,
}

impl Sheet {
    pub(in crate::table) fn of(lines: &[Line]) -> Self {
        let field = |name: &str, kind, is_label, nullable| Field { name: name.into(), kind, is_label, nullable };
        let fields = vec![
            field("b", Kind::Bool, false, true),
            field("i", Kind::I64, false, true),
            field("j", Kind::I64, false, false),
            field("u", Kind::U64, false, true),
            field("f", Kind::F64, false, true),
            field("g", Kind::F64, false, false),
            field("t", Kind::Text, false, true),
            field("l", Kind::Text, true, true),
            field("m", Kind::Text, true, false),
            field("at", Kind::Time, false, false),
        ];
        let labels = |labels: Vec<Option<&str>>| -> ArrayRef {
            Arc::new(labels.into_iter().collect::<DictionaryArray<Int32Type>>())
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(lines.iter().map(|line| line.b).collect::<BooleanArray>()),
            Arc::new(lines.iter().map(|line| line.i).collect::<Int64Array>()),
            Arc::new(Int64Array::from_iter_values(lines.iter().map(|line| line.j))),
            Arc::new(lines.iter().map(|line| line.u).collect::<UInt64Array>()),
            Arc::new(lines.iter().map(|line| line.f).collect::<Float64Array>()),
            Arc::new(Float64Array::from_iter_values(lines.iter().map(|line| line.g))),
            Arc::new(lines.iter().map(|line| line.t).collect::<StringArray>()),
            labels(lines.iter().map(|line| line.l).collect()),
            labels(lines.iter().map(|line| Some(line.m)).collect()),
            Arc::new(TimestampNanosecondArray::from_iter_values(lines.iter().map(|line| line.at)).with_timezone("UTC")),
        ];
        Self { fields, columns, rows: lines.len() }
    }

    pub(in crate::table) fn plan(&self, text: &str) -> Result<Node, Vec<Mistake>> {
        let scope = Scope { table: "sheet", fields: &self.fields };
        let source = Source::new(&format!("{text} as it"), &[]);
        let selection = Selection::read(source).map_err(|mistake| vec![*mistake])?;
        selection.plan(&scope).map(|items| items[0].node.clone())
    }

    pub(in crate::table) fn evaluate(&self, node: &Node) -> Result<Vec<Literal>, Failure> {
        let value = evaluate(node, &Rows { columns: &self.columns, rows: self.rows })?;
        Ok((0..self.rows).map(|row| value.literal(row)).collect())
    }

    /// Returns one row as a sheet.
    pub(in crate::table) fn row(&self, row: usize) -> Self {
        let columns = self.columns.iter().map(|column| column.slice(row, 1)).collect();
        Self { fields: self.fields.clone(), columns, rows: 1 }
    }
}
