//! `cast`: what cannot be cast fails, and is never NULL.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Datum, Float64Array, Int64Array, PrimitiveArray, StringArray, UInt64Array,
    cast::AsArray,
    types::{Float64Type, Int64Type, TimestampNanosecondType, UInt64Type},
};

use super::{super::evaluate::Value, super::kind::Kind, Why, numbers::like};
use crate::chunk::{ColumnView, write_number, write_time, write_value};

pub(in super::super) fn cast(of: &Value, from: Kind, to: Kind) -> Result<Value, Why> {
    let array = of.get().0;
    if from == to {
        return Ok(of.clone());
    }
    let done: ArrayRef = match (from, to) {
        (Kind::Text, _) => texts(array.as_string(), to)?,
        (_, Kind::Text) => Arc::new(to_texts(array)),
        (Kind::Bool, _) => {
            Arc::new(array.as_boolean().iter().map(|truth| truth.map(i64::from)).collect::<Int64Array>())
        }
        (Kind::I64, Kind::F64) => Arc::new(array.as_primitive::<Int64Type>().unary::<_, Float64Type>(|x| x as f64)),
        (Kind::U64, Kind::F64) => Arc::new(array.as_primitive::<UInt64Type>().unary::<_, Float64Type>(|x| x as f64)),
        (Kind::I64, Kind::U64) => numbers::<Int64Type, UInt64Type>(array, to, |x| u64::try_from(x).ok())?,
        (Kind::U64, Kind::I64) => numbers::<UInt64Type, Int64Type>(array, to, |x| i64::try_from(x).ok())?,
        (Kind::F64, Kind::I64) => numbers::<Float64Type, Int64Type>(array, to, |x| whole(x, I64).map(|x| x as i64))?,
        (Kind::F64, Kind::U64) => numbers::<Float64Type, UInt64Type>(array, to, |x| whole(x, U64).map(|x| x as u64))?,
        (Kind::Time, _) => {
            let times = array.as_primitive::<TimestampNanosecondType>();
            Arc::new(PrimitiveArray::<Int64Type>::new(times.values().clone(), times.nulls().cloned()))
        }
        (_, _) => {
            let integers = array.as_primitive::<Int64Type>();
            let (values, nulls) = (integers.values().clone(), integers.nulls().cloned());
            Arc::new(PrimitiveArray::<TimestampNanosecondType>::new(values, nulls).with_timezone("UTC"))
        }
    };
    Ok(like(of, done))
}

/// The floats below which, and from which on, an integer of the type begins and ends.
const I64: (f64, f64) = (-9_223_372_036_854_775_808.0, 9_223_372_036_854_775_808.0);
const U64: (f64, f64) = (0.0, 18_446_744_073_709_551_616.0);

/// Returns a float without its fraction, if that is within the bounds.
fn whole(number: f64, (low, high): (f64, f64)) -> Option<f64> {
    let whole = number.trunc();
    (whole >= low && whole < high).then_some(whole)
}

fn numbers<A, B>(array: &dyn Array, to: Kind, cast: impl Fn(A::Native) -> Option<B::Native>) -> Result<ArrayRef, Why>
where
    A: arrow_array::ArrowPrimitiveType,
    B: arrow_array::ArrowPrimitiveType,
    A::Native: std::fmt::Display,
{
    let array = array.as_primitive::<A>();
    let mut odd = None;
    let done = array.iter().map(|number| {
        let number = number?;
        let done = cast(number);
        if done.is_none() && odd.is_none() {
            odd = Some(number);
        }
        done
    });
    let done: PrimitiveArray<B> = done.collect();
    match odd {
        Some(odd) => Err(Why::Cast(format!("{odd} does not fit into {to}"))),
        None => Ok(Arc::new(done)),
    }
}

fn texts(array: &StringArray, to: Kind) -> Result<ArrayRef, Why> {
    let odd = |text: &str| {
        // A dead letter has the whole row: here the beginning tells enough.
        let shown: String = text.chars().take(40).collect();
        Why::Cast(format!("'{shown}' is no {to}"))
    };
    macro_rules! each {
        ($read:expr) => {{
            let read = $read;
            array.iter().map(move |text| text.map(|text| read(text).ok_or_else(|| odd(text))).transpose())
        }};
    }
    Ok(match to {
        Kind::Bool => {
            let read = |text: &str| match text {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            };
            Arc::new(each!(read).collect::<Result<BooleanArray, _>>()?)
        }
        Kind::I64 => Arc::new(each!(|text: &str| text.parse::<i64>().ok()).collect::<Result<Int64Array, _>>()?),
        Kind::U64 => Arc::new(each!(|text: &str| text.parse::<u64>().ok()).collect::<Result<UInt64Array, _>>()?),
        Kind::F64 => {
            let read = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
            Arc::new(each!(read).collect::<Result<Float64Array, _>>()?)
        }
        Kind::Time => {
            let read = |text: &str| crate::row::time(text).map(|time| time.0);
            let times = each!(read).collect::<Result<PrimitiveArray<TimestampNanosecondType>, _>>()?;
            Arc::new(times.with_timezone("UTC"))
        }
        Kind::Null | Kind::Text | Kind::Levels | Kind::ListI64 => Arc::new(array.clone()),
    })
}

/// Returns values as JSON has them, times and texts without quotes.
fn to_texts(array: &dyn Array) -> StringArray {
    let column = arrow_array::make_array(array.to_data());
    let view = ColumnView::of(&column);
    let text = |row| {
        if column.is_null(row) {
            return None;
        }
        let mut text = Vec::new();
        match &view {
            ColumnView::Time(times) => write_time(times.value(row), &mut text),
            ColumnView::F64(numbers) if numbers.value(row).is_finite() => write_number(numbers.value(row), &mut text),
            ColumnView::F64(numbers) => text.extend_from_slice(numbers.value(row).to_string().as_bytes()),
            ColumnView::Text(texts) => text.extend_from_slice(texts.value(row).as_bytes()),
            ColumnView::Label(..)
            | ColumnView::Bool(_)
            | ColumnView::I64(_)
            | ColumnView::U64(_)
            | ColumnView::Levels(_)
            | ColumnView::ListI64(_) => write_value(&view, row, &mut text),
        }
        Some(String::from_utf8_lossy(&text).into_owned())
    };
    (0..column.len()).map(text).collect()
}
