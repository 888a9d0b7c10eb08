//! A message → rows: what the sink `kafka` has written, read back. Opens nothing, knows no client.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::{StreamDecoder, StreamReader};
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use serde_json::{Map, Value};
use tidegate_core::{
    chunk::{JsonRows, RowSource},
    delivery::Poison,
    row::{self, Head, Origin, Position, StreamKey, Table, Timestamp},
    spool::RowHead,
};

/// What one message holds.
#[derive(Debug)]
pub(super) enum Decoded {
    /// Rows, at least one.
    Rows(Vec<Row>),
    /// No row, and never one: it becomes a dead letter.
    Poison(Box<Poison>),
    /// Rows of a table that is not declared as it is written: a person has to mend one of the two first.
    Undeclared(String),
}

/// A row.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) head: RowHead,
    pub(super) bytes: Vec<u8>,
}

/// A message, as far as it is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'a> {
    /// Where it lies, for a person.
    pub(super) place: (&'a str, i32, i64),
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// The header `tg_schema`.
    pub(super) schema: Option<&'a [u8]>,
    /// Its time, in milliseconds since 1970.
    pub(super) time: Option<i64>,
}

/// Reads the messages of one partition.
#[derive(Debug)]
pub(super) struct Decoder {
    source: Arc<str>,
    tables: Vec<Declared>,
    /// By number.
    streams: Vec<Stream>,
    numbers: HashMap<(usize, String), u32>,
}

/// A table, as it is declared.
#[derive(Debug)]
struct Declared {
    table: Arc<Table>,
    hash: u64,
    schema: SchemaRef,
}

/// What a stream's number stands for.
#[derive(Debug)]
struct Stream {
    table: usize,
    venue: Arc<str>,
    key: StreamKey,
}

/// Why a message holds no rows.
enum Unfit {
    Poison(String),
    Undeclared(String),
}

impl Decoder {
    pub(super) fn new(source: &str, tables: Vec<Table>) -> Self {
        let declared =
            |table: Table| Declared { hash: table.columns_hash(), schema: table.schema(), table: Arc::new(table) };
        let tables = tables.into_iter().map(declared).collect();
        Self { source: source.into(), tables, streams: Vec::new(), numbers: HashMap::new() }
    }

    /// Returns where the rows of a stream come from.
    pub(super) fn row_source(&self, stream: u32) -> Option<RowSource<'_>> {
        let stream = self.streams.get(stream as usize)?;
        let table = &self.tables.get(stream.table)?.table;
        Some(RowSource { source: &self.source, venue: &stream.venue, key: &stream.key, table })
    }

    /// Reads a message.
    pub(super) fn decode(&mut self, message: Incoming<'_>) -> Decoded {
        // A library that panics at bytes of others ends nobody's reading.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.rows(message)));
        let broken = |_| Err(Unfit::Poison("the value is broken: reading it ends in a fault".to_owned()));
        match decoded.unwrap_or_else(broken) {
            Ok(rows) => Decoded::Rows(rows),
            Err(Unfit::Poison(why)) => Decoded::Poison(Box::new(self.poison(message, why))),
            Err(Unfit::Undeclared(why)) => Decoded::Undeclared(why),
        }
    }

    fn rows(&mut self, message: Incoming<'_>) -> Result<Vec<Row>, Unfit> {
        let table = self.table(message)?;
        let Some(value) = message.value else {
            return Err(Unfit::Poison("the message has no value: it deletes, and rows are never deleted".to_owned()));
        };
        if value.starts_with(ARROW) {
            return self.arrow_rows(table, value);
        }
        let members: Map<String, Value> = serde_json::from_slice(value)
            .map_err(|error| Unfit::Poison(format!("the value is no JSON object: {error}")))?;
        Ok(vec![self.row(table, &members)?])
    }

    /// Returns the number of the table that a message says it is of.
    fn table(&self, message: Incoming<'_>) -> Result<usize, Unfit> {
        let header = message.schema.and_then(|header| std::str::from_utf8(header).ok());
        let named = header.and_then(|header| header.rsplit_once('/'));
        let Some((name, hash)) = named.filter(|(_, hash)| hash.len() == 16) else {
            return Err(Unfit::Poison(
                "the message has no header `tg_schema` as a sink of Tidegate writes it".to_owned(),
            ));
        };
        let (topic, partition, offset) = message.place;
        let at = format!("offset {offset} of partition {partition} of topic `{topic}`");
        let Some(number) = self.tables.iter().position(|declared| *declared.table.name == *name) else {
            let known: Vec<_> = self.tables.iter().map(|declared| &*declared.table.name).collect();
            return Err(Unfit::Undeclared(format!(
                "{at} is a row of table `{name}`, and `tables` of source `{}` has {} only: add it; a sink that does not want \
                 it leaves it out by its own `tables`",
                self.source,
                known.join(", ")
            )));
        };
        let Declared { table, hash: declared, .. } = &self.tables[number];
        if u64::from_str_radix(hash, 16).ok() == Some(*declared) {
            return Ok(number);
        }
        let written = message.value.and_then(described).unwrap_or_else(|| "columns that nobody can read".to_owned());
        Err(Unfit::Undeclared(format!(
            "{at} was written with other columns of table `{name}` (hash {hash}) than are declared (hash {declared:016x}). \
             Declared: {}. Written: {written}. Declare them as they are written, in their order; or, where both are in the \
             topic, let the old program deliver the old ones first",
            columns(table),
        )))
    }

    fn arrow_rows(&mut self, table: usize, value: &[u8]) -> Result<Vec<Row>, Unfit> {
        let poison = |error: arrow_schema::ArrowError| Unfit::Poison(format!("the value is no Arrow stream: {error}"));
        let declared = self.tables[table].schema.clone();
        let (mut rows, mut text) = (Vec::new(), Vec::new());
        let mut decoder = StreamDecoder::new();
        let mut left = Buffer::from(value);
        while let Some(batch) = decoder.decode(&mut left).map_err(poison)? {
            is_of(&batch, &declared)?;
            let json = JsonRows::new(&batch);
            for number in 0..batch.num_rows() {
                text.clear();
                json.write(number, &mut text);
                let members = serde_json::from_slice(&text);
                let members =
                    members.map_err(|error| Unfit::Poison(format!("row {number} cannot be read: {error}")))?;
                rows.push(self.row(table, &members)?);
            }
        }
        decoder.finish().map_err(poison)?;
        match rows.len() as u64 {
            0 => Err(Unfit::Poison("the Arrow stream has no row".to_owned())),
            many if many > super::window::ROWS => {
                Err(Unfit::Poison(format!("the Arrow stream has {many} rows, and {} are most", super::window::ROWS)))
            }
            _ => Ok(rows),
        }
    }

    /// Reads one row of a table.
    fn row(&mut self, table: usize, members: &Map<String, Value>) -> Result<Row, Unfit> {
        let described = self.tables[table].table.clone();
        let ts_event = moment(members, "ts_event")?;
        let ts_recv = moment(members, "ts_recv")?;
        let origin = match text(members, "origin")? {
            "live" => Origin::Live,
            "backfill" => Origin::Backfill,
            "redrive" => Origin::Redrive,
            other => return Err(Unfit::Poison(format!("column `origin` is `{other}`, which is none"))),
        };
        let (seq, prev) = (number(members, "seq")?, number(members, "prev_seq")?);
        let position = match seq {
            Some(id) if described.linked => Position::Linked { id, prev },
            Some(seq) => Position::Ordered(seq),
            None => Position::Unnumbered,
        };
        let chain = number(members, "chain")?.unwrap_or_default();
        let bytes = described.row_of(members).map_err(|error| Unfit::Poison(error.to_string()))?;
        let stream = self.stream(table, text(members, "venue")?, text(members, "symbol")?);
        let head = Head { stream, position, ts_event, ts_recv, origin };
        // The two halves of `chain`, as the collector's chunk has joined them.
        let (session, epoch) = ((chain >> 32) as u32, chain as u32);
        Ok(Row { head: RowHead { head, session, line: 0, epoch }, bytes })
    }

    fn stream(&mut self, table: usize, venue: &str, symbol: &str) -> u32 {
        let name = (table, format!("{venue}\n{symbol}"));
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        let number = self.streams.len() as u32;
        let key = StreamKey { table: self.tables[table].table.name.clone(), symbol: symbol.into(), listing: "".into() };
        self.streams.push(Stream { table, venue: venue.into(), key });
        self.numbers.insert(name, number);
        number
    }

    fn poison(&self, message: Incoming<'_>, why: String) -> Poison {
        let Incoming { place: (topic, partition, offset), key, value, schema, time } = message;
        let table =
            schema.and_then(|header| std::str::from_utf8(header).ok()).and_then(|header| header.rsplit_once('/'));
        let mut shown = Map::new();
        shown.insert("topic".to_owned(), topic.into());
        shown.insert("partition".to_owned(), partition.into());
        shown.insert("offset".to_owned(), offset.into());
        for (name, bytes) in [("key", key), ("value", value), ("tg_schema", schema)] {
            if let Some(bytes) = bytes {
                shown.insert(name.to_owned(), readable(bytes).into());
            }
        }
        let table = table.map_or_else(String::new, |(name, _)| name.to_owned());
        let at = Timestamp(time.unwrap_or_default().saturating_mul(1_000_000));
        Poison { source: self.source.clone(), table, at, why, shown }
    }
}

/// Checks that the columns are of the declared types: the header vouches for what the sink writes, and for nobody else. The sink
/// writes the texts of labels.
fn is_of(batch: &RecordBatch, declared: &Schema) -> Result<(), Unfit> {
    let schema = batch.schema();
    let (found, wanted) = (schema.fields(), declared.fields());
    let differs = |(found, wanted): (&FieldRef, &FieldRef)| {
        let (name, of) = (wanted.name(), wanted.data_type());
        let is_text = matches!(of, DataType::Dictionary(_, text) if **text == *found.data_type());
        let is_other = found.name() != name || (found.data_type() != of && !is_text);
        is_other.then(|| format!("`{}` {} instead of `{name}` {of}", found.name(), found.data_type()))
    };
    let is_longer =
        || (found.len() != wanted.len()).then(|| format!("{} columns instead of {}", found.len(), wanted.len()));
    match found.iter().zip(wanted).find_map(differs).or_else(is_longer) {
        None => Ok(()),
        Some(other) => Err(Unfit::Poison(format!("the Arrow stream is not as the sink writes it: {other}"))),
    }
}

/// Returns the columns of a declared table, as they are declared.
fn columns(table: &Table) -> String {
    let schema = table.schema();
    let all: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    all.join(", ")
}

/// Returns the columns of a row that is not declared so.
fn described(value: &[u8]) -> Option<String> {
    let names: Vec<String> = if value.starts_with(ARROW) {
        let reader = StreamReader::try_new(value, None).ok()?;
        reader.schema().fields().iter().map(|field| field.name().clone()).collect()
    } else {
        order_of(value)?
    };
    let absent = if value.starts_with(ARROW) { "" } else { ", and those without a value there" };
    Some(format!("{}{absent}", names.join(", ")))
}

/// Returns the names of an object's members, in their order.
fn order_of(value: &[u8]) -> Option<Vec<String>> {
    struct Names;
    impl<'de> serde::de::Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Vec<String>, A::Error> {
            let mut names = Vec::new();
            while let Some((name, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                names.push(name);
            }
            Ok(names)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(value);
    serde::Deserializer::deserialize_map(&mut deserializer, Names).ok()
}

fn text<'a>(members: &'a Map<String, Value>, column: &str) -> Result<&'a str, Unfit> {
    let found = members.get(column).and_then(Value::as_str);
    found.ok_or_else(|| Unfit::Poison(format!("column `{column}` has to be a text")))
}

fn moment(members: &Map<String, Value>, column: &str) -> Result<Timestamp, Unfit> {
    let found = row::time(text(members, column)?);
    found.ok_or_else(|| {
        Unfit::Poison(format!("column `{column}` has to be a time such as 2026-11-24T09:41:03.123456789Z"))
    })
}

fn number(members: &Map<String, Value>, column: &str) -> Result<Option<u64>, Unfit> {
    match members.get(column) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let wrong = || Unfit::Poison(format!("column `{column}` has to be a whole number that is not negative"));
            value.as_u64().map(Some).ok_or_else(wrong)
        }
    }
}

/// Returns bytes as a person can read them, not all of them where they are many.
fn readable(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(MOST_SHOWN)];
    let text = match std::str::from_utf8(shown) {
        Ok(text) => text.to_owned(),
        Err(error) if error.valid_up_to() + 4 > shown.len() => {
            String::from_utf8_lossy(&shown[..error.valid_up_to()]).into_owned()
        }
        Err(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    match bytes.len() - shown.len() {
        0 => text,
        left => format!("{text}… and {left} bytes more"),
    }
}

/// What an Arrow IPC stream begins with: the mark of a continued message. No JSON does.
const ARROW: &[u8] = &[0xff, 0xff, 0xff, 0xff];

/// So many bytes of what is no row are kept: the message itself stays in its topic.
const MOST_SHOWN: usize = 64 << 10;
