//! Chunks as text.

use arrow_array::RecordBatch;
use tidegate_core::chunk::{Chunk, ColumnView, JsonRows, write_value};

use super::Format;

/// Turns chunks into text, in one of the three formats.
#[derive(Debug)]
pub(super) struct Printer {
    format: Format,
    /// The tables' names.
    tables: Vec<String>,
    /// The table whose names stand above.
    heading: Option<usize>,
}

impl Printer {
    pub(super) fn new(format: Format, tables: Vec<String>) -> Self {
        Self { format, tables, heading: None }
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

    fn aligned(&mut self, table: usize, batch: &RecordBatch, text: &mut Vec<u8>) {
        let mut columns = Vec::new();
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let view = ColumnView::of(column);
            if HIDDEN.contains(&field.name().as_str()) || column.null_count() == column.len() {
                continue;
            }
            let cells: Vec<String> = (0..batch.num_rows()).map(|row| shown(&view, row)).collect();
            let width = cells.iter().map(|cell| cell.chars().count()).chain([field.name().len()]).max().unwrap_or(0);
            let is_number = matches!(view, ColumnView::F64(_) | ColumnView::I64(_) | ColumnView::U64(_));
            columns.push((field.name().as_str(), cells, width, is_number));
        }
        let mut line = |cells: &mut dyn Iterator<Item = (&str, usize, bool)>| {
            let cells = cells.map(
                |(cell, width, is_number)| {
                    if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                },
            );
            let line = cells.collect::<Vec<_>>().join("  ");
            text.extend_from_slice(line.trim_end().as_bytes());
            text.push(b'\n');
        };
        if self.heading.replace(table) != Some(table) {
            line(&mut [(self.tables[table].as_str(), 0, false)].into_iter());
        }
        line(&mut columns.iter().map(|(name, _, width, is_number)| (*name, *width, *is_number)));
        for row in 0..batch.num_rows() {
            line(&mut columns.iter().map(|(_, cells, width, is_number)| (cells[row].as_str(), *width, *is_number)));
        }
    }
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

    fn print(format: Format) -> String {
        let log = MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>()]);
        let mark = Mark { symbol: "X", position: Position::Sequence(7), ts_event: Timestamp(1) };
        log.emit(mark, &Trade { price: 1.5, side: Some(Label("buy")), ..Trade::default() });
        log.emit(mark, &Trade { price: 20.25, id: Some("a,\"b\"\n\u{1b}[31m"), ..Trade::default() });
        let text = Printer::new(format, vec!["trades".to_owned()]).print(&log.chunk(0, 2));
        String::from_utf8(text).unwrap()
    }
}
