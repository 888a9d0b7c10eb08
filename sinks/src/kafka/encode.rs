//! A chunk's rows → messages: keys, values, headers, sizes.

use std::{collections::HashMap, ops::Range};

use arrow_array::{Int32Array, RecordBatch, StringArray, TimestampNanosecondArray};
use rdkafka::message::{Header, OwnedHeaders};
use tidegate_core::{
    Error, Result,
    chunk::{Chunk, ColumnView, JsonRows, SinkTable, TableRows},
    config::{NameParts, NameTemplate},
    row::Timestamp,
    sink::{Owner, Refusal},
};

use super::{arrow, config::Format};

/// Makes messages of the rows of one sink's tables.
pub(super) struct Encoder {
    pipeline: String,
    key: NameTemplate,
    format: Format,
    tables: Vec<Target>,
}

/// A table's topic.
struct Target {
    topic: String,
    table: String,
    /// The header `tg_schema`.
    schema: String,
    /// How many bytes a message may have.
    limit: usize,
}

/// Messages, in the order in which they are sent. The bytes of all stand in one buffer.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    all: Vec<Message>,
    /// Keys that were made, by the numbers of venue and symbol in their dictionaries.
    keys: HashMap<(usize, i32, i32), Range<usize>>,
}

#[derive(Debug, Clone)]
struct Message {
    table: usize,
    key: Range<usize>,
    value: Range<usize>,
    /// The row whose cause, origin and time it has; of several, the first.
    row: usize,
    /// All its rows.
    rows: Rows,
    /// Its place in `Chunk::tables`.
    part: usize,
    /// Milliseconds since 1970.
    time: i64,
}

#[derive(Debug, Clone)]
enum Rows {
    One,
    Many(Vec<u32>),
}

/// A message as it is sent.
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'a str,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) headers: OwnedHeaders,
    /// Milliseconds since 1970.
    pub(super) timestamp: i64,
}

/// The columns that keys, headers and times are made of.
pub(super) struct Common<'a> {
    venue: Labels<'a>,
    symbol: Labels<'a>,
    origin: Labels<'a>,
    received: &'a TimestampNanosecondArray,
}

/// A column of texts of which there are few: numbers, and what they stand for.
#[derive(Clone, Copy)]
struct Labels<'a>(&'a Int32Array, &'a StringArray);

impl Encoder {
    /// `limits` has how many bytes a message of each table may have.
    pub(super) fn new(
        owner: &Owner,
        key: NameTemplate,
        format: Format,
        tables: &[SinkTable],
        limits: &[usize],
    ) -> Self {
        let tables = tables.iter().zip(limits).map(|(table, limit)| Target {
            topic: table.name.clone(),
            table: table.table.name.to_string(),
            schema: schema(table),
            limit: *limit,
        });
        Self { pipeline: owner.pipeline.clone(), key, format, tables: tables.collect() }
    }

    /// Encodes all rows.
    ///
    /// # Errors
    ///
    /// As [`arrow::stream`].
    pub(super) fn encode(&self, chunk: &Chunk, common: &[Common<'_>]) -> Result<Messages> {
        let mut messages = Messages::default();
        for (part, (rows, common)) in chunk.tables.iter().zip(common).enumerate() {
            match self.format {
                Format::Json => self.encode_json(part, rows, common, &mut messages),
                Format::Arrow => self.encode_arrow(part, rows, common, &mut messages)?,
            }
        }
        Ok(messages)
    }

    fn encode_json(&self, part: usize, rows: &TableRows, common: &Common<'_>, messages: &mut Messages) {
        let json = JsonRows::new(&rows.rows);
        for row in 0..rows.rows.num_rows() {
            let key = self.key(part, rows, common, row, messages);
            let start = messages.bytes.len();
            json.write(row, &mut messages.bytes);
            let value = start..messages.bytes.len();
            messages.all.push(Message {
                table: rows.table,
                key,
                value,
                row,
                rows: Rows::One,
                part,
                time: common.time(row),
            });
        }
    }

    /// Rows of one key and one origin make one message, or several where they are too large for one.
    fn encode_arrow(&self, part: usize, rows: &TableRows, common: &Common<'_>, messages: &mut Messages) -> Result<()> {
        let mut groups: Vec<(Range<usize>, Vec<u32>)> = Vec::new();
        let mut group_of: HashMap<(Range<usize>, &str), usize> = HashMap::new();
        for row in 0..rows.rows.num_rows() {
            let key = self.key(part, rows, common, row, messages);
            let group = *group_of.entry((key.clone(), common.origin.text(row))).or_insert(groups.len());
            if group == groups.len() {
                groups.push((key, Vec::new()));
            }
            groups[group].1.push(row as u32);
        }
        for (key, rows_of_key) in groups {
            let mut pending = vec![rows_of_key];
            while let Some(mut some) = pending.pop() {
                let value = arrow::stream(&rows.rows, &some)?;
                let size = value.len() + key.len() + OVERHEAD;
                if size > self.tables[rows.table].limit && some.len() > 1 {
                    let rest = some.split_off(some.len() / 2);
                    pending.extend([rest, some]);
                    continue;
                }
                let start = messages.bytes.len();
                messages.bytes.extend_from_slice(&value);
                let value = start..messages.bytes.len();
                let (row, key) = (some[0] as usize, key.clone());
                let time = common.time(row);
                messages.all.push(Message { table: rows.table, key, value, row, rows: Rows::Many(some), part, time });
            }
        }
        Ok(())
    }

    /// Returns where the key of a row stands.
    fn key(
        &self,
        part: usize,
        rows: &TableRows,
        common: &Common<'_>,
        row: usize,
        messages: &mut Messages,
    ) -> Range<usize> {
        let known = (part, common.venue.number(row), common.symbol.number(row));
        if let Some(key) = messages.keys.get(&known) {
            return key.clone();
        }
        let parts = NameParts {
            pipeline: &self.pipeline,
            venue: common.venue.text(row),
            table: &self.tables[rows.table].table,
            symbol: common.symbol.text(row),
        };
        let start = messages.bytes.len();
        messages.bytes.extend_from_slice(self.key.fill(parts).as_bytes());
        let key = start..messages.bytes.len();
        messages.keys.insert(known, key.clone());
        key
    }

    /// Returns the rows of messages that are too large.
    pub(super) fn too_large(&self, chunk: &Chunk, messages: &Messages) -> Vec<Refusal> {
        let mut refused = Vec::new();
        for (n, message) in messages.all.iter().enumerate() {
            let target = &self.tables[message.table];
            let size = message.value.len() + message.key.len() + OVERHEAD;
            if size > target.limit {
                let why = format!(
                    "a message of {size} bytes is too large for topic `{}`, which takes {} (`max.message.bytes`)",
                    target.topic, target.limit
                );
                refused.extend(messages.refusals(chunk, n, || Error::malformed(why.clone())));
            }
        }
        refused.sort_by_key(|refusal| refusal.cause);
        refused
    }

    /// Returns a message as it is sent; `common` has the columns of each of the chunk's tables.
    pub(super) fn outgoing<'a>(
        &'a self,
        chunk: &Chunk,
        common: &[Common<'_>],
        messages: &'a Messages,
        n: usize,
    ) -> Outgoing<'a> {
        let message = &messages.all[n];
        let (row, target, common) = (message.row, &self.tables[message.table], &common[message.part]);
        let cause = chunk.tables[message.part].causes[row].to_string();
        let headers = OwnedHeaders::new_with_capacity(3)
            .insert(Header { key: "tg_position", value: Some(cause.as_str()) })
            .insert(Header { key: "tg_origin", value: Some(common.origin.text(row)) })
            .insert(Header { key: "tg_schema", value: Some(target.schema.as_str()) });
        Outgoing {
            topic: &target.topic,
            key: &messages.bytes[message.key.clone()],
            value: &messages.bytes[message.value.clone()],
            headers,
            timestamp: message.time,
        }
    }
}

impl Messages {
    /// Returns the time of a message, in milliseconds since 1970.
    pub(super) fn time(&self, n: usize) -> Option<i64> {
        self.all.get(n).map(|message| message.time)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the refusals of all rows of a message.
    pub(super) fn refusals(&self, chunk: &Chunk, n: usize, why: impl Fn() -> Error) -> Vec<Refusal> {
        let message = &self.all[n];
        let causes = &chunk.tables[message.part].causes;
        let one = [message.row as u32];
        let rows = match &message.rows {
            Rows::One => &one[..],
            Rows::Many(rows) => rows,
        };
        let refusal = |row: &u32| Refusal { cause: causes[*row as usize], table: message.table, error: why() };
        rows.iter().map(refusal).collect()
    }
}

impl<'a> Common<'a> {
    /// Returns those of each of a chunk's tables.
    pub(super) fn of_all(chunk: &'a Chunk) -> Result<Vec<Self>> {
        chunk.tables.iter().map(|part| Self::of(&part.rows)).collect()
    }

    fn of(rows: &'a RecordBatch) -> Result<Self> {
        let labels = |name: &str| match rows.column_by_name(name).map(ColumnView::of) {
            Some(ColumnView::Label(numbers, texts)) => Ok(Labels(numbers, texts)),
            Some(_) | None => Err(strange(name)),
        };
        let Some(ColumnView::Time(received)) = rows.column_by_name("ts_recv").map(ColumnView::of) else {
            return Err(strange("ts_recv"));
        };
        Ok(Self { venue: labels("venue")?, symbol: labels("symbol")?, origin: labels("origin")?, received })
    }

    /// Returns when a row came, in milliseconds since 1970. Where the clock was put back since, it came just now: brokers
    /// refuse what is in their future. The client takes 0 for now.
    fn time(&self, row: usize) -> i64 {
        self.received.value(row).min(Timestamp::now().0).div_euclid(1_000_000).max(1)
    }
}

impl<'a> Labels<'a> {
    fn number(self, row: usize) -> i32 {
        self.0.value(row)
    }

    fn text(self, row: usize) -> &'a str {
        self.1.value(self.number(row) as usize)
    }
}

fn strange(column: &str) -> Error {
    Error::transient(format!("a chunk has no column `{column}` as every table has it"))
}

/// Names the table and its columns: another hash, other columns.
fn schema(table: &SinkTable) -> String {
    format!("{}/{:016x}", table.table.name, table.table.columns_hash())
}

/// What a message takes beside key and value: a batch of its own (61 bytes), lengths and times (up to 45), three headers.
pub(super) const OVERHEAD: usize = 320;
