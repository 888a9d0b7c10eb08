//! Column types: what is made for each of ours, and what a column that is there can hold.

use arrow_schema::DataType;
use tidegate_core::row::ColumnType;

use super::config::{Settings, Times, Unsigned};

/// A column of the store, as the catalog describes it. Of a domain, what it is made of.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) name: String,
    /// The type's oid.
    pub(super) oid: u32,
    /// The length or precision that goes with it; -1 for none.
    pub(super) modifier: i32,
    /// The type as SQL writes it.
    pub(super) declared: String,
    pub(super) is_enum: bool,
    pub(super) not_null: bool,
    /// It has a value where none is given.
    pub(super) has_default: bool,
    /// It takes no value.
    pub(super) is_generated: bool,
}

/// How values are written into a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    /// Rounded, as the user allowed.
    Float4,
    Float8,
    /// Digits before and behind the point that there may be; `None` for any.
    Numeric(Option<(i32, i32)>),
    /// As above, rounded behind the point by the server.
    RoundedNumeric(Option<(i32, i32)>),
    Timestamp,
    /// How many characters there may be; `None` for any number.
    Text(Option<usize>),
    Json,
    Jsonb,
    Floats,
    Integers,
}

/// What a column that is there does to our values.
pub(super) enum Fit {
    /// It holds every one as it is.
    Whole(Form),
    /// It holds some, and refuses the others: which, in words.
    Narrow(Form, String),
    /// It would change them.
    Changes,
}

/// Returns the type of a chunk's column.
///
/// # Panics
///
/// If it is one that [`ColumnType::arrow`] never gives.
#[allow(clippy::wildcard_enum_match_arm, reason = "a chunk has columns of nine types, Arrow has many more")]
pub(super) fn column_type(data: &DataType) -> ColumnType {
    match data {
        DataType::Boolean => ColumnType::Bool,
        DataType::Int64 => ColumnType::I64,
        DataType::UInt64 => ColumnType::U64,
        DataType::Float64 => ColumnType::F64,
        DataType::Utf8 => ColumnType::Text,
        DataType::Dictionary(..) => ColumnType::Label,
        DataType::Timestamp(..) => ColumnType::Time,
        DataType::List(item) if *item.data_type() == DataType::Int64 => ColumnType::ListI64,
        DataType::List(_) => ColumnType::Levels,
        other => panic!("no column of a chunk is {other}"),
    }
}

/// Returns the type of a column that is made.
pub(super) fn declared(column: &str, column_type: ColumnType, settings: &Settings) -> &'static str {
    match column_type {
        ColumnType::Bool => "boolean",
        ColumnType::I64 => "bigint",
        ColumnType::U64 => match settings.unsigned {
            Unsigned::Numeric => "numeric(20)",
            Unsigned::Bigint => "bigint",
        },
        ColumnType::F64 if named(&settings.numeric, column) => "numeric",
        ColumnType::F64 => "double precision",
        ColumnType::Text | ColumnType::Label => "text",
        ColumnType::Time => match settings.times {
            Times::Timestamptz => "timestamptz",
            Times::Bigint => "bigint",
        },
        ColumnType::Levels => "double precision[]",
        ColumnType::ListI64 => "bigint[]",
    }
}

impl Found {
    /// Says how values of a type are written into this column.
    pub(super) fn fit(&self, column_type: ColumnType, settings: &Settings) -> Fit {
        let may_round = named(&settings.round, &self.name);
        match column_type {
            ColumnType::Bool => match self.oid {
                BOOL => Fit::Whole(Form::Bool),
                _ => Fit::Changes,
            },
            ColumnType::I64 => self.fit_integer(i128::from(i64::MIN), i128::from(i64::MAX)),
            ColumnType::U64 => self.fit_integer(0, i128::from(u64::MAX)),
            ColumnType::F64 => match (self.oid, self.numeric()) {
                (FLOAT8, _) => Fit::Whole(Form::Float8),
                (FLOAT4, _) if may_round => Fit::Whole(Form::Float4),
                (NUMERIC, None) => Fit::Whole(Form::Numeric(None)),
                (NUMERIC, Some((before, behind))) if may_round => {
                    let form = Form::RoundedNumeric(Some((before, behind)));
                    Fit::Narrow(form, format!("numbers of more than {before} digits before the point are refused"))
                }
                (NUMERIC, Some((before, behind))) => Fit::Narrow(
                    Form::Numeric(Some((before, behind))),
                    format!(
                        "numbers of more than {before} digits before the point or {behind} behind it are refused; \
                         `round = [\"{}\"]` lets those behind it go",
                        self.name
                    ),
                ),
                _ => Fit::Changes,
            },
            ColumnType::Text | ColumnType::Label => self.fit_text(),
            ColumnType::Time => match self.oid {
                TIMESTAMPTZ | TIMESTAMP => Fit::Whole(Form::Timestamp),
                INT8 => Fit::Whole(Form::Int8),
                _ => Fit::Changes,
            },
            ColumnType::Levels => self.fit_list(FLOAT8_ARRAY, Form::Floats),
            ColumnType::ListI64 => self.fit_list(INT8_ARRAY, Form::Integers),
        }
    }

    fn fit_integer(&self, least: i128, most: i128) -> Fit {
        let (form, from, to) = match (self.oid, self.numeric()) {
            (INT8, _) => (Form::Int8, i128::from(i64::MIN), i128::from(i64::MAX)),
            (INT4, _) => (Form::Int4, i128::from(i32::MIN), i128::from(i32::MAX)),
            (INT2, _) => (Form::Int2, i128::from(i16::MIN), i128::from(i16::MAX)),
            (NUMERIC, None) => (Form::Numeric(None), i128::MIN, i128::MAX),
            (NUMERIC, Some((before, _))) => {
                let most = 10_i128.checked_pow(before.max(0).unsigned_abs()).map_or(i128::MAX, |power| power - 1);
                (Form::Numeric(self.numeric()), -most, most)
            }
            _ => return Fit::Changes,
        };
        if from <= least && most <= to {
            return Fit::Whole(form);
        }
        Fit::Narrow(form, format!("integers beyond {to} are refused"))
    }

    fn fit_text(&self) -> Fit {
        match self.oid {
            TEXT => Fit::Whole(Form::Text(None)),
            VARCHAR if self.modifier < 0 => Fit::Whole(Form::Text(None)),
            VARCHAR => {
                let most = usize::try_from(self.modifier - HEADER).unwrap_or(0);
                Fit::Narrow(Form::Text(Some(most)), format!("texts of more than {most} characters are refused"))
            }
            _ if self.is_enum => {
                Fit::Narrow(Form::Text(None), "texts that are none of its values are refused".to_owned())
            }
            // `char(n)` pads, `name` cuts off.
            _ => Fit::Changes,
        }
    }

    fn fit_list(&self, array: u32, form: Form) -> Fit {
        match self.oid {
            oid if oid == array => Fit::Whole(form),
            JSONB => Fit::Whole(Form::Jsonb),
            JSON | TEXT => Fit::Whole(Form::Json),
            _ => Fit::Changes,
        }
    }

    /// Returns how many digits a `numeric` has before and behind the point; `None` where there is no limit.
    fn numeric(&self) -> Option<(i32, i32)> {
        // src/backend/utils/adt/numeric.c, make_numeric_typmod: 11 bits of scale, with their sign.
        let packed = self.modifier - HEADER;
        (self.oid == NUMERIC && packed >= 0).then(|| {
            let (precision, scale) = (packed >> 16, ((packed & 0x7ff) ^ 1024) - 1024);
            (precision - scale, scale)
        })
    }

    /// Returns the type that a parameter has which carries values for this column, and the cast that turns one into it.
    pub(super) fn parameter(&self, form: Form) -> (tokio_postgres::types::Type, String) {
        use tokio_postgres::types::Type;
        match form {
            Form::Bool => (Type::BOOL_ARRAY, String::new()),
            Form::Int2 => (Type::INT2_ARRAY, String::new()),
            Form::Int4 => (Type::INT4_ARRAY, String::new()),
            Form::Int8 => (Type::INT8_ARRAY, String::new()),
            Form::Float4 => (Type::FLOAT4_ARRAY, String::new()),
            Form::Float8 => (Type::FLOAT8_ARRAY, String::new()),
            Form::Numeric(_) | Form::RoundedNumeric(_) => (Type::NUMERIC_ARRAY, String::new()),
            Form::Timestamp if self.oid == TIMESTAMP => (Type::TIMESTAMP_ARRAY, String::new()),
            Form::Timestamp => (Type::TIMESTAMPTZ_ARRAY, String::new()),
            Form::Text(_) if self.is_enum => (Type::TEXT_ARRAY, format!("::{}", self.declared)),
            Form::Text(_) => (Type::TEXT_ARRAY, String::new()),
            // An array of arrays is none that `unnest` takes apart by rows, so these come as texts.
            Form::Json | Form::Jsonb | Form::Floats | Form::Integers => {
                (Type::TEXT_ARRAY, format!("::{}", self.declared))
            }
        }
    }
}

fn named(columns: &[String], column: &str) -> bool {
    columns.iter().any(|name| name.eq_ignore_ascii_case(column))
}

/// What the modifier of a type counts beside what it says: `VARHDRSZ`.
const HEADER: i32 = 4;
// src/include/catalog/pg_type.dat
const BOOL: u32 = 16;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const JSON: u32 = 114;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const INT8_ARRAY: u32 = 1016;
const FLOAT8_ARRAY: u32 = 1022;
const VARCHAR: u32 = 1043;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;
const JSONB: u32 = 3802;
