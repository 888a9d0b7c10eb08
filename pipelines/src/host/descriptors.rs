//! File descriptors: how many the process may have, and about how many its pipelines need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_core::config::Pipeline;
use tracing::warn;

/// Raises the limit to what the system allows this user, and returns it. The usual one of 1024 is for programs that wait
/// with `select`.
pub(super) fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let highest = maximum.unwrap_or(MOST);
    if current.is_some_and(|current| current < highest) {
        // One that cannot be raised is the limit all the same, and is told where it is too low.
        setrlimit(Resource::Nofile, Rlimit { current: Some(highest), maximum }).unwrap_or_default();
    }
    limit()
}

/// Returns how many descriptors the process may have.
pub(super) fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Says it where the pipelines need more than they may have.
pub(super) fn tell(limit: u64, pipelines: &[Pipeline]) {
    let needed = needed(pipelines);
    if limit < needed {
        let pipelines = pipelines.len();
        warn!(
            "limited to {limit} files and connections, and {pipelines} pipelines need about {needed}: what cannot be opened \
             is tried again for ever; {REMEDY}, or run fewer pipelines in one process"
        );
    }
}

/// Returns about how many descriptors pipelines have at once, with those of the process itself.
fn needed(pipelines: &[Pipeline]) -> u64 {
    let of = |pipeline: &Pipeline| {
        OF_PIPELINE + OF_SOURCE * pipeline.sources.len() as u64 + OF_SINK * pipeline.sinks.len() as u64
    };
    OF_PROCESS + pipelines.iter().map(of).sum::<u64>()
}

/// What a person can do.
pub(super) const REMEDY: &str = "raise the hard limit (`ulimit -Hn`, `LimitNOFILE` of systemd)";
/// What is asked for where the system sets no limit: the kernel's own, which nobody may exceed.
const MOST: u64 = 1 << 20;

/// The runtime's, the signals', the log's and the health server's connections.
const OF_PROCESS: u64 = 16 + super::listener::SEATS as u64;
/// The spool's segments, those that are read and fsynced too, its lock, and the ledger.
const OF_PIPELINE: u64 = 6;
/// Its line, and calls to the venue's hosts.
const OF_SOURCE: u64 = 3;
/// The store's files or connections.
const OF_SINK: u64 = 3;
