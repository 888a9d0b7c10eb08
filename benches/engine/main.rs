//! How fast the engine is, beside what the machine could do without it: both sides of every comparison run in turn in one
//! process, so the ratios hold on a busy machine too.
//!
//! ```text
//! cargo bench --bench engine                       everything, more than an hour, 11 GiB of disk meanwhile
//! cargo bench --bench engine -- quick decode       fewer rounds, one part: decode, durable, store, derive, latency, start, soak, idle, size, recovery, backlog, history
//! cargo bench --bench engine -- quick postgres     so with a real server, which is started: postgres, timescale, questdb, kafka (`--features kafka`)
//! cargo bench --bench engine -- smoke              a few rows of each, to see that it runs
//! cargo bench --bench engine -- decode trades      one kind of frame, for a profiler
//! ```

mod clock;
mod decode;
mod delivered;
mod derive;
mod durable;
mod effort;
mod feeder;
mod frames;
mod latency;
mod memory;
mod program;
mod recovery;
mod store;
mod stores;
mod table;
mod watched;

use std::{fs, path::Path};

use metrics_exporter_prometheus::PrometheusBuilder;

use effort::Effort;
use frames::Kind;

/// A part of the bench: its name, and what it does.
type Part = (&'static str, fn(Effort, &Path));

const PARTS: &[Part] = &[
    ("decode", |effort, _| decode::run(effort)),
    ("durable", durable::run),
    ("store", store::run),
    ("derive", |effort, _| derive::run(effort)),
    ("latency", latency::run),
    ("start", program::start),
    ("soak", program::soak),
    ("idle", program::idle),
    ("size", |_, _| program::size()),
    ("recovery", recovery::run),
    ("backlog", recovery::backlog),
    ("history", recovery::history),
    ("postgres", stores::postgres),
    ("timescale", stores::timescale),
    ("questdb", stores::questdb),
    #[cfg(feature = "kafka")]
    ("kafka", stores::kafka),
];

fn main() {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_asked = |name: &str| words.iter().any(|word| word == name);
    let kind = Kind::ALL.into_iter().find(|kind| is_asked(kind.name()));
    let effort = match () {
        () if is_asked("smoke") => Effort::SMOKE,
        () if is_asked("quick") => Effort::QUICK,
        () => Effort::FULL,
    };
    let effort = Effort { kind, ..effort };
    let mut known = vec!["quick", "smoke"];
    known.extend(Kind::ALL.map(Kind::name));
    known.extend(PARTS.iter().map(|(name, _)| *name));
    if let Some(unknown) = words.iter().find(|word| !known.contains(&&***word)) {
        eprintln!("unknown `{unknown}`; known are: {}", known.join(", "));
        return;
    }
    // Counted as in the program: without a recorder counters would cost nothing.
    drop(PrometheusBuilder::new().install_recorder());
    machine();
    let all = !PARTS.iter().any(|(name, _)| is_asked(name));
    for (name, run) in PARTS {
        if all || is_asked(name) {
            run(effort, Path::new(env!("CARGO_TARGET_TMPDIR")));
        }
    }
}

/// Says on what it runs.
fn machine() {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let of = |key: &str| {
        let line = processors.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or("unknown").trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let build = if cfg!(debug_assertions) { "not optimised: the figures mean nothing" } else { "optimised" };
    println!("machine   {cores} cores, {}; Linux {}", of("model name"), kernel.trim());
    println!("load      {} (1, 5, 15 minutes); build {build}", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
}
