//! A row from JSON: the way back from what [`JsonRows`](crate::chunk::JsonRows) writes, also where a person has changed it.

use serde_json::{Map, Value};

use super::{Cell, Column, ColumnType, Level, Table, Timestamp};
use crate::{Error, Result};

impl Table {
    /// Returns the own columns of a row in their compact form. Members that are none of these columns do not count.
    ///
    /// # Errors
    ///
    /// `Config`, naming the column, where a value is none of its type.
    pub fn row_of(&self, members: &Map<String, Value>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.presence_words() * 8];
        for (number, column) in self.columns.iter().enumerate() {
            let is_there = match members.get(&*column.name) {
                None | Some(Value::Null) => column.nullable.then_some(false),
                Some(value) => write(value, column.column_type, &mut bytes),
            };
            let is_there = is_there.ok_or_else(|| self.wrong(column))?;
            bytes[number / 8] |= u8::from(is_there) << (number % 8);
        }
        Ok(bytes)
    }

    fn wrong(&self, column: &Column) -> Error {
        let wanted = match column.column_type {
            ColumnType::Bool => "true or false",
            ColumnType::I64 => "a whole number",
            ColumnType::U64 => "a whole number that is not negative",
            ColumnType::F64 => "a number, or one of the texts NaN, inf and -inf",
            ColumnType::Text | ColumnType::Label => "a text",
            ColumnType::Time => "a time such as 2026-11-24T09:41:03.123456789Z",
            ColumnType::Levels => "a list of [price, size]",
            ColumnType::ListI64 => "a list of whole numbers",
        };
        Error::config(format!("column `{}` of table `{}` has to be {wanted}", column.name, self.name))
    }
}

/// Appends a value; `None` where it is of another type.
fn write(value: &Value, column_type: ColumnType, bytes: &mut Vec<u8>) -> Option<bool> {
    Some(match column_type {
        ColumnType::Bool => value.as_bool()?.write(bytes),
        ColumnType::I64 => value.as_i64()?.write(bytes),
        ColumnType::U64 => value.as_u64()?.write(bytes),
        ColumnType::F64 => number(value)?.write(bytes),
        ColumnType::Text | ColumnType::Label => value.as_str()?.write(bytes),
        ColumnType::Time => time(value.as_str()?)?.write(bytes),
        ColumnType::Levels => {
            let level = |pair: &Value| match &pair.as_array()?[..] {
                [price, size] => Some(Level { price: number(price)?, size: number(size)? }),
                _ => None,
            };
            let levels: Option<Vec<_>> = value.as_array()?.iter().map(level).collect();
            levels?.as_slice().write(bytes)
        }
        ColumnType::ListI64 => {
            let list: Option<Vec<i64>> = value.as_array()?.iter().map(Value::as_i64).collect();
            list?.as_slice().write(bytes)
        }
    })
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "inf" => Some(f64::INFINITY),
            "-inf" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        Value::Number(number) => number.as_f64(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Reads a time in RFC 3339, in UTC: `2026-11-24T09:41:03.123456789Z`; the fraction may be shorter, or absent.
pub fn time(text: &str) -> Option<Timestamp> {
    let (date, of_day) = text.strip_suffix('Z')?.split_once('T')?;
    let (seconds, fraction) = of_day.split_once('.').unwrap_or((of_day, "0"));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(seconds, ':')?;
    let is_fraction = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|digit| digit.is_ascii_digit());
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !is_fraction || !fits || date.len() != 10 {
        return None;
    }
    let nanos = fraction.parse::<i64>().ok()? * 10_i64.pow(9 - fraction.len() as u32);
    // Howard Hinnant's civil → days: eras of 400 years that begin on 1 March.
    let shifted = if month > 2 { year } else { year - 1 };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    i64::try_from(i128::from(seconds) * 1_000_000_000 + i128::from(nanos)).ok().map(Timestamp)
}

fn numbers(text: &str, between: char) -> Option<[i64; 3]> {
    let mut parts =
        text.split(between).map(|part| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?);
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Table {
        let types = [
            ("flag", ColumnType::Bool),
            ("change", ColumnType::I64),
            ("id", ColumnType::U64),
            ("price", ColumnType::F64),
            ("note", ColumnType::Text),
            ("side", ColumnType::Label),
            ("expiry", ColumnType::Time),
            ("bids", ColumnType::Levels),
            ("conditions", ColumnType::ListI64),
        ];
        let column =
            |(name, column_type): (&str, _)| Column { name: name.into(), column_type, nullable: name != "price" };
        Table {
            name: "all".into(),
            identity: Vec::new(),
            linked: false,
            columns: types.into_iter().map(column).collect(),
            is_whole: false,
        }
    }

    #[test]
    fn a_row_of_every_type_comes_back_as_it_was_written() {
        let row = json!({
            "flag": true, "change": i64::MIN, "id": u64::MAX, "price": 0.1, "note": "a\nb \u{0}", "side": "sell",
            "expiry": "2026-11-24T09:41:03.123456789Z", "bids": [[1.5, 2.0], [-0.0, 1e300]], "conditions": [-1, 7],
            "symbol": "a member that is no column",
        });
        let bytes = table().row_of(row.as_object().unwrap()).unwrap();
        let read: Map<_, _> =
            table().read(&bytes).unwrap().into_iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        let mut wanted = row.as_object().unwrap().clone();
        wanted.remove("symbol");
        wanted.insert("expiry".to_owned(), json!(1_795_513_263_123_456_789_i64));
        assert_eq!(read, wanted);

        let least = table().row_of(json!({ "price": "NaN", "note": null }).as_object().unwrap()).unwrap();
        assert_eq!(table().read(&least).unwrap().len(), 1);
    }

    #[test]
    fn what_does_not_fit_is_said_with_its_column() {
        for (row, column) in [
            (json!({}), "price"),
            (json!({ "price": "1.5" }), "price"),
            (json!({ "price": 1, "id": -1 }), "id"),
            (json!({ "price": 1, "change": 1.5 }), "change"),
            (json!({ "price": 1, "flag": 1 }), "flag"),
            (json!({ "price": 1, "expiry": "tomorrow" }), "expiry"),
            (json!({ "price": 1, "bids": [[1.5]] }), "bids"),
            (json!({ "price": 1, "conditions": ["x"] }), "conditions"),
        ] {
            let error = table().row_of(row.as_object().unwrap()).unwrap_err();
            assert!(error.to_string().contains(&format!("column `{column}` of table `all` has to be ")), "{error}");
        }
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for nanoseconds in [0, -1, 1, 951_782_399_999_999_999, 951_782_400_000_000_000, i64::MAX, i64::MIN + 1] {
            let mut text = Vec::new();
            crate::chunk::write_time(nanoseconds, &mut text);
            let text = String::from_utf8(text).unwrap();
            assert_eq!(time(&text), Some(Timestamp(nanoseconds)), "{text}");
        }
        assert_eq!(time("1970-01-01T00:00:01Z"), Some(Timestamp(1_000_000_000)));
        for text in
            ["", "1970-01-01", "1970-01-01T00:00:01", "1970-13-01T00:00:00Z", "1970-01-01T00:00:00.Z", "-1-1-1T0:0:0Z"]
        {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
