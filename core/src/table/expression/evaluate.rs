//! Typed nodes over columns → a column.
//!
//! A part that may fail is only asked for the rows that need it: what `and`, `or`, `case` and `coalesce` decide without it
//! keeps it from being asked. So `size <> 0 and price / size > 5` has a value for every row, in a chunk of any length.

mod choose;
mod labels;

use std::sync::Arc;

pub(crate) use labels::as_labels;

use arrow_array::{Array, ArrayRef, BooleanArray, Datum, cast::AsArray, new_null_array};
use arrow_buffer::BooleanBuffer;

use super::{
    kernels::{Why, casts, compare, numbers, sets, texts, truth},
    kind::{Kind, Literal},
    node::{Node, Op},
};

/// Columns of rows that an expression is evaluated for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) columns: &'a [ArrayRef],
    pub(crate) rows: usize,
}

/// Some row has no value: which one, evaluating them one by one tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The part of the expression.
    pub(crate) text: Arc<str>,
    pub(crate) why: Why,
}

/// A column, or one value for all rows.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Column(ArrayRef),
    /// A column of one row.
    Constant(ArrayRef),
}

impl Datum for Value {
    fn get(&self) -> (&dyn Array, bool) {
        match self {
            Self::Column(array) => (&**array, false),
            Self::Constant(array) => (&**array, true),
        }
    }
}

impl Value {
    /// Returns a column of this many rows.
    pub(crate) fn column(self, rows: usize) -> ArrayRef {
        match self {
            Self::Column(array) => array,
            Self::Constant(array) if rows == 1 => array,
            Self::Constant(array) => {
                let zeros = arrow_array::UInt32Array::from(vec![0; rows]);
                taken(&array, &zeros)
            }
        }
    }

    /// Returns the value of a row.
    pub(crate) fn literal(&self, row: usize) -> Literal {
        let (array, row) = match self {
            Self::Column(array) => (array, row),
            Self::Constant(array) => (array, 0),
        };
        literal_of(array, row)
    }

    fn nulls(rows: usize, kind: Kind) -> Self {
        Self::Column(new_null_array(&kind.arrow(), rows))
    }
}

/// Evaluates a node for all rows.
///
/// # Errors
///
/// That a row has no value: then the others have to be evaluated without it.
pub(crate) fn evaluate(node: &Node, rows: &Rows<'_>) -> Result<Value, Failure> {
    if let Some(value) = labels::by_dictionary(node, rows) {
        return Ok(value);
    }
    let failed = |why| Failure { text: node.text.clone(), why };
    let one = |part: &Node| evaluate(part, rows);
    match &node.op {
        Op::Column(column) => Ok(Value::Column(labels::spelt_out(&rows.columns[*column]))),
        Op::Literal(literal) => Ok(Value::Constant(literal.array(node.kind))),
        Op::Compare(op, parts) => Ok(compare::compare(*op, &one(&parts[0])?, &one(&parts[1])?)),
        Op::Arithmetic(op, parts) => numbers::arithmetic(*op, &one(&parts[0])?, &one(&parts[1])?).map_err(failed),
        Op::Negate(of) => numbers::negate(&one(of)?).map_err(failed),
        Op::And(parts) => choose::decide(parts, false, rows),
        Op::Or(parts) => choose::decide(parts, true, rows),
        Op::Not(of) => Ok(truth::not(&one(of)?)),
        Op::IsNull { of, negated } => {
            // A list or a label needs no look at its values.
            let value = match of.as_column() {
                Some(column) => Value::Column(rows.columns[column].clone()),
                None => one(of)?,
            };
            Ok(truth::is_null(&value, *negated))
        }
        Op::IsTruth { of, truth, negated } => Ok(truth::is(&one(of)?, *truth, *negated)),
        Op::In { of, set } => Ok(sets::contains(&one(of)?, set)),
        Op::Like { of, pattern } => Ok(pattern.matches(&one(of)?)),
        Op::Case { branches, otherwise } => choose::case(branches, otherwise, rows),
        Op::Coalesce(parts) => choose::coalesce(parts, rows),
        Op::NullIf(parts) => {
            let (value, other) = (one(&parts[0])?, one(&parts[1])?);
            let equal = compare::compare(super::node::Comparison::Equal, &value, &other).column(rows.rows);
            Ok(truth::without(&value.column(rows.rows), equal.as_boolean()))
        }
        Op::Extreme { greatest, of } => {
            let values = of.iter().map(one).collect::<Result<Vec<_>, _>>()?;
            Ok(choose::extreme(*greatest, values, rows.rows))
        }
        Op::Cast(of) => casts::cast(&one(of)?, of.kind, node.kind).map_err(failed),
        Op::Call(function, arguments) => {
            let values = arguments.iter().map(one).collect::<Result<Vec<_>, _>>()?;
            texts::call(*function, &values, rows.rows).map_err(failed)
        }
    }
}

/// Evaluates a node for the rows of a mask; the others are NULL.
fn evaluate_masked(node: &Node, rows: &Rows<'_>, mask: &BooleanBuffer) -> Result<Value, Failure> {
    let count = mask.count_set_bits();
    if count == rows.rows || !node.can_fail {
        return evaluate(node, rows);
    }
    if count == 0 {
        return Ok(Value::nulls(rows.rows, node.kind));
    }
    let predicate = BooleanArray::new(mask.clone(), None);
    let mut columns = rows.columns.to_vec();
    for &column in &*node.columns {
        columns[column] = kept(&columns[column], &predicate);
    }
    match evaluate(node, &Rows { columns: &columns, rows: count })? {
        Value::Constant(value) => Ok(Value::Constant(value)),
        Value::Column(values) => {
            let mut next = 0;
            let places = mask.iter().map(|is_set| {
                is_set.then(|| {
                    next += 1;
                    next - 1
                })
            });
            let places: arrow_array::UInt32Array = places.collect();
            Ok(Value::Column(taken(&values, &places)))
        }
    }
}

/// Returns the rows of a column at these places.
pub(super) fn taken(values: &ArrayRef, places: &dyn Array) -> ArrayRef {
    arrow_select::take::take(values, places, None).expect("the places are rows of the column, or NULL")
}

/// Returns the rows that a predicate lets through.
pub(super) fn kept(values: &ArrayRef, predicate: &BooleanArray) -> ArrayRef {
    arrow_select::filter::filter(values, predicate).expect("predicate and column have the same rows")
}

fn literal_of(array: &ArrayRef, row: usize) -> Literal {
    use crate::chunk::ColumnView;

    if *array.data_type() == arrow_schema::DataType::Null || array.is_null(row) {
        return Literal::Null;
    }
    match ColumnView::of(array) {
        ColumnView::Bool(values) => Literal::Bool(values.value(row)),
        ColumnView::I64(values) => Literal::I64(values.value(row)),
        ColumnView::U64(values) => Literal::U64(values.value(row)),
        ColumnView::F64(values) => Literal::F64(values.value(row)),
        ColumnView::Text(values) => Literal::Text(values.value(row).into()),
        ColumnView::Label(keys, values) => Literal::Text(values.value(keys.value(row) as usize).into()),
        ColumnView::Time(values) => Literal::Time(values.value(row)),
        // No expression has these but a column, and a column is no literal.
        ColumnView::Levels(_) | ColumnView::ListI64(_) => Literal::Null,
    }
}
