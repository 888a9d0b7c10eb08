//! What a key makes of the rows that are on their way: how many have the values of another one, and would be merged with it,
//! left out or refused.
//!
//! Rows are remembered as hashes of 64 bits, by so many at a time: two windows, of which the older one goes when the newer
//! is full. So memory has a bound, and equal rows that are farther apart than a window may not be seen: the number is what
//! there is at least. Costs nothing where no key is declared, and no allocation for a row.

use std::{collections::HashSet, fmt, hash::BuildHasher as _};

use arrow_array::Array;
use foldhash::fast::FixedState;

use crate::{
    chunk::{ColumnView, SinkTable, TableRows, write_value},
    config::OnConflict,
    own,
    sink::UniqueKey,
};

/// The keys of one sink's tables, and what was seen of them.
#[derive(Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
    /// Rows up to this offset were seen: after an error they come again.
    upto: u64,
    hashes: Vec<Option<u64>>,
    text: Vec<u8>,
}

#[derive(Debug)]
struct Key {
    table: usize,
    /// Columns of the chunk.
    columns: Vec<usize>,
    seen: Window,
    measured: Measured,
}

/// What a key makes of the rows that were seen.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Measured {
    /// The table, as it is called in the store.
    pub table: String,
    /// The columns of the key.
    pub key: Vec<String>,
    /// What becomes of a row whose key is there already.
    pub effect: Effect,
    /// Rows that were seen.
    pub rows: u64,
    /// Rows whose key another one had before.
    pub repeated: u64,
    /// Rows without a value in a column of the key.
    pub absent: u64,
}

/// What becomes of a row whose key is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It takes the other's place.
    Merge,
    /// It is left out.
    LeaveOut,
    /// It becomes a dead letter.
    Refuse,
}

/// The newest hashes.
#[derive(Debug, Default)]
struct Window {
    newer: HashSet<u64, FixedState>,
    older: HashSet<u64, FixedState>,
}

impl Keys {
    /// Sets which keys there are: those that the tables declare, and those that were found in the store. What was seen of a
    /// key that was there before stays.
    pub fn plan(&mut self, tables: &[SinkTable], found: &[UniqueKey]) {
        let mut known = std::mem::take(&mut self.keys);
        for (number, table) in tables.iter().enumerate() {
            // Their newer rows are meant to take the place of older ones.
            let declared = (!table.key.is_empty() && !own::has_key(&table.table.name)).then_some(&table.key);
            let found = found.iter().filter(|found| found.table == table.name).map(|found| &found.columns);
            for key in declared.into_iter().chain(found) {
                let schema = table.table.schema();
                let column =
                    |name: &String| schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name));
                // A column that we do not write has values of its own: nothing can be said.
                let Some(columns) = key.iter().map(column).collect::<Option<Vec<_>>>() else { continue };
                if self.keys.iter().any(|known| known.table == number && known.columns == columns) {
                    continue;
                }
                let is_known = |known: &Key| known.measured.table == table.name && known.measured.key == *key;
                let at = known.iter().position(is_known);
                let mut of_key = at.map_or_else(|| Key::new(table, key), |at| known.swap_remove(at));
                (of_key.table, of_key.columns) = (number, columns);
                self.keys.push(of_key);
            }
        }
    }

    /// Looks at the rows of a chunk; those that it saw before do not count again.
    pub fn see(&mut self, tables: &[TableRows]) {
        if self.keys.is_empty() {
            return;
        }
        let mut last = self.upto;
        for part in tables {
            let first = part.causes.partition_point(|cause| cause.offset <= self.upto);
            last = last.max(part.causes.last().map_or(0, |cause| cause.offset));
            for key in self.keys.iter_mut().filter(|key| key.table == part.table) {
                self.hashes.clear();
                self.hashes.resize(part.causes.len() - first, Some(SEED));
                for column in &key.columns {
                    let column = ColumnView::of(part.rows.column(*column));
                    mix_column(&column, first, &mut self.hashes, &mut self.text);
                }
                key.count(&self.hashes);
            }
        }
        self.upto = last;
    }

    /// Returns what the keys made of the rows so far.
    pub fn measured(&self) -> impl Iterator<Item = &Measured> {
        self.keys.iter().map(|key| &key.measured)
    }
}

impl Key {
    fn new(table: &SinkTable, key: &[String]) -> Self {
        let effect = match table.on_conflict {
            OnConflict::Replace => Effect::Merge,
            OnConflict::Ignore => Effect::LeaveOut,
            // A row beside another one with its key is what a unique index does not let in.
            OnConflict::Refuse | OnConflict::Append => Effect::Refuse,
        };
        let (table, key) = (table.name.clone(), key.to_vec());
        let measured = Measured { table, key, effect, rows: 0, repeated: 0, absent: 0 };
        Self { table: 0, columns: Vec::new(), seen: Window::default(), measured }
    }

    fn count(&mut self, hashes: &[Option<u64>]) {
        self.measured.rows += hashes.len() as u64;
        for hash in hashes {
            match hash {
                // No two rows are equal in what they do not have.
                None => self.measured.absent += 1,
                Some(hash) => self.measured.repeated += u64::from(!self.seen.is_new(*hash)),
            }
        }
    }
}

impl Window {
    fn is_new(&mut self, hash: u64) -> bool {
        if self.newer.contains(&hash) {
            return false;
        }
        if self.newer.len() >= WINDOW {
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        self.newer.insert(hash);
        !self.older.contains(&hash)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, key, effect, rows, repeated, absent } = self;
        let (key, effect) = (
            key.join(", "),
            match effect {
                Effect::Merge => "merge",
                Effect::LeaveOut => "leave out",
                Effect::Refuse => "refuse",
            },
        );
        write!(f, "key ({key}) of table `{table}` would {effect} ")?;
        if *repeated == 0 {
            write!(f, "none of {rows} rows")?;
        } else {
            let percent = *repeated as f64 * 100.0 / *rows as f64;
            let percent = if percent < 0.1 { "less than 0.1".to_owned() } else { format!("{percent:.1}") };
            write!(f, "{percent} % of these rows: {repeated} of {rows}")?;
        }
        if *absent > 0 {
            write!(f, "; {absent} have no value in it")?;
        }
        if *rows > WINDOW as u64 {
            write!(f, "; equal rows that are more than {WINDOW} apart are not counted")?;
        }
        Ok(())
    }
}

/// Mixes the values of a column, from row `first` on, into the hashes of the rows.
fn mix_column(column: &ColumnView<'_>, first: usize, hashes: &mut [Option<u64>], text: &mut Vec<u8>) {
    let labels: Vec<u64> = match column {
        ColumnView::Label(_, texts) => (0..texts.len()).map(|n| hash_of(texts.value(n).as_bytes())).collect(),
        ColumnView::Bool(_)
        | ColumnView::I64(_)
        | ColumnView::U64(_)
        | ColumnView::F64(_)
        | ColumnView::Text(_)
        | ColumnView::Time(_)
        | ColumnView::Levels(_)
        | ColumnView::ListI64(_) => Vec::new(),
    };
    for (n, hash) in hashes.iter_mut().enumerate() {
        let row = first + n;
        if column.is_null(row) {
            *hash = None;
        }
        let Some(hash) = hash else { continue };
        let value = match column {
            ColumnView::Bool(column) => u64::from(column.value(row)),
            ColumnView::I64(column) => column.value(row).cast_unsigned(),
            ColumnView::U64(column) => column.value(row),
            // 0 and -0 are equal.
            ColumnView::F64(column) => (column.value(row) + 0.0).to_bits(),
            ColumnView::Time(column) => column.value(row).cast_unsigned(),
            ColumnView::Text(column) => hash_of(column.value(row).as_bytes()),
            ColumnView::Label(keys, _) => labels.get(keys.value(row) as usize).copied().unwrap_or_default(),
            ColumnView::Levels(_) | ColumnView::ListI64(_) => {
                text.clear();
                write_value(column, row, text);
                hash_of(text)
            }
        };
        *hash = mix(*hash, value);
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    HASHER.hash_one(bytes)
}

fn mix(hash: u64, value: u64) -> u64 {
    HASHER.hash_one((hash, value))
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const HASHER: FixedState = FixedState::with_seed(SEED);

/// How many hashes one window holds: two of them are about 9 MiB for each key.
const WINDOW: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        row::{Label, Mark, Position, Table, Timestamp, kinds::Trade},
        testkit::MemoryLog,
    };

    #[test]
    fn rows_that_are_equal_in_the_key_are_counted_once_each() {
        let bench = Bench::new(&["ts_event", "symbol", "side"], OnConflict::Replace);
        for (time, side, price) in [(1, "buy", 1.0), (1, "sell", 1.0), (1, "buy", 2.0), (2, "buy", 2.0)] {
            bench.trade(time, Some(side), price);
        }
        bench.trade(2, None, 1.0);
        bench.trade(2, None, 1.0);
        let mut keys = bench.keys();
        keys.see(&bench.log.chunk(0, 3).tables);
        keys.see(&bench.log.chunk(3, 6).tables);
        // After an error the same rows come again, in other chunks.
        keys.see(&bench.log.chunk(1, 5).tables);
        let text = keys.measured().next().unwrap().to_string();
        assert_eq!(
            text,
            "key (ts_event, symbol, side) of table `trades` would merge 16.7 % of these rows: 1 of 6; 2 have no value in it"
        );
    }

    #[test]
    fn a_key_that_was_found_in_the_store_is_measured_too_and_what_was_seen_stays_over_an_opening() {
        let bench = Bench::new(&[], OnConflict::Append);
        let found = [
            UniqueKey { table: "trades".to_owned(), columns: vec!["PRICE".to_owned()] },
            UniqueKey { table: "trades".to_owned(), columns: vec!["id_of_theirs".to_owned()] },
        ];
        let mut keys = Keys::default();
        keys.plan(&bench.tables(), &found);
        for price in [0.0, -0.0, 1.0] {
            bench.trade(1, None, price);
        }
        keys.see(&bench.log.chunk(0, 2).tables);
        keys.plan(&bench.tables(), &found);
        keys.see(&bench.log.chunk(2, 3).tables);
        let measured: Vec<String> = keys.measured().map(ToString::to_string).collect();
        assert_eq!(measured, ["key (PRICE) of table `trades` would refuse 33.3 % of these rows: 1 of 3"]);
    }

    #[test]
    fn memory_has_a_bound_and_what_is_not_seen_for_it_is_said() {
        let mut window = Window::default();
        let rows = 3 * WINDOW as u64;
        assert!((0..rows).all(|n| window.is_new(n)));
        assert!(window.newer.len() <= WINDOW && window.older.len() <= WINDOW);
        assert!(!window.is_new(rows - WINDOW as u64), "a window back");
        assert!(window.is_new(0), "too far back");
        let (table, key) = ("t".to_owned(), vec!["k".to_owned()]);
        let measured = Measured { table, key, effect: Effect::LeaveOut, rows, repeated: 1, absent: 0 };
        assert!(measured.to_string().contains("would leave out less than 0.1 % of these rows: 1 of 786432;"));
        assert!(measured.to_string().ends_with("equal rows that are more than 262144 apart are not counted"));
    }

    #[test]
    fn texts_that_differ_anywhere_have_hashes_that_differ() {
        let texts = ["", "\0", "a", "b", "a\0", "12345678", "123456780", "12345678\0", "ab", "ba"];
        let hashes: HashSet<u64> = texts.iter().map(|text| hash_of(text.as_bytes())).collect();
        assert_eq!(hashes.len(), texts.len());
    }

    struct Bench {
        log: MemoryLog,
        key: Vec<String>,
        on_conflict: OnConflict,
    }

    impl Bench {
        fn new(key: &[&str], on_conflict: OnConflict) -> Self {
            let log = MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>()]);
            Self { log, key: key.iter().map(|&column| column.to_owned()).collect(), on_conflict }
        }

        fn tables(&self) -> Vec<SinkTable> {
            let mut tables = self.log.context(std::path::Path::new(".")).tables;
            (tables[0].key, tables[0].on_conflict) = (self.key.clone(), self.on_conflict);
            tables
        }

        fn keys(&self) -> Keys {
            let mut keys = Keys::default();
            keys.plan(&self.tables(), &[]);
            keys
        }

        fn trade(&self, time: i64, side: Option<&str>, price: f64) {
            let mark = Mark { symbol: "ETH", position: Position::Unnumbered, ts_event: Timestamp(time) };
            self.log.emit(mark, &Trade { price, side: side.map(Label), ..Trade::default() });
        }
    }
}
