//! `where` and `select` of a derived table, beside the same Arrow kernels called by hand, in turn over the same chunks.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use arrow_arith::{boolean::and_kleene, numeric::mul};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int32Array, RecordBatch, Scalar, StringArray,
    TimestampNanosecondArray, UInt64Array, cast::AsArray, types::Int32Type,
};
use arrow_ord::cmp::{eq, gt_eq};
use arrow_select::filter::FilterBuilder;
use tidegate::config::{Environment, Files, load};
use tidegate_core::{chunk::Plan, row::kinds::Trade, spool::SourceInfo};

use crate::{
    clock::{Spent, Stopwatch},
    effort::Effort,
    table::{Table, at_least},
};

const CONDITION: &str = "price * size >= 50000 and side = 'buy'";
const SELECTION: &str =
    "ts_event as timestamp, symbol as instrument, price, size as amount, price * size as value, side";

/// Compares for chunks of several lengths, with and without rows that have no side.
pub(crate) fn run(effort: Effort) {
    let mut table = Table::new(&["rows in a chunk", "pass", "ours", "by hand", "ours / by hand"]);
    for rows in [64, 1_024, 8_192] {
        for (name, limit) in [("1 %", 490.0), ("half", 250.0), ("all", 0.0)] {
            let chunk = chunk(rows);
            let plan = plan(limit * 100.0);
            let times = (effort.frames * 20 / rows).max(2);
            let (mut ours, mut bare): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
            assert_eq!(plan.derive(0, &chunk), by_hand(&chunk, limit * 100.0, &plan), "both make the same rows");
            for _ in 0..effort.rounds.max(3) {
                ours.push(spent(times, || drop(black_box(plan.derive(0, black_box(&chunk))))));
                bare.push(spent(times, || drop(black_box(by_hand(black_box(&chunk), limit * 100.0, &plan)))));
            }
            let (ours, bare) = (median(ours), median(bare));
            let rate = |seconds: f64| format!("{:.1} M/s", (rows * times) as f64 / seconds / 1e6);
            table.line([rows.to_string(), name.to_owned(), rate(ours), rate(bare), at_least(bare / ours, 0.7)]);
        }
    }
    table.print(&format!("4. derived tables: where = \"{CONDITION}\" (other limits), six columns; thread CPU time"));
}

fn spent(times: usize, mut work: impl FnMut()) -> f64 {
    let watch = Stopwatch::of_this_thread();
    (0..times).for_each(|_| work());
    let Spent { cpu, .. } = watch.read();
    cpu.as_secs_f64()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Returns the plan of a sink that takes the derived table alone, as the program reads it.
fn plan(limit: f64) -> Plan {
    let condition = CONDITION.replace("50000", &limit.to_string());
    let text = format!(
        "[pipeline]\nname = \"bench\"\n[source.deribit]\ninstruments = [\"ETH\"]\nchannels = [\"trades\"]\n\
         [table.big]\nfrom = \"trades\"\nwhere = \"{condition}\"\nselect = \"{SELECTION}\"\n\
         [sink.stdout]\ntables = [\"big\"]\n"
    );
    let loaded = load(&tidegate::built_in(), Files::of_text("bench.toml", &text), &Environment::default());
    let pipeline = loaded.pipelines.into_iter().next().expect("nothing is wrong with the file");
    let tables = vec![Arc::new(tidegate_core::row::Table::of::<Trade<'_>>())];
    let source = SourceInfo { name: "deribit".into(), venue: "deribit".into(), tables };
    let wanted = pipeline.sinks[0].tables.clone();
    Plan::deriving("bench", vec![source], wanted, pipeline.derived).expect("the table goes with the source's")
}

/// Returns trades worth up to 50,000, a third of which have no side.
fn chunk(rows: usize) -> RecordBatch {
    let schema = tidegate_core::row::Table::of::<Trade<'_>>().schema();
    let labels = |names: &[&str], of: &dyn Fn(usize) -> Option<i32>| -> ArrayRef {
        let keys: Int32Array = (0..rows).map(of).collect();
        Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::new(StringArray::from(names.to_vec()))))
    };
    let times = || -> ArrayRef {
        Arc::new(TimestampNanosecondArray::from_iter_values((0..rows).map(|row| row as i64)).with_timezone("UTC"))
    };
    let mut columns: BTreeMap<&str, ArrayRef> = BTreeMap::new();
    columns.insert("ts_event", times());
    columns.insert("ts_recv", times());
    columns.insert("venue", labels(&["deribit"], &|_| Some(0)));
    let names: Vec<String> = (0..50).map(|n| format!("ETH-27NOV26-{n}00-C")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    columns.insert("symbol", labels(&names, &|row| Some((row * 7 % 50) as i32)));
    columns.insert("seq", Arc::new(UInt64Array::from_iter_values((0..rows).map(|row| row as u64))));
    columns.insert("origin", labels(&["live"], &|_| Some(0)));
    columns.insert("side", labels(&["buy", "sell"], &|row| (row % 3 > 0).then_some((row % 11 == 0).into())));
    let scattered = |row: usize| row.wrapping_mul(2_654_435_761) % 50_000;
    columns
        .insert("price", Arc::new(Float64Array::from_iter_values((0..rows).map(|row| scattered(row) as f64 / 10.0))));
    columns.insert("size", Arc::new(Float64Array::from_iter_values((0..rows).map(|_| 10.0))));
    let column = |field: &Arc<arrow_schema::Field>| {
        let given = columns.get(field.name().as_str()).cloned();
        given.unwrap_or_else(|| arrow_array::new_null_array(field.data_type(), rows))
    };
    let columns = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(schema.clone(), columns).expect("columns of the schema")
}

/// The same by hand: what somebody would write who knows Arrow, and this table only.
fn by_hand(chunk: &RecordBatch, limit: f64, plan: &Plan) -> Option<RecordBatch> {
    let column = |name: &str| chunk.column_by_name(name).expect("trades have it");
    let value = mul(column("price"), column("size")).expect("two floats");
    let is_worth = gt_eq(&value, &Scalar::new(Float64Array::from(vec![limit]))).expect("two floats");
    let is_bought = eq(column("side"), &Scalar::new(StringArray::from(vec!["buy"]))).expect("two texts");
    let passes = and_kleene(&is_worth, &is_bought).expect("as many rows");
    let predicate = FilterBuilder::new(&passes).optimize().build();
    let kept = |name: &str| predicate.filter(column(name)).expect("as many rows");
    let (price, size) = (kept("price"), kept("size"));
    let value = mul(
        &price.as_primitive::<arrow_array::types::Float64Type>(),
        &size.as_primitive::<arrow_array::types::Float64Type>(),
    );
    let columns =
        vec![kept("ts_event"), kept("symbol"), price.clone(), size.clone(), value.expect("two floats"), kept("side")];
    let rows = RecordBatch::try_new(plan.tables()[0].table.schema(), columns).expect("columns of the table");
    (rows.num_rows() > 0 && !rows.column(0).is_empty()).then_some(rows)
}
