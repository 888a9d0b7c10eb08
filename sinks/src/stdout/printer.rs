//! Chunks as text.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use tidegate_core::chunk::{Chunk, ColumnView, JsonRows, write_value};

use super::Format;

/// Turns chunks into text, in one of the three formats.
#[derive(Debug)]
pub(super) struct Printer {
    format: Format,
    /// The tables' names.
    tables: Vec<String>,
    /// The columns of each table, by their number, that any row had so far, and how wide.
    widths: Vec<BTreeMap<usize, usize>>,
    /// The table whose names stand above.
    heading: Option<usize>,
    /// How many rows came since.
    rows_below: usize,
}

impl Printer {
    pub(super) fn new(format: Format, tables: Vec<String>) -> Self {
        let widths = vec![BTreeMap::new(); tables.len()];
        Self { format, tables, widths, heading: None, rows_below: 0 }
    }

    /// Returns the chunk as text.
    pub(super) fn print(&mut self, chunk: &Chunk) -> Vec<u8> {
        let mut text = Vec::new();
        for part in &chunk.tables {
            match self.format {
                Format::Auto | Format::Json => self.json(part.table, &part.rows, &mut text),
                Format::Csv => self.csv(part.table, &part.rows, &mut text),
                Format::Table => self.aligned(part.table, &part.rows, &mut text),
            }
        }
        text
    }

    fn json(&self, table: usize, batch: &RecordBatch, text: &mut Vec<u8>) {
        let table = serde_json::to_string(&self.tables[table]).unwrap_or_default();
        let rows = JsonRows::new(batch);
        for row in 0..batch.num_rows() {
            text.extend_from_slice(b"{\"table\":");
            text.extend_from_slice(table.as_bytes());
            let start = text.len();
            rows.write(row, text);
            // The row's own brace becomes the comma between the two.
            text[start] = b',';
            text.push(b'\n');
        }
    }

    fn csv(&mut self, table: usize, batch: &RecordBatch, text: &mut Vec<u8>) {
        if self.heading.replace(table) != Some(table) {
            let names = batch.schema_ref().fields().iter().map(|field| field.name().as_bytes());
            text.extend_from_slice(b"table,");
            text.extend_from_slice(&names.collect::<Vec<_>>().join(&b','));
            text.push(b'\n');
        }
        let columns: Vec<ColumnView<'_>> = batch.columns().iter().map(ColumnView::of).collect();
        for row in 0..batch.num_rows() {
            write_field(self.tables[table].as_bytes(), text);
            for column in &columns {
                text.push(b',');
                write_field(plain(column, row).as_bytes(), text);
            }
            text.push(b'\n');
        }
    }

    /// Prints columns as wide as they ever were, so that rows of later chunks stand under those of earlier ones.
    fn aligned(&mut self, table: usize, batch: &RecordBatch, text: &mut Vec<u8>) {
        let schema = batch.schema_ref();
        let views: Vec<ColumnView<'_>> = batch.columns().iter().map(ColumnView::of).collect();
        let is_number = |n: usize| matches!(views[n], ColumnView::F64(_) | ColumnView::I64(_) | ColumnView::U64(_));
        let widths = &mut self.widths[table];
        let (mut columns, mut have_grown) = (Vec::new(), false);
        for (n, (field, column)) in schema.fields().iter().zip(batch.columns()).enumerate() {
            let has_values = column.null_count() < column.len();
            if HIDDEN.contains(&field.name().as_str()) || !(has_values || widths.contains_key(&n)) {
                continue;
            }
            let cells: Vec<String> = (0..batch.num_rows()).map(|row| shown(&views[n], row)).collect();
            let width = cells.iter().map(|cell| cell.chars().count()).chain([field.name().len()]).max().unwrap_or(0);
            let widest = widths.entry(n).or_insert(0);
            have_grown |= width > *widest;
            *widest = width.max(*widest);
            columns.push((field.name().as_str(), cells, *widest, is_number(n)));
        }
        let other_table = self.heading.replace(table) != Some(table);
        if other_table {
            text.extend_from_slice(self.tables[table].as_bytes());
            text.push(b'\n');
        }
        let mut names_are_due = other_table || have_grown;
        for row in 0..batch.num_rows() {
            if names_are_due || self.rows_below == NAMES_EVERY {
                write_line(columns.iter().map(|(name, _, width, right)| (*name, *width, *right)), text);
                (names_are_due, self.rows_below) = (false, 0);
            }
            write_line(columns.iter().map(|(_, cells, width, right)| (&*cells[row], *width, *right)), text);
            self.rows_below += 1;
        }
    }
}

/// Writes cells side by side, each so wide, numbers to the right.
fn write_line<'a>(cells: impl Iterator<Item = (&'a str, usize, bool)>, text: &mut Vec<u8>) {
    let cells =
        cells.map(|(cell, width, right)| if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
    let line = cells.collect::<Vec<_>>().join("  ");
    text.extend_from_slice(line.trim_end().as_bytes());
    text.push(b'\n');
}

/// Returns a value as JSON has it, without quotes around a text; empty where there is none.
fn plain(column: &ColumnView<'_>, row: usize) -> String {
    if column.is_null(row) {
        return String::new();
    }
    if let ColumnView::Text(texts) = column {
        return texts.value(row).to_owned();
    }
    if let ColumnView::Label(keys, texts) = column {
        return texts.value(keys.value(row) as usize).to_owned();
    }
    let mut text = Vec::new();
    write_value(column, row, &mut text);
    String::from_utf8_lossy(&text).trim_matches('"').to_owned()
}

/// Returns a value for a person: no control characters, which could do anything to the terminal, and nothing endless.
fn shown(column: &ColumnView<'_>, row: usize) -> String {
    let plain = plain(column, row);
    let mut shown: String = plain.chars().map(|c| if c.is_control() { '·' } else { c }).take(WIDEST).collect();
    if plain.chars().nth(WIDEST).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

fn write_field(field: &[u8], text: &mut Vec<u8>) {
    if !field.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        return text.extend_from_slice(field);
    }
    text.push(b'"');
    for byte in field {
        if *byte == b'"' {
            text.push(b'"');
        }
        text.push(*byte);
    }
    text.push(b'"');
}

/// Columns that a person at a terminal does not miss.
const HIDDEN: [&str; 3] = ["ts_recv", "venue", "origin"];

/// The widest cell for a person.
const WIDEST: usize = 40;

/// How many rows stand under the names before they come again: about a screen.
const NAMES_EVERY: usize = 50;

#[cfg(test)]
mod tests {
    use tidegate_core::{
        row::{Label, Mark, Position, Table, Timestamp, kinds::Trade},
        testkit::MemoryLog,
    };

    use super::*;

    #[test]
    fn json_has_the_table_and_every_value() {
        let text = print(Format::Json);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&lines[0]["table"], &lines[0]["price"], &lines[0]["seq"]),
            (&"trades".into(), &1.5.into(), &7.into())
        );
        assert_eq!(lines[1]["id"], "a,\"b\"\n\u{1b}[31m");
        assert_eq!(lines[0]["ts_event"], "1970-01-01T00:00:00.000000001Z");
    }

    #[test]
    fn csv_quotes_what_has_to_be_and_names_the_columns_once() {
        let text = print(Format::Csv);
        assert!(text.starts_with("table,ts_event,ts_recv,venue,symbol,seq,origin,price,size,side,id,"), "{text}");
        assert!(text.contains("trades,1970-01-01T00:00:00.000000001Z,"), "{text}");
        assert!(text.contains(",\"a,\"\"b\"\"\n\u{1b}[31m\","), "{text}");
        assert_eq!(text.matches("table,ts_event").count(), 1);
    }

    #[test]
    fn aligned_columns_leave_out_what_nobody_has_and_what_would_move_the_cursor() {
        let text = print(Format::Table);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "trades");
        assert!(lines[1].contains("price") && !lines[1].contains("iv") && !lines[1].contains("venue"), "{text}");
        assert!(!text.contains('\u{1b}'), "no control characters");
        let column = lines[1].find("price").unwrap() + "price".len();
        assert!(lines[2][..column].ends_with("  1.5") && lines[3][..column].ends_with("20.25"), "{text}");
    }

    #[test]
    fn aligned_columns_stay_where_they_are_from_chunk_to_chunk() {
        let log = MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>()]);
        let mark = Mark { symbol: "X", position: Position::Unnumbered, ts_event: Timestamp(1) };
        let mut printer = Printer::new(Format::Table, vec!["trades".to_owned()]);
        let mut print = |trade: Trade<'_>| {
            let at = log.emit(mark, &trade);
            String::from_utf8(printer.print(&log.chunk(at - 1, at))).unwrap()
        };
        let first = print(Trade { price: 1_234.5, ..Trade::default() });
        assert_eq!(first.lines().count(), 3, "table, names, row: {first}");
        let end = first.lines().nth(1).unwrap().find("price").unwrap() + "price".len();
        let second = print(Trade { price: 7.0, ..Trade::default() });
        assert_eq!(second.lines().count(), 1, "no names: {second}");
        assert!(second[..end].ends_with("   7.0"), "{first}{second}");
        assert!(print(Trade { price: 1_234_567.25, ..Trade::default() }).contains("price"), "a width grew");
        let with_id = print(Trade { id: Some("a"), ..Trade::default() });
        assert!(with_id.contains("id") && with_id.lines().count() == 2, "a column came: {with_id}");
        assert_eq!(print(Trade::default()).lines().count(), 1, "and is still there");
        let rest: String = (0..100).map(|_| print(Trade::default())).collect();
        assert_eq!(rest.matches("price").count(), 2, "once in {NAMES_EVERY} rows:\n{rest}");
    }

    fn print(format: Format) -> String {
        let log = MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>()]);
        let mark = Mark { symbol: "X", position: Position::Sequence(7), ts_event: Timestamp(1) };
        log.emit(mark, &Trade { price: 1.5, side: Some(Label("buy")), ..Trade::default() });
        log.emit(mark, &Trade { price: 20.25, id: Some("a,\"b\"\n\u{1b}[31m"), ..Trade::default() });
        let text = Printer::new(format, vec!["trades".to_owned()]).print(&log.chunk(0, 2));
        String::from_utf8(text).unwrap()
    }
}
