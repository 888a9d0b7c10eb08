//! Everything in a spool, item by item, as text or JSON lines.

use std::{io::Write, path::Path, sync::Arc};

use serde_json::{Map, Value, json};

use super::{Opened, hex};
use crate::{
    Error, Result,
    row::{Origin, Position},
    spool::{
        Control, EntryView, Item, RowHead, SourceInfo, SpoolPosition, SpoolReader, Step, StreamInfo,
        disk::{Disk, RealDisk},
        shared::Shared,
    },
};

/// How a dump is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpFormat {
    /// A line for each item, to be read.
    Text,
    /// A JSON object for each item, one a line.
    Json,
}

/// Writes every item, in order, to `out`.
///
/// # Errors
///
/// `Config` when there is no spool, or a process has it; `Transient` when the disk fails or `out` takes no more.
pub fn dump(directory: &Path, format: DumpFormat, out: &mut dyn Write) -> Result<()> {
    let (disk, _lock) = RealDisk::stopped(directory)?;
    dump_disk(Arc::new(disk), format, out)
}

pub(in crate::spool) fn dump_disk(disk: Arc<dyn Disk>, format: DumpFormat, out: &mut dyn Write) -> Result<()> {
    let opened = Opened::read(&*disk)?;
    let shared = Arc::new(opened.share(disk)?);
    let reader = SpoolReader::new(shared.clone());
    let from = SpoolPosition { offset: shared.read().oldest().offset, ..SpoolPosition::START };
    let mut cursor = reader.cursor(from);
    loop {
        let lines = match cursor.next(u64::MAX)? {
            None => return Ok(()),
            Some(Step::Missing { first, last }) => vec![json!({ "missing": { "first": first, "last": last } })],
            Some(Step::Entry(entry)) => entry_lines(&shared, &entry),
        };
        for line in &lines {
            let written = match format {
                DumpFormat::Json => writeln!(out, "{line}"),
                DumpFormat::Text => writeln!(out, "{}", text(line)),
            };
            written.map_err(|cause| Error::transient("cannot write the dump").because(cause))?;
        }
    }
}

fn entry_lines(shared: &Shared, entry: &EntryView<'_>) -> Vec<Value> {
    let mut items = entry.items();
    let mut lines = Vec::new();
    for (offset, item) in items.by_ref() {
        let mut line = Map::new();
        line.insert("offset".to_owned(), offset.into());
        line.insert("boot".to_owned(), hex(entry.boot.0).into());
        match item {
            Item::Row(head, bytes) => row_line(shared, &mut line, entry.sources, &head, bytes),
            Item::Control(control) => {
                if let Control::Stream { id, source, key } = &control {
                    shared.write().name(*id, StreamInfo { source: source.as_str().into(), key: key.clone() });
                }
                if let Control::Redrive { sink, cause, head, row } = &control {
                    let cause = json!({ "boot": hex(cause.boot.0), "offset": cause.offset, "sub": cause.sub });
                    line.insert("redrive".to_owned(), json!({ "sink": sink, "cause": cause }));
                    row_line(shared, &mut line, entry.sources, head, row);
                    lines.push(Value::Object(line));
                    continue;
                }
                let control = serde_json::to_value(&control).unwrap_or_else(|error| error.to_string().into());
                line.insert("control".to_owned(), control);
            }
        }
        lines.push(Value::Object(line));
    }
    if items.left() > 0 {
        lines.push(json!({ "unreadable": { "items": items.left(), "last": entry.last } }));
    }
    lines
}

fn row_line(shared: &Shared, line: &mut Map<String, Value>, sources: &[SourceInfo], row: &RowHead, bytes: &[u8]) {
    let head = &row.head;
    let stream = shared.read().streams.get(&head.stream).cloned();
    let mut put = |name: &str, value: Value| {
        line.insert(name.to_owned(), value);
    };
    put("stream", head.stream.into());
    put("session", row.session.into());
    put("line", row.line.into());
    put("epoch", row.epoch.into());
    put("ts_event", head.ts_event.0.into());
    put("ts_recv", head.ts_recv.0.into());
    put("seq", head.position.number().into());
    if let Position::Linked { prev, .. } = head.position {
        put("prev_seq", prev.into());
    }
    put("origin", Origin::NAMES[head.origin as usize].into());
    let Some(stream) = stream else { return put("bytes", bytes.len().into()) };
    put("source", (*stream.source).into());
    put("table", (*stream.key.table).into());
    put("symbol", (*stream.key.symbol).into());
    let source = sources.iter().find(|source| source.name == stream.source);
    let table = source.and_then(|source| source.tables.iter().find(|table| table.name == stream.key.table));
    match table.and_then(|table| table.read(bytes)) {
        Some(columns) => put("row", columns.into_iter().map(|(name, value)| (name.to_string(), value)).collect()),
        None => put("bytes", bytes.len().into()),
    }
}

/// One line for a person: the offset, then what is behind it.
fn text(line: &Value) -> String {
    let Value::Object(fields) = line else { return line.to_string() };
    let mut words = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        words.push(value.as_str().map_or_else(|| format!("{name}={value}"), |text| format!("{name}={text}")));
    }
    words.join(" ")
}
