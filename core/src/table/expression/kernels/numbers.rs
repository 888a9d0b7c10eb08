//! `+ - * / %`: integers are checked, and a number that is none is no result.

use std::sync::Arc;

use arrow_arith::{arity::try_unary, numeric};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, Datum, PrimitiveArray,
    cast::AsArray,
    types::{Float64Type, Int64Type, TimestampNanosecondType},
};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType};

use super::{super::evaluate::Value, super::node::Arithmetic, Why};

pub(in super::super) fn arithmetic(op: Arithmetic, one: &Value, other: &Value) -> Result<Value, Why> {
    let is_time = |value: &Value| matches!(value.get().0.data_type(), DataType::Timestamp(..));
    if is_time(one) || is_time(other) {
        let both = is_time(one) && is_time(other);
        let result = integers(op, &nanoseconds(one), &nanoseconds(other))?;
        return Ok(if both { result } else { times(&result) });
    }
    if *one.get().0.data_type() == DataType::Float64 { floats(op, one, other) } else { integers(op, one, other) }
}

/// Arrow checks integers.
fn integers(op: Arithmetic, one: &Value, other: &Value) -> Result<Value, Why> {
    let done = match op {
        Arithmetic::Add => numeric::add(one, other),
        Arithmetic::Subtract => numeric::sub(one, other),
        Arithmetic::Multiply => numeric::mul(one, other),
        Arithmetic::Divide => numeric::div(one, other),
        Arithmetic::Remainder => numeric::rem(one, other),
    };
    match done {
        Ok(array) => Ok(value(array, one, other)),
        Err(ArrowError::DivideByZero) => Err(Why::DivisionByZero),
        Err(_) => Err(Why::Overflow),
    }
}

/// Arrow's result counts where all of it is finite.
fn floats(op: Arithmetic, one: &Value, other: &Value) -> Result<Value, Why> {
    let done = match op {
        Arithmetic::Add => numeric::add(one, other),
        Arithmetic::Subtract => numeric::sub(one, other),
        Arithmetic::Multiply => numeric::mul(one, other),
        Arithmetic::Divide => numeric::div(one, other),
        Arithmetic::Remainder => numeric::rem(one, other),
    };
    let array = done.map_err(|_| Why::NotFinite)?;
    let numbers = array.as_primitive::<Float64Type>();
    if are_finite(numbers.values()) {
        return Ok(value(array, one, other));
    }
    let is_division = matches!(op, Arithmetic::Divide | Arithmetic::Remainder);
    let odd = (0..numbers.len()).find(|row| numbers.is_valid(*row) && !numbers.value(*row).is_finite());
    if let Some(row) = odd {
        let divisor = match other {
            Value::Column(other) => other.as_primitive::<Float64Type>().value(row),
            Value::Constant(other) => other.as_primitive::<Float64Type>().value(0),
        };
        return Err(if is_division && divisor == 0.0 { Why::DivisionByZero } else { Why::NotFinite });
    }
    Ok(value(array, one, other))
}

/// In blocks, without a branch for each: the compiler turns this into wide instructions.
fn are_finite(numbers: &[f64]) -> bool {
    const EXPONENT: u64 = 0x7ff0_0000_0000_0000;
    numbers.chunks(256).all(|block| {
        block.iter().fold(0_u64, |any, number| any | u64::from(number.to_bits() & EXPONENT == EXPONENT)) == 0
    })
}

pub(in super::super) fn negate(of: &Value) -> Result<Value, Why> {
    let array = numeric::neg(of.get().0).map_err(|_| Why::Overflow)?;
    Ok(match of {
        Value::Column(_) => Value::Column(array),
        Value::Constant(_) => Value::Constant(array),
    })
}

/// Applies a function to each number that is there.
pub(in super::super) fn each_float(of: &Value, f: impl Fn(f64) -> f64) -> Result<Value, Why> {
    let array = of.get().0.as_primitive::<Float64Type>();
    let is_fine = |x: f64| if x.is_finite() { Ok(x) } else { Err(ArrowError::DivideByZero) };
    let done = try_unary::<_, _, Float64Type>(array, |x| is_fine(f(x))).map_err(|_| Why::NotFinite)?;
    Ok(like(of, Arc::new(done)))
}

/// Applies a function to each integer that is there; `None` where it does not fit.
pub(in super::super) fn each_integer(of: &Value, f: impl Fn(i64) -> Option<i64>) -> Result<Value, Why> {
    let array = of.get().0.as_primitive::<Int64Type>();
    let done = try_unary::<_, _, Int64Type>(array, |x| f(x).ok_or(ArrowError::DivideByZero));
    Ok(like(of, Arc::new(done.map_err(|_| Why::Overflow)?)))
}

/// Returns a result as constant as its argument.
pub(in super::super) fn like(of: &Value, array: ArrayRef) -> Value {
    match of {
        Value::Column(_) => Value::Column(array),
        Value::Constant(_) => Value::Constant(array),
    }
}

fn value(array: ArrayRef, one: &Value, other: &Value) -> Value {
    match (one, other) {
        (Value::Constant(_), Value::Constant(_)) => Value::Constant(array),
        (Value::Column(_), _) | (_, Value::Column(_)) => Value::Column(array),
    }
}

/// Returns times as the numbers that they are.
fn nanoseconds(of: &Value) -> Value {
    match of.get().0.as_primitive_opt::<TimestampNanosecondType>() {
        Some(times) => like(of, numbers::<Int64Type>(times.values().clone(), times.nulls().cloned())),
        None => of.clone(),
    }
}

fn times(of: &Value) -> Value {
    let integers = of.get().0.as_primitive::<Int64Type>();
    let (values, nulls) = (integers.values().clone(), integers.nulls().cloned());
    let times = PrimitiveArray::<TimestampNanosecondType>::new(values, nulls).with_timezone("UTC");
    like(of, Arc::new(times))
}

fn numbers<T: ArrowPrimitiveType>(values: ScalarBuffer<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(values, nulls))
}
