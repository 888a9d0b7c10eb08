//! Derived tables between the cursor and the sink: what becomes of each offset, wherever chunks are cut.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{
    super::{
        balance::Fates,
        feeder::{Bounds, Feeder, Read, Wanted},
    },
    quote,
};
use crate::{
    Error,
    chunk::JsonRows,
    config::TableChoice,
    deadletter::DeadLetter,
    row::{
        Label, Mark, Position, Table, Timestamp,
        kinds::{Quote, Trade},
    },
    sink::Refusal,
    spool::{Cause, SpoolPosition},
    table::{Definition, Derived},
    testkit::MemoryLog,
};

/// All rows of each table with their causes, what became of the offsets, and the dead letters.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    rows: BTreeMap<String, Vec<(Cause, String)>>,
    fates: Fates,
    letters: BTreeMap<(u64, u32), (String, String, String)>,
}

#[test]
fn what_comes_out_does_not_depend_on_where_chunks_are_cut() {
    let log = random_log(700);
    let derived = || {
        Derived::new(vec![
            Definition::of("big", "trades", "price * size >= 40", ""),
            Definition::of(
                "sells",
                "big",
                "side = 'sell'",
                "ts_event as timestamp, symbol, price * size as value, upper(side) as side",
            ),
            Definition::of(
                "ratios",
                "trades",
                "size <> 3",
                "ts_event, price / size as ratio, case when price > 5 then 'high' else 'low' end as level",
            ),
            Definition::of(
                "spreads",
                "quotes",
                "ask_price - bid_price > 1",
                "ts_event, ask_price - bid_price as spread",
            ),
        ])
    };
    let whole = run(&log, &derived(), TableChoice::All, 100_000);
    assert_eq!(whole.fates.offsets(), 700);
    assert!(whole.letters.len() > 20 && whole.rows["sells"].len() > 20 && whole.rows["spreads"].len() > 20);
    assert_eq!(whole.rows.len(), 6, "both tables of the source, and four that are made of them");
    for rows in [1, 2, 3, 5, 8, 13, 100, 699] {
        assert_eq!(run(&log, &derived(), TableChoice::All, rows), whole, "{rows} rows in a chunk");
    }
    let only: TableChoice = serde_json::from_str(r#"["sells", "ratios"]"#).unwrap();
    let whole = run(&log, &derived(), only.clone(), 100_000);
    assert!(whole.fates.filtered > 200, "quotes, and trades that no table takes: {:?}", whole.fates);
    for rows in [1, 4, 50] {
        assert_eq!(run(&log, &derived(), only.clone(), rows), whole, "{rows} rows in a chunk");
    }
}

#[test]
fn each_offset_has_one_fate_whatever_is_made_of_its_row() {
    let log = MemoryLog::new("test", vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()]);
    for (price, size) in [(10.0, 1.0), (1.0, 1.0), (7.0, 0.0), (20.0, 2.0)] {
        emit(&log, 1, price, size, "buy");
    }
    quote(&log, 5);
    let derived = Derived::new(vec![
        Definition::of("big", "trades", "price >= 5", ""),
        Definition::of("ratios", "trades", "", "ts_event, price / size as ratio"),
    ]);
    let fates = |tables: &str| run(&log, &derived, serde_json::from_str(tables).unwrap(), 10).fates;
    let of = |delivered, filtered, refused| Fates { delivered, filtered, refused, ..Fates::default() };
    assert_eq!(fates(r#"["big"]"#), of(3, 2, 0));
    assert_eq!(fates(r#"["ratios"]"#), of(3, 1, 1));
    assert_eq!(fates(r#"["big", "ratios"]"#), of(4, 1, 0), "what one table refuses another has");
    assert_eq!(fates(r#"["trades", "big", "ratios"]"#), of(4, 1, 0));
}

#[test]
fn a_row_without_a_value_is_a_dead_letter_of_its_table_and_the_source_s_row_is_in_it() {
    let log = MemoryLog::new("test", vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()]);
    emit(&log, 1, 7.0, 0.0, "buy");
    emit(&log, 2, 8.0, 2.0, "sell");
    let derived = Derived::new(vec![Definition::of("ratios", "trades", "", "ts_event as at, price / size as ratio")]);
    let mut feeder = feeder(&log, &derived, TableChoice::All, 10);
    let Ok(Read::Unfit(letters)) = feeder.read(SpoolPosition::START, 2) else { panic!("a row has no value") };
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((&*letter.table, &*letter.from, letter.table_of_row()), ("ratios", "trades", "trades"));
    assert_eq!((letter.offset, letter.sub), (1, derived.definitions()[0].sub()));
    assert_eq!(letter.error, "[table.ratios] `price / size`: division by zero");
    assert_eq!((&letter.row["size"], &letter.row["side"]), (&0.0.into(), &"buy".into()));
    feeder.leave_out(letters.iter().map(DeadLetter::cause));
    let Ok(Read::Range { portion, rows, .. }) = feeder.read(SpoolPosition::START, 2) else {
        panic!("the rest is fine")
    };
    assert_eq!((portion.fates.delivered, portion.fates.refused), (2, 0), "the raw table has it");
    let count = |name: &str| {
        let number = feeder.plan().tables().iter().position(|table| table.name == name).unwrap();
        rows.iter().find(|part| part.table == number).map_or(0, |part| part.causes.len())
    };
    assert_eq!((count("trades"), count("ratios")), (2, 1));
}

#[test]
fn what_a_store_refuses_of_a_derived_table_is_kept_as_the_row_that_it_was_made_of() {
    let log = MemoryLog::new("test", vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()]);
    for n in 1..=9 {
        emit(&log, n, n as f64, 2.0, "buy");
    }
    let derived =
        Derived::new(vec![Definition::of("big", "trades", "price > 4", "ts_event as at, price * size as value")]);
    let only: TableChoice = serde_json::from_str(r#"["big"]"#).unwrap();
    let mut feeder = feeder(&log, &derived, only, 100);
    let Ok(Read::Range { rows, .. }) = feeder.read(SpoolPosition::START, 9) else { panic!("all is fine") };
    let cause = rows[0].causes[2];
    assert_eq!((cause.offset, cause.sub), (7, derived.definitions()[0].sub()));
    let refusals = [Refusal { cause, table: 0, error: Error::malformed("too large") }];
    let offsets = feeder.derived_among(&refusals);
    let origins = feeder.origins(SpoolPosition::START, &offsets).unwrap();
    let letters = feeder.letters(&rows, &refusals, Timestamp(0), &origins).unwrap();
    assert_eq!((&letters[0].row["price"], &*letters[0].table), (&7.0.into(), "big"));
    feeder.leave_out([cause]);
    let Ok(Read::Range { rows, portion, .. }) = feeder.read(SpoolPosition::START, 9) else { panic!("all is fine") };
    assert_eq!((rows[0].causes.len(), portion.fates.refused, portion.fates.filtered), (4, 1, 4));
}

#[test]
fn a_change_of_an_expression_or_of_a_variable_in_it_is_another_chain() {
    let log = MemoryLog::new("test", vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()]);
    let chain = |condition: &str, selection: &str| {
        let derived = Derived::new(vec![
            Definition::of("big", "trades", condition, ""),
            Definition::of("bigger", "big", "", selection),
        ]);
        let only = serde_json::from_str(r#"["bigger"]"#).unwrap();
        feeder(&log, &derived, only, 10).plan().chain()
    };
    let one = chain("price > 4", "ts_event, price");
    assert_eq!(one, chain("price > 4", "ts_event, price"));
    assert_ne!(one, chain("price > 5", "ts_event, price"), "a table on the way");
    assert_ne!(one, chain("price > 4", "ts_event, price + 0 as price"));
    let plain = |derived| feeder(&log, &derived, serde_json::from_str(r#"["trades"]"#).unwrap(), 10).plan().chain();
    let other = Derived::new(vec![Definition::of("big", "trades", "price > 4", "")]);
    assert_eq!(plain(Derived::default()), plain(other), "a sink that does not take it has nothing to do with it");
}

#[test]
fn the_key_of_the_pipelines_own_table_stays_as_long_as_its_columns_do() {
    let source = || vec![crate::own::whole_source()];
    let plan = |selection: &str| {
        let derived = Derived::new(vec![Definition::of("gaps", "coverage", "state <> 'received'", selection)]);
        let only = serde_json::from_str(r#"["gaps"]"#).unwrap();
        crate::chunk::Plan::deriving("test", source(), only, derived).unwrap().tables()[0].clone()
    };
    let own = crate::own::key(&crate::own::table("coverage").unwrap());
    assert_eq!(plan("").key, own);
    let renamed = own.iter().map(|column| format!("{column} as my_{column}")).collect::<Vec<_>>().join(", ");
    let renamed = plan(&format!("ts_event as at, {renamed}"));
    assert_eq!(renamed.key, own.iter().map(|column| format!("my_{column}")).collect::<Vec<_>>());
    assert_eq!(renamed.on_conflict, crate::config::OnConflict::Replace);
    assert!(plan("ts_event, state").key.is_empty());
}

fn random_log(rows: u64) -> MemoryLog {
    let log = MemoryLog::new("test", vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()]);
    let mut state = 7_u64;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    for n in 1..=rows {
        if below(4) == 0 {
            let mark = Mark { symbol: "Q", position: Position::Unnumbered, ts_event: Timestamp(n.cast_signed()) };
            let price = |below: &mut dyn FnMut(u64) -> u64| (below(5) > 0).then(|| below(6) as f64);
            let (bid_price, ask_price) = (price(&mut below), price(&mut below));
            log.emit(mark, &Quote { bid_price, ask_price, ..Quote::default() });
        } else {
            let side = ["buy", "sell", ""][below(3) as usize];
            emit(&log, n, below(12) as f64, below(9) as f64, side);
        }
    }
    log
}

fn emit(log: &MemoryLog, n: u64, price: f64, size: f64, side: &str) -> u64 {
    let symbol = if n.is_multiple_of(3) { "X" } else { "Y" };
    let mark = Mark { symbol, position: Position::Ordered(n), ts_event: Timestamp(n.cast_signed()) };
    let side = (!side.is_empty()).then_some(Label(side));
    log.emit(mark, &Trade { price, size, side, ..Trade::default() })
}

fn feeder(log: &MemoryLog, derived: &Derived, tables: TableChoice, rows: usize) -> Feeder<MemoryLog> {
    let wanted = Wanted { tables, derived: derived.clone() };
    let bounds = Bounds { rows, bytes: usize::MAX };
    Feeder::new(log.clone(), "memory", "test", vec![log.source()], wanted, bounds).unwrap()
}

/// Reads the whole log in chunks of so many rows.
fn run(log: &MemoryLog, derived: &Derived, tables: TableChoice, rows: usize) -> Outcome {
    let mut feeder = feeder(log, derived, tables, rows);
    let last = log.synced().borrow().offset;
    let (mut outcome, mut at) = (Outcome::default(), SpoolPosition::START);
    let mut seen: HashSet<(usize, Cause)> = HashSet::new();
    while at.offset < last {
        match feeder.read(at, last).unwrap() {
            Read::Range { portion, rows: parts, .. } => {
                let fan_out = 4;
                assert!(
                    parts.iter().map(|part| part.causes.len()).sum::<usize>() <= rows.max(fan_out),
                    "a bound holds"
                );
                for part in parts {
                    assert_eq!(part.rows.num_rows(), part.causes.len());
                    assert_eq!(part.streams.len(), part.causes.len());
                    let name = feeder.plan().tables()[part.table].name.clone();
                    assert_eq!(part.rows.schema(), feeder.plan().tables()[part.table].table.schema());
                    let writer = JsonRows::new(&part.rows);
                    for (row, cause) in part.causes.iter().enumerate() {
                        let mut text = Vec::new();
                        writer.write(row, &mut text);
                        assert!(seen.insert((part.table, *cause)), "{name} has {cause} twice");
                        let rows = outcome.rows.entry(name.clone()).or_default();
                        rows.push((*cause, String::from_utf8(text).unwrap()));
                    }
                }
                outcome.fates.add(&portion.fates);
                at = portion.to;
                feeder.committed(at);
            }
            Read::Unfit(letters) => {
                let causes: BTreeSet<_> = letters.iter().map(|letter| (letter.offset, letter.sub)).collect();
                assert_eq!(causes.len(), letters.len());
                feeder.leave_out(letters.iter().map(DeadLetter::cause));
                for letter in letters {
                    let row = serde_json::Value::Object(letter.row).to_string();
                    outcome.letters.insert((letter.offset, letter.sub), (letter.table, letter.error, row));
                }
            }
            Read::Unreadable(_) | Read::Redrives(_) | Read::Replanned => panic!("nothing of this is in the log"),
        }
    }
    outcome
}
