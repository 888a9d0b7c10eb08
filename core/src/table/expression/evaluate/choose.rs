//! What takes one of several values, and asks the others only where they are needed.

use arrow_array::{Array, BooleanArray, cast::AsArray};
use arrow_buffer::BooleanBuffer;

use super::{
    super::{
        kernels::{compare, truth},
        node::Comparison,
    },
    Failure, Node, Rows, Value, evaluate, evaluate_masked,
};

/// `and` is decided by a false, `or` by a true: what stands behind it is not asked then.
pub(super) fn decide(parts: &[Node], deciding: bool, rows: &Rows<'_>) -> Result<Value, Failure> {
    let mut decided: Option<BooleanArray> = None;
    for part in parts {
        let Some(so_far) = &decided else {
            decided = Some(truths(&evaluate(part, rows)?, rows.rows));
            continue;
        };
        let open = !&truth::bits(so_far, deciding);
        if open.count_set_bits() == 0 {
            break;
        }
        let next = truths(&evaluate_masked(part, rows, &open)?, rows.rows);
        decided = Some(truth::combine(so_far, &next, deciding));
    }
    Ok(truth::value(decided.unwrap_or_else(|| BooleanArray::from(vec![!deciding; rows.rows]))))
}

pub(super) fn case(branches: &[(Node, Node)], otherwise: &Node, rows: &Rows<'_>) -> Result<Value, Failure> {
    let mut open = BooleanBuffer::new_set(rows.rows);
    let mut taken: Vec<(BooleanBuffer, Value)> = Vec::new();
    for (condition, value) in branches {
        if open.count_set_bits() == 0 {
            break;
        }
        let holds = truths(&evaluate_masked(condition, rows, &open)?, rows.rows);
        let hit = &truth::bits(&holds, true) & &open;
        if hit.count_set_bits() > 0 {
            taken.push((hit.clone(), evaluate_masked(value, rows, &hit)?));
        }
        open = &open & &!&hit;
    }
    let mut result = evaluate_masked(otherwise, rows, &open)?;
    for (hit, value) in taken.into_iter().rev() {
        result = zip(hit, &value, &result);
    }
    Ok(result)
}

pub(super) fn coalesce(parts: &[Node], rows: &Rows<'_>) -> Result<Value, Failure> {
    let mut parts = parts.iter();
    let Some(first) = parts.next() else { return Ok(Value::nulls(rows.rows, super::Kind::Null)) };
    let mut result = evaluate(first, rows)?.column(rows.rows);
    for part in parts {
        let Some(nulls) = result.nulls().filter(|nulls| nulls.null_count() > 0) else { break };
        let absent = !nulls.inner();
        let value = evaluate_masked(part, rows, &absent)?;
        result = zip(absent, &value, &Value::Column(result)).column(rows.rows);
    }
    Ok(Value::Column(result))
}

/// Returns the least or the greatest; those that are absent do not count.
pub(super) fn extreme(greatest: bool, values: Vec<Value>, rows: usize) -> Value {
    let op = if greatest { Comparison::Greater } else { Comparison::Less };
    let columns = values.into_iter().map(|value| value.column(rows));
    let best = columns.reduce(|best, next| {
        let (best, next) = (Value::Column(best), Value::Column(next));
        let is_better = truth::bits(&truths(&compare::compare(op, &next, &best), rows), true);
        let is_first = truth::bits(&truths(&truth::is_null(&best, false), rows), true);
        zip(&is_better | &is_first, &next, &best).column(rows)
    });
    best.map_or_else(|| Value::nulls(rows, super::Kind::Null), Value::Column)
}

fn zip(mask: BooleanBuffer, truthy: &Value, falsy: &Value) -> Value {
    let mask = BooleanArray::new(mask, None);
    Value::Column(arrow_select::zip::zip(&mask, truthy, falsy).expect("both have the type of the expression"))
}

fn truths(value: &Value, rows: usize) -> BooleanArray {
    let column = value.clone().column(rows);
    match column.as_boolean_opt() {
        Some(truths) => truths.clone(),
        // A NULL without a type.
        None => BooleanArray::new_null(rows),
    }
}
