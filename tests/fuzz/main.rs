//! Whatever the bytes, no decoder panics, and none takes memory without bound: frames and replies of a venue, configurations,
//! captures, the simulator's list, the spool's files, the ledger, notes, dead letters; and no expression that is accepted has rows
//! over which it cannot be worked out.
//!
//! Inputs that were well are changed by chance from a seed, which is printed. `TIDEGATE_FUZZ=60s` says how long each target
//! is tried, 4 s by default; `TIDEGATE_FUZZ_SEED` repeats a run: the same seed gives the same inputs in the same order.
#![allow(unsafe_code, reason = "an allocator that counts, in this test only: GlobalAlloc is an unsafe trait")]
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod chance;
// The feeder and the frames of the bench make spools as a venue does.
#[path = "../../benches/engine/feeder.rs"]
mod feeder;
mod files;
#[allow(dead_code, reason = "the bench uses the rest")]
#[path = "../../benches/engine/frames.rs"]
mod frames;
mod memory;
mod spool;
#[path = "../support/mod.rs"]
mod support;
mod venue;

use std::{
    any::Any,
    fs,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use chance::Chance;
use flate2::{Compression, write::GzEncoder};
use tidegate::{
    catalog::Component,
    chunk::Plan,
    config::{Environment, Files, Look, load},
    row::{Mark, Position, Timestamp, kinds::Trade},
    testkit::MemoryLog,
};
use tidegate_sources::deribit::{Channel, Choice, DeribitConfig};

/// What a decoder may take beside what grows with its input, in bytes.
const FLAT: usize = 48 << 20;
/// And for each byte of it: a row of many columns has more bytes than its text.
const FOR_EACH_BYTE: usize = 256;

#[test]
fn any_configuration_is_answered() {
    let catalog = tidegate::built_in();
    let mut corpus = files_of("pipelines", "toml");
    corpus.append(&mut files_of("core/tests/golden", "toml"));
    let environment = Environment::new([("SECRET", "hunter2")]);
    tried("configuration", &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let loaded = load(&catalog, Files::of_text("x.toml", &text), &environment);
        drop(loaded.report.render(Look { colours: true, width: 60 }));
    });
}

#[test]
fn any_expression_is_answered() {
    let catalog = tidegate::built_in();
    let environment = Environment::new([("SECRET", "hunter2' or 1 = 1")]);
    let log = odd_trades();
    let rows = log.chunk(0, u64::MAX).tables.remove(0).rows;
    tried("expression", &EXPRESSIONS.map(|text| text.as_bytes().to_vec()), |bytes| {
        // What ends the text of the file is the file's affair.
        let text = String::from_utf8_lossy(bytes).replace("'''", "'");
        let file = format!(
            "[pipeline]\nname = \"x\"\n[source.deribit]\ninstruments = [\"ETH\"]\nchannels = [\"trades\"]\n\
             [table.a]\nfrom = \"trades\"\nwhere = '''{text} '''\n[table.b]\nfrom = \"trades\"\nselect = '''{text} '''\n\
             [sink.stdout]\n"
        );
        let loaded = load(&catalog, Files::of_text("x.toml", &file), &environment);
        let shown = loaded.report.render(Look { colours: false, width: 100 });
        assert!(!shown.contains("hunter2"), "{shown}");
        drop(tidegate::config::resolved(&loaded, Look { colours: false, width: 100 }));
        for pipeline in &loaded.pipelines {
            let (sources, wanted) = (vec![log.source()], pipeline.sinks[0].tables.clone());
            let Ok(plan) = Plan::deriving("x", sources, wanted, pipeline.derived.clone()) else { continue };
            (0..plan.tables().len()).for_each(|table| drop(plan.derive(table, &rows)));
        }
    });
}

/// Returns trades whose values are at their ends, or not there.
fn odd_trades() -> MemoryLog {
    let instruments = vec![Choice::Name("ETH-PERPETUAL".to_owned())];
    let config = DeribitConfig { channels: vec![Channel::Trades], instruments, ..DeribitConfig::default() };
    let log = MemoryLog::new("deribit", config.build().unwrap().tables());
    for (n, price) in [0.0, -0.0, f64::NAN, f64::INFINITY, f64::MIN, 5e-324, 2_760.5].into_iter().enumerate() {
        let symbol = ["ETH-PERPETUAL", "ETH-25DEC26-9000-C", "سلام"][n % 3];
        let ts_event = Timestamp([0, 1, i64::MAX, i64::MIN][n % 4]);
        let mark = Mark { symbol, position: Position::Sequence(u64::MAX - n as u64), ts_event };
        log.emit(mark, &Trade { price, size: 1.0 / price, ..Trade::default() });
    }
    log
}

#[test]
fn any_capture_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.jsonl.gz");
    tried("capture", &[CAPTURE.as_bytes().to_vec(), gzip(CAPTURE.as_bytes())], |bytes| {
        // Lines that are no longer as they were, and files that are no gzip any more.
        let packed = if bytes.starts_with(&[0x1f, 0x8b]) { bytes.to_vec() } else { gzip(bytes) };
        fs::write(&path, packed).unwrap();
        let Ok(reader) = tidegate::connection::capture::read(&path) else { return };
        reader.take(1_000).for_each(drop);
    });
}

#[test]
fn any_list_of_dead_letters_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dead-letters.jsonl");
    tried("dead_letters", &[DEAD_LETTERS.as_bytes().to_vec()], |bytes| {
        fs::write(&path, bytes).unwrap();
        drop(tidegate::deadletter::list(&path));
        let disk = tidegate_core::testkit::SimDisk::default();
        disk.put("dead-letters.jsonl", bytes);
        drop(tidegate::deadletter::DeadLetters::open(std::sync::Arc::new(disk), |_| true));
    });
}

#[test]
fn a_decoder_that_panics_or_takes_too_much_is_found() {
    let caught =
        |decode: fn(&[u8])| catch_unwind(|| tried_for("found", Duration::from_secs(9), 1, &[vec![7; 9]], decode));
    assert!(caught(|bytes| assert_ne!(bytes.first(), Some(&0))).is_err());
    assert!(caught(|_| drop(vec![1_u8; FLAT + FOR_EACH_BYTE * (1 << 16)])).is_err());
}

/// Tries a decoder for the time that was asked for.
pub(crate) fn tried(name: &str, corpus: &[Vec<u8>], decode: impl FnMut(&[u8])) {
    let lasting = std::env::var("TIDEGATE_FUZZ").ok().map(|text| humantime::parse_duration(&text).unwrap());
    let seed = std::env::var("TIDEGATE_FUZZ_SEED").ok().map(|text| text.parse().unwrap());
    let seed = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
    tried_for(name, lasting.unwrap_or(Duration::from_secs(4)), seed, corpus, decode);
}

fn tried_for(name: &str, lasting: Duration, seed: u64, corpus: &[Vec<u8>], mut decode: impl FnMut(&[u8])) {
    assert!(corpus.iter().all(|one| !one.is_empty()) && !corpus.is_empty(), "{name}: nothing to begin with");
    let mut chance = Chance::new(seed);
    let (until, mut inputs) = (Instant::now() + lasting, 0_u64);
    // What is well is well, and what is built once is built.
    corpus.iter().for_each(|input| decode(input));
    while Instant::now() < until {
        inputs += 1;
        let input = chance.input(corpus);
        let (outcome, taken) = memory::most(|| catch_unwind(AssertUnwindSafe(|| decode(&input))));
        let bound = FLAT + FOR_EACH_BYTE * input.len();
        let failed = match outcome {
            Err(panic) => format!("panicked: {}", said(&*panic)),
            Ok(()) if taken > bound => format!("took {taken} bytes of memory, over {bound}"),
            Ok(()) => continue,
        };
        let kept = std::env::temp_dir().join(format!("fuzz-{name}-{seed}-{inputs}"));
        fs::write(&kept, &input).unwrap();
        panic!("{name}: input {inputs} of TIDEGATE_FUZZ_SEED={seed}, kept in {}, {failed}", kept.display());
    }
    println!("{name}: {inputs} inputs in {lasting:?}, TIDEGATE_FUZZ_SEED={seed}");
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

/// Returns the files below a folder of the repository that end so.
pub(crate) fn files_of(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    fn below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                below(&path, extension, found);
            } else if path.extension().is_some_and(|end| end == extension) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), extension, &mut found);
    found.sort();
    found.iter().map(|path| fs::read(path).unwrap()).filter(|bytes| !bytes.is_empty()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

const EXPRESSIONS: [&str; 12] = [
    "price * size >= 10000 and side = 'buy' or not (iv is null) -- big ones\n",
    "case when size = 0 then null else round(price / size, 2) end > 1.5e-3",
    "symbol like 'ETH-%' and split_part(symbol, '-', -1) in ('C', 'P', null)",
    "ts_recv - ts_event > interval '1m 30s' and ts_event between '2026-11-24T09:41:03Z' and ts_recv",
    "cast(substr(symbol, length(symbol) - 7, 4) as i64) % 7 <> -9223372036854775808",
    "coalesce(nullif(least(price, iv, 3), greatest(mark_price, 1)), -price, 0) + abs(floor(index_price))",
    "${SECRET:-5} = upper(left(side, 2) || right('${SECRET}', -1)) and id::text is not true",
    "ts_event as timestamp, symbol as \"the name\", price * size as value, *",
    "ts_event, cast(null as label) as nothing, upper(side) side, 'x''y' as fixed, seq as n",
    "((((((((((((((((((((price))))))))))))))))))))",
    "a.b = [1, 2] and array[1] || x'00' || $1 || ? || :x or exists (select 1) or now() > interval 1 day",
    "price in (1, 2) is not null and 'سلام' < symbol and 1 = any(2) order by 3; drop table x /* y */",
];

const CAPTURE: &str = r#"{"at":1790165113994000000,"session":0,"call":"start","version":1,"source":"deribit"}
{"at":1790165113994000001,"session":0,"call":"discover"}
{"at":1790165113994000002,"session":0,"call":"discovered","method":"GET","url":"http://x/y","status":200,"text":"{\"result\":[]}"}
{"at":1790165113994000003,"session":1,"call":"open","url":"ws://x/y"}
{"at":1790165113994000004,"session":1,"call":"subscribe","channels":["trades.ETH-PERPETUAL.100ms"]}
{"at":1790165113994000005,"session":1,"call":"frame","text":"{\"jsonrpc\":\"2.0\"}"}
{"at":1790165113994000006,"session":1,"call":"frame","hex":"00ff7f"}
{"at":1790165113994000007,"session":1,"call":"closed","code":1001,"reason":"bye"}
{"at":1790165113994000008,"session":1,"call":"end","why":"closed"}
{"at":1790165113994000009,"session":1,"call":"dropped","lines":3}
"#;

const DEAD_LETTERS: &str = r#"{"sink":"sqlite","boot":"00000000000000aa","offset":7,"sub":0,"table":"trades","row":{"price":1.5},"error":"no","at":"2026-09-23T12:05:13Z"}
{"discarded":{"after":5}}
"#;
