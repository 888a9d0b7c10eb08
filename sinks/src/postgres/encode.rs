//! Values → Postgres's binary form, straight from the columns of a chunk.

use arrow_array::RecordBatch;
use tidegate_core::chunk::{ColumnView, integers, levels, write_value};

use super::{decimal::Decimal, types::Form};

/// The columns of one batch.
pub(super) struct Rows<'a> {
    columns: Vec<ColumnView<'a>>,
    count: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Self {
        Self { columns: batch.columns().iter().map(ColumnView::of).collect(), count: batch.num_rows() }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn columns(&self) -> &[ColumnView<'a>] {
        &self.columns
    }
}

/// Appends a value with its length in front, or that there is none: the same in a row of `COPY` and in an array. The value was
/// found to fit.
#[inline]
pub(super) fn write_field(view: &ColumnView<'_>, form: Form, row: usize, out: &mut Vec<u8>) {
    if view.is_null(row) {
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        return;
    }
    match (view, form) {
        (ColumnView::F64(column), Form::Float8) => fixed(&column.value(row).to_be_bytes(), out),
        (ColumnView::I64(column), Form::Int8) => fixed(&column.value(row).to_be_bytes(), out),
        (ColumnView::Time(column), Form::Int8) => fixed(&column.value(row).to_be_bytes(), out),
        (ColumnView::Time(column), Form::Timestamp) => fixed(&microseconds(column.value(row)).to_be_bytes(), out),
        (ColumnView::Bool(column), Form::Bool) => fixed(&[u8::from(column.value(row))], out),
        (ColumnView::Text(column), _) => fixed(column.value(row).as_bytes(), out),
        (ColumnView::Label(keys, texts), _) => fixed(texts.value(keys.value(row) as usize).as_bytes(), out),
        (ColumnView::F64(column), Form::Float4) => fixed(&(column.value(row) as f32).to_be_bytes(), out),
        (ColumnView::F64(column), _) => sized(out, |out| Decimal::of(column.value(row)).write(out)),
        (ColumnView::I64(column), _) => whole(i128::from(column.value(row)), form, out),
        (ColumnView::U64(column), _) => whole(i128::from(column.value(row)), form, out),
        (ColumnView::Levels(column), Form::Floats) => sized(out, |out| {
            let all: Vec<_> = levels(column, row).collect();
            array_head(&[all.len(), 2], FLOAT8, out);
            for level in all {
                fixed(&level.price.to_be_bytes(), out);
                fixed(&level.size.to_be_bytes(), out);
            }
        }),
        (ColumnView::ListI64(column), Form::Integers) => sized(out, |out| {
            let all = integers(column, row);
            array_head(&[all.len()], INT8, out);
            all.iter().for_each(|number| fixed(&number.to_be_bytes(), out));
        }),
        (ColumnView::Levels(_) | ColumnView::ListI64(_), Form::Jsonb) => sized(out, |out| {
            out.push(1); // the version
            write_value(view, row, out);
        }),
        (ColumnView::Levels(_) | ColumnView::ListI64(_), _) => sized(out, |out| write_value(view, row, out)),
        (ColumnView::Bool(_) | ColumnView::Time(_), _) => unreachable!("no such column was found to fit"),
    }
}

/// Appends a value as an element of an array that `unnest` takes apart: lists as texts.
pub(super) fn write_element(view: &ColumnView<'_>, form: Form, row: usize, out: &mut Vec<u8>) {
    if view.is_null(row) || !matches!(form, Form::Floats | Form::Integers | Form::Jsonb | Form::Json) {
        return write_field(view, form, row, out);
    }
    sized(out, |out| match (view, form) {
        (ColumnView::Levels(column), Form::Floats) => {
            out.push(b'{');
            for (n, level) in levels(column, row).enumerate() {
                let comma = if n > 0 { "," } else { "" };
                out.extend_from_slice(format!("{comma}{{{},{}}}", float(level.price), float(level.size)).as_bytes());
            }
            out.push(b'}');
        }
        (ColumnView::ListI64(column), Form::Integers) => {
            let numbers: Vec<String> = integers(column, row).iter().map(ToString::to_string).collect();
            out.extend_from_slice(format!("{{{}}}", numbers.join(",")).as_bytes());
        }
        _ => write_value(view, row, out),
    });
}

/// Returns the shortest text that reads back as the same number.
fn float(number: f64) -> String {
    if number.is_finite() { format!("{number:e}") } else { format!("{number}") }
}

/// Appends the head of an array of one column's values.
pub(super) fn write_array_head(rows: usize, element: u32, out: &mut Vec<u8>) {
    array_head(&[rows], element, out);
}

/// Appends the head of an array: dimensions, whether there may be NULLs, the elements' type, each dimension's length and
/// lower bound. An empty one has no dimension.
fn array_head(lengths: &[usize], element: u32, out: &mut Vec<u8>) {
    let lengths = if lengths.contains(&0) { &[] } else { lengths };
    out.extend_from_slice(&(lengths.len() as i32).to_be_bytes());
    out.extend_from_slice(&1_i32.to_be_bytes());
    out.extend_from_slice(&element.to_be_bytes());
    for length in lengths {
        out.extend_from_slice(&(*length as i32).to_be_bytes());
        out.extend_from_slice(&1_i32.to_be_bytes());
    }
}

fn whole(number: i128, form: Form, out: &mut Vec<u8>) {
    #[allow(clippy::wildcard_enum_match_arm, reason = "what is no integer is a `numeric` here")]
    match form {
        Form::Int2 => fixed(&(number as i16).to_be_bytes(), out),
        Form::Int4 => fixed(&(number as i32).to_be_bytes(), out),
        Form::Int8 => fixed(&(number as i64).to_be_bytes(), out),
        _ => sized(out, |out| match u64::try_from(number) {
            Ok(number) => write_unsigned(number, out),
            Err(_) => Decimal::whole(number).write(out),
        }),
    }
}

/// Appends a whole number as `numeric`, without a detour over its text: each row has one.
fn write_unsigned(mut number: u64, out: &mut Vec<u8>) {
    let mut groups = [0_u16; 5];
    let mut count = 0;
    while number > 0 {
        groups[count] = (number % 10_000) as u16;
        number /= 10_000;
        count += 1;
    }
    // Those behind the last one that is not zero are left out.
    let zeros = groups[..count].iter().take_while(|group| **group == 0).count();
    out.extend_from_slice(&((count - zeros) as u16).to_be_bytes());
    out.extend_from_slice(&(count.saturating_sub(1) as i16).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    groups[zeros..count].iter().rev().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
}

#[inline]
fn fixed(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends what `write` appends, with its length in front.
fn sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Returns microseconds since 2000; what is below is cut off, towards the past.
#[inline]
fn microseconds(nanoseconds: i64) -> i64 {
    nanoseconds.div_euclid(1_000) - EPOCH
}

/// 2000-01-01 in microseconds since 1970.
const EPOCH: i64 = 946_684_800_000_000;
const INT8: u32 = 20;
const FLOAT8: u32 = 701;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsigned_number_is_written_as_its_digits_are() {
        for number in [0, 1, 9_999, 10_000, 123_450_000, 100_000_000, u64::MAX, i64::MAX as u64] {
            let (mut fast, mut slow) = (Vec::new(), Vec::new());
            write_unsigned(number, &mut fast);
            Decimal::whole(i128::from(number)).write(&mut slow);
            assert_eq!(fast, slow, "{number}");
        }
    }

    #[test]
    fn times_are_cut_towards_the_past() {
        assert_eq!(microseconds(946_684_800_000_000_999), 0);
        assert_eq!(microseconds(946_684_799_999_999_999), -1);
        assert_eq!(microseconds(i64::MIN), -9_223_372_036_854_776 - EPOCH);
    }
}
