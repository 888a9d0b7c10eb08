//! The values of rows, beyond what tells rows apart: a number for each, which a store's side and the spool's come to alike.

use std::hash::{BuildHasher, Hasher};

use arrow_array::RecordBatch;
use foldhash::fast::{FixedState, FoldHasher};
use serde::Deserialize;

use super::audit::RowId;
use crate::{
    chunk::{ColumnView, integers, levels},
    row::Level,
};

/// The values of a row's columns, each as one number that other values most likely do not have.
///
/// A store's [`Audit`](super::Audit) fills it in the order of the columns that it was asked for, from what it reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values(Vec<u64>);

impl Values {
    /// Begins another row.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds NULL.
    pub fn absent(&mut self) {
        self.add(0, |_| {});
    }

    /// Adds an integer, or a truth as 0 or 1, or a time in whole units of the store's.
    pub fn integer(&mut self, value: Option<i128>) {
        let Some(value) = value else { return self.absent() };
        self.add(1, |hasher| hasher.write_i128(value));
    }

    /// Adds a number. No store tells 0 from -0, nor one NaN from another.
    pub fn number(&mut self, value: Option<f64>) {
        let Some(value) = value else { return self.absent() };
        self.add(2, |hasher| hasher.write_u64(bits(value)));
    }

    /// Adds a text.
    pub fn text(&mut self, value: Option<&str>) {
        let Some(value) = value else { return self.absent() };
        self.add(3, |hasher| hasher.write(value.as_bytes()));
    }

    /// Adds price levels.
    pub fn levels(&mut self, levels: impl IntoIterator<Item = Level>) {
        self.list(4, levels, |hasher, level| {
            hasher.write_u64(bits(level.price));
            hasher.write_u64(bits(level.size));
        });
    }

    /// Adds a list of integers.
    pub fn integers(&mut self, values: impl IntoIterator<Item = i64>) {
        self.list(5, values, |hasher, value| hasher.write_i64(value));
    }

    /// Adds price levels or a list of integers that a store keeps, or gives back, as JSON.
    pub fn json(&mut self, text: Option<&str>) {
        let Some(text) = text else { return self.absent() };
        if let Ok(pairs) = serde_json::from_str::<Vec<(Number, Number)>>(text) {
            return self
                .levels(pairs.into_iter().map(|(price, size)| Level { price: price.value(), size: size.value() }));
        }
        match serde_json::from_str::<Vec<i64>>(text) {
            Ok(values) => self.integers(values),
            Err(_) => self.unreadable(),
        }
    }

    /// Adds what no row of the spool has.
    pub fn unreadable(&mut self) {
        self.add(7, |_| {});
    }

    /// Returns one number for a row and all its values.
    pub(super) fn of_row(&self, row: &RowId) -> u64 {
        let mut hasher = FixedState::default().build_hasher();
        for time in [row.ts_event, row.ts_recv] {
            hasher.write_i64(time.0);
        }
        hasher.write_u128(row.seq.map_or(u128::MAX, u128::from));
        self.0.iter().for_each(|value| hasher.write_u64(*value));
        hasher.finish()
    }

    /// Returns at which places two rows have other values.
    pub(crate) fn differing(&self, other: &Self) -> Vec<usize> {
        (0..self.0.len().max(other.0.len())).filter(|at| self.0.get(*at) != other.0.get(*at)).collect()
    }

    /// Adds a list. Of one without an item nobody sees what its items would be.
    fn list<T>(&mut self, kind: u8, items: impl IntoIterator<Item = T>, write: impl Fn(&mut FoldHasher<'_>, T)) {
        let mut items = items.into_iter().peekable();
        let kind = if items.peek().is_some() { kind } else { 6 };
        self.add(kind, |hasher| items.for_each(|item| write(hasher, item)));
    }

    fn add(&mut self, kind: u8, write: impl FnOnce(&mut FoldHasher<'_>)) {
        let state = FixedState::default();
        let mut hasher = state.build_hasher();
        hasher.write_u8(kind);
        write(&mut hasher);
        self.0.push(hasher.finish());
    }
}

/// The values of rows as the spool has them, for a store whose times are `unit` nanoseconds apart.
pub(crate) struct Printer<'a> {
    columns: Vec<ColumnView<'a>>,
    unit: i64,
}

impl<'a> Printer<'a> {
    /// Shows some of the columns of a batch.
    pub(crate) fn new(rows: &'a RecordBatch, columns: &[usize], unit: i64) -> Self {
        Self { columns: columns.iter().map(|at| ColumnView::of(rows.column(*at))).collect(), unit }
    }

    pub(crate) fn values(&self, row: usize) -> Values {
        let mut values = Values(Vec::with_capacity(self.columns.len()));
        for column in &self.columns {
            match column {
                _ if column.is_null(row) => values.absent(),
                ColumnView::Bool(column) => values.integer(Some(column.value(row).into())),
                ColumnView::I64(column) => values.integer(Some(column.value(row).into())),
                ColumnView::U64(column) => values.integer(Some(column.value(row).into())),
                ColumnView::F64(column) => values.number(Some(column.value(row))),
                ColumnView::Text(column) => values.text(Some(column.value(row))),
                ColumnView::Label(keys, texts) => values.text(Some(texts.value(keys.value(row) as usize))),
                ColumnView::Time(column) => values.integer(Some(column.value(row).div_euclid(self.unit).into())),
                ColumnView::Levels(column) => values.levels(levels(column, row)),
                ColumnView::ListI64(column) => values.integers(integers(column, row)),
            }
        }
        values
    }
}

/// A number in JSON, which has no word for those that are none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(f64),
    Text(String),
}

impl Number {
    fn value(&self) -> f64 {
        match self {
            Self::Number(value) => *value,
            Self::Text(text) => text.parse().unwrap_or(f64::NAN),
        }
    }
}

fn bits(value: f64) -> u64 {
    if value == 0.0 {
        0
    } else if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        value.to_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Timestamp;

    #[test]
    fn what_a_store_gives_back_in_its_own_form_is_the_same_value_and_another_one_is_not() {
        let of = |add: &dyn Fn(&mut Values)| {
            let mut values = Values::default();
            add(&mut values);
            values
        };
        let pair = |price, size| vec![Level { price, size }];
        for (one, same, other) in [
            (of(&|v| v.number(Some(0.0))), of(&|v| v.number(Some(-0.0))), of(&|v| v.number(Some(5e-324)))),
            (
                of(&|v| v.levels(pair(1.5, 2.0))),
                of(&|v| v.json(Some("[[1.50, 2]]"))),
                of(&|v| v.json(Some("[[2, 1.5]]"))),
            ),
            (
                of(&|v| v.levels(pair(f64::INFINITY, 1.0))),
                of(&|v| v.json(Some(r#"[["inf",1]]"#))),
                of(&|v| v.json(Some("[[1,1]]"))),
            ),
            (of(&|v| v.levels([])), of(&|v| v.json(Some("[]"))), of(&Values::absent)),
            (of(&|v| v.integers([1, -2])), of(&|v| v.json(Some("[1,-2]"))), of(&|v| v.json(Some("[1]")))),
            (of(&|v| v.integer(Some(1))), of(&|v| v.integer(Some(true.into()))), of(&|v| v.number(Some(1.0)))),
            (of(&|v| v.text(Some(""))), of(&|v| v.text(Some(""))), of(&Values::absent)),
        ] {
            assert_eq!(one.differing(&same), [0_usize; 0]);
            assert_eq!(one.differing(&other), [0]);
        }
    }

    #[test]
    fn values_that_changed_places_between_two_rows_are_another_sum() {
        let row = |seq| RowId { seq: Some(seq), ts_event: Timestamp(1), ts_recv: Timestamp(2) };
        let of = |text: &str| {
            let mut values = Values::default();
            values.text(Some(text));
            values
        };
        let sum = |one: &str, other: &str| of(one).of_row(&row(1)).wrapping_add(of(other).of_row(&row(2)));
        assert_ne!(sum("a", "b"), sum("b", "a"));
        assert_eq!(sum("a", "b"), sum("a", "b"));
    }
}
