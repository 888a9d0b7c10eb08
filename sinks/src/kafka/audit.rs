//! What the topics hold, for `tidegate verify`: read as any consumer of committed messages reads them.
//!
//! There is no index: each question reads the topic, from the first message of its time on.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use async_trait::async_trait;
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate_core::{
    Error, Result,
    chunk::{ColumnView, Part, SinkTable},
    row::Timestamp,
    sink::{Neighbour, Owner},
    spool::SpoolPosition,
    verify::{Audit, Doubled, RowId, Stream, Sum},
};

use super::{
    KafkaConfig,
    client::{Reader, Stretch},
    config::Format,
    position::{self, Held},
    waited::{Waited, Waiting},
};
use crate::worker::Worker;

/// A look at the topics of one sink.
pub(super) struct KafkaAudit {
    worker: Worker<Look>,
    owner: Owner,
    held: Option<Held>,
}

pub(super) struct Look {
    reader: Reader,
    format: Format,
    /// Messages of later offsets of the spool were committed while this looks: they are not counted.
    upto: u64,
    /// What there is of each topic, as of the first question.
    extents: BTreeMap<String, Vec<Stretch>>,
}

/// A stored row, as far as it is compared.
struct Found {
    stream: Stream,
    id: RowId,
    is_redriven: bool,
}

impl KafkaAudit {
    /// Begins to read: the position first, so that all rows up to it are there.
    pub(super) fn open(config: &KafkaConfig, owner: &Owner, waited: &Waited) -> Result<Self> {
        let reader = Reader::new(config, owner)?;
        let topic = position::topic(owner);
        let held = match reader.partitions(&topic)? {
            Some(_) => position::read(&reader, &topic, waited)?.filter(Held::is_written),
            None => None,
        };
        let upto = held.as_ref().map_or(u64::MAX, |held| held.position(&Part::spool()).offset);
        let mut worker = Worker::new();
        worker.set(Look { reader, format: config.format, upto, extents: BTreeMap::new() });
        Ok(Self { worker, owner: owner.clone(), held })
    }

    async fn look<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Look, &Waited) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let waiting = Waiting::default();
        let waited = waiting.waited();
        self.worker.run(move |look| work(look, &waited)).await
    }
}

#[async_trait]
impl Audit for KafkaAudit {
    async fn position(&mut self) -> Result<Option<(u64, SpoolPosition)>> {
        let position = |held: &Held| (held.spool(), held.position(&Part::spool()));
        Ok(self.held.as_ref().map(position).filter(|(_, position)| *position != SpoolPosition::START))
    }

    async fn neighbours(&mut self, tables: &[SinkTable]) -> Result<Vec<Neighbour>> {
        let (owner, tables) = (self.owner.clone(), tables.to_vec());
        self.look(move |look, waited| position::neighbours(&look.reader, &owner, &tables, waited)).await
    }

    async fn sums(&mut self, table: &SinkTable, since: Timestamp) -> Result<Option<Vec<Sum>>> {
        let topic = table.name.clone();
        self.look(move |look, waited| {
            let mut sums: HashMap<Stream, Sum> = HashMap::new();
            let is_there = look.each(&topic, since, waited, found, |found: Found| {
                if found.id.ts_recv < since {
                    return;
                }
                let stream = found.stream.clone();
                let sum = sums.entry(found.stream).or_insert(Sum { stream, rows: 0, redriven: 0, marks: 0 });
                sum.rows += 1;
                sum.redriven += u64::from(found.is_redriven);
                sum.marks = sum.marks.wrapping_add(found.id.mark());
            })?;
            Ok(is_there.then(|| sums.into_values().collect()))
        })
        .await
    }

    async fn count(&mut self, table: &SinkTable) -> Result<Option<u64>> {
        let topic = table.name.clone();
        self.look(move |look, waited| {
            let mut count = 0;
            let is_there = look.each(&topic, Timestamp(i64::MIN), waited, rows_in, |rows| count += rows)?;
            Ok(is_there.then_some(count))
        })
        .await
    }

    async fn rows(&mut self, table: &SinkTable, stream: &Stream, since: Timestamp) -> Result<Vec<RowId>> {
        let (topic, stream) = (table.name.clone(), stream.clone());
        self.look(move |look, waited| {
            let mut rows = Vec::new();
            look.each(&topic, since, waited, found, |found: Found| {
                if found.stream == stream && found.id.ts_recv >= since {
                    rows.push(found.id);
                }
            })?;
            Ok(rows)
        })
        .await
    }

    async fn values(&mut self, table: &SinkTable, columns: &[&str]) -> Result<Vec<Vec<Value>>> {
        let (topic, columns) =
            (table.name.clone(), columns.iter().map(|&column| column.to_owned()).collect::<Vec<_>>());
        self.look(move |look, waited| {
            let mut rows = Vec::new();
            let read = |format, value: &[u8]| values(format, value, &columns).map(|row| vec![row]);
            look.each(&topic, Timestamp(i64::MIN), waited, read, |row| rows.push(row))?;
            Ok(rows)
        })
        .await
    }

    async fn doubled(&mut self, table: &SinkTable, before: Timestamp) -> Result<Vec<Doubled>> {
        let topic = table.name.clone();
        self.look(move |look, waited| {
            let mut times: HashMap<(Stream, u64, i64), Vec<i64>> = HashMap::new();
            look.each(&topic, Timestamp(i64::MIN), waited, found, |found: Found| {
                if let Some(seq) = found.id.seq.filter(|_| found.id.ts_recv < before) {
                    times.entry((found.stream, seq, found.id.ts_event.0)).or_default().push(found.id.ts_recv.0);
                }
            })?;
            let doubled =
                times.into_iter().filter(|(_, times)| times.len() > 1).map(|((stream, seq, event), times)| {
                    let first = times.iter().copied().min().unwrap_or_default();
                    let row = RowId { seq: Some(seq), ts_event: Timestamp(event), ts_recv: Timestamp(first) };
                    let moments = times.iter().collect::<HashSet<_>>().len() as u64;
                    Doubled { stream, row, rows: times.len() as u64, moments }
                });
            Ok(doubled.collect())
        })
        .await
    }
}

impl Look {
    /// Shows each row of a topic whose message is not older than `since`; false if there is no such topic.
    fn each<R>(
        &mut self,
        topic: &str,
        since: Timestamp,
        waited: &Waited,
        read: impl Fn(Format, &[u8]) -> Option<Vec<R>>,
        mut show: impl FnMut(R),
    ) -> Result<bool> {
        let extents = match self.extents.get(topic) {
            Some(extents) => extents.clone(),
            None => {
                let Some(partitions) = self.reader.partitions(topic)? else { return Ok(false) };
                let extents = partitions.into_iter().map(|partition| self.reader.settled(topic, partition, waited));
                let extents: Vec<_> = extents.collect::<Result<_>>()?;
                self.extents.insert(topic.to_owned(), extents.clone());
                extents
            }
        };
        let stretches =
            if since.0 > 0 { self.reader.since(topic, &extents, since.0.div_euclid(1_000_000))? } else { extents };
        let (format, upto) = (self.format, self.upto);
        self.reader.read(topic, &stretches, waited, |message| {
            // Whoever else writes to the topic has no such header, and is none of ours.
            if offset(message).is_none_or(|offset| offset > upto) {
                return Ok(());
            }
            let value = message.payload().unwrap_or_default();
            let rows = read(format, value);
            let unreadable =
                || format!("offset {} of partition {} of `{topic}`", message.offset(), message.partition());
            let rows = rows.ok_or_else(|| Error::permanent(format!("{} is no row of ours", unreadable())))?;
            rows.into_iter().for_each(&mut show);
            Ok(())
        })?;
        Ok(true)
    }
}

/// Returns the offset in the spool that a message came from.
fn offset(message: &BorrowedMessage<'_>) -> Option<u64> {
    let position = message.headers()?.iter().find(|header| header.key == "tg_position")?;
    let text = std::str::from_utf8(position.value?).ok()?;
    text.split('.').nth(1)?.parse().ok()
}

fn found(format: Format, value: &[u8]) -> Option<Vec<Found>> {
    match format {
        Format::Json => json(value),
        Format::Arrow => arrow(value),
    }
}

/// Returns some columns of a row of JSON.
fn values(format: Format, value: &[u8], columns: &[String]) -> Option<Vec<Value>> {
    let row: Map<String, Value> = (format == Format::Json).then(|| serde_json::from_slice(value).ok())??;
    let column = |name: &String| match (name.as_str(), row.get(name)) {
        (_, None) => Some(Value::Null),
        ("ts_event" | "ts_recv", Some(value)) => time(value.as_str()?).map(|time| time.0.into()),
        (_, Some(value)) => Some(value.clone()),
    };
    columns.iter().map(column).collect()
}

fn json(value: &[u8]) -> Option<Vec<Found>> {
    #[derive(Deserialize)]
    struct Row {
        venue: String,
        symbol: String,
        seq: Option<u64>,
        ts_event: String,
        ts_recv: String,
        origin: String,
    }
    let row: Row = serde_json::from_slice(value).ok()?;
    let id = RowId { seq: row.seq, ts_event: time(&row.ts_event)?, ts_recv: time(&row.ts_recv)? };
    let stream = Stream { venue: row.venue, symbol: row.symbol };
    Some(vec![Found { stream, id, is_redriven: row.origin == "redrive" }])
}

/// Counts the rows of a message.
fn rows_in(format: Format, value: &[u8]) -> Option<Vec<u64>> {
    match format {
        Format::Json => Some(vec![1]),
        Format::Arrow => Some(batches(value)?.iter().map(|batch| batch.num_rows() as u64).collect()),
    }
}

fn batches(value: &[u8]) -> Option<Vec<RecordBatch>> {
    StreamReader::try_new(value, None).ok()?.collect::<Result<_, _>>().ok()
}

fn arrow(value: &[u8]) -> Option<Vec<Found>> {
    let mut found = Vec::new();
    for batch in batches(value)? {
        for row in 0..batch.num_rows() {
            let id = RowId {
                seq: number(&batch, row),
                ts_event: moment(&batch, "ts_event", row)?,
                ts_recv: moment(&batch, "ts_recv", row)?,
            };
            let stream = Stream { venue: text(&batch, "venue", row)?, symbol: text(&batch, "symbol", row)? };
            found.push(Found { stream, id, is_redriven: text(&batch, "origin", row)? == "redrive" });
        }
    }
    Some(found)
}

fn text(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let column = ColumnView::of(batch.column_by_name(name)?);
    if let ColumnView::Text(texts) = column { Some(texts.value(row).to_owned()) } else { None }
}

fn moment(batch: &RecordBatch, name: &str, row: usize) -> Option<Timestamp> {
    let column = ColumnView::of(batch.column_by_name(name)?);
    if let ColumnView::Time(times) = column { Some(Timestamp(times.value(row))) } else { None }
}

fn number(batch: &RecordBatch, row: usize) -> Option<u64> {
    let column = ColumnView::of(batch.column_by_name("seq")?);
    if column.is_null(row) {
        return None;
    }
    if let ColumnView::U64(numbers) = column { Some(numbers.value(row)) } else { None }
}

/// Reads UTC nanoseconds as [`write_time`](tidegate_core::chunk::write_time) writes them.
fn time(text: &str) -> Option<Timestamp> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    if text.len() != 30 {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Howard Hinnant's civil → days, the other way round than `write_time`.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = days * 86_400 + number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?;
    let nanoseconds = i128::from(seconds) * 1_000_000_000 + i128::from(number(20..29)?);
    i64::try_from(nanoseconds).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use tidegate_core::chunk::write_time;

    use super::*;

    #[test]
    fn a_time_is_read_as_it_was_written() {
        for nanoseconds in [i64::MIN, -1, 0, 1, 951_782_400_000_000_000, 1_764_201_600_123_456_789, i64::MAX] {
            let mut text = Vec::new();
            write_time(nanoseconds, &mut text);
            assert_eq!(time(std::str::from_utf8(&text).unwrap()), Some(Timestamp(nanoseconds)));
        }
    }
}
