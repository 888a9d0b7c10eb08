//! What time and processor a piece of work takes, and two pieces of work side by side.

use std::{
    fs,
    time::{Duration, Instant},
};

/// What a piece of work took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// Of the clock on the wall.
    pub(crate) wall: Duration,
    /// Of the processors: of one thread or of all, as the one who measured chose.
    pub(crate) cpu: Duration,
}

/// Measures from its making on.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    began: Instant,
    cpu: fn() -> Duration,
    before: Duration,
}

impl Stopwatch {
    /// Begins to measure work that stays on this thread.
    pub(crate) fn of_this_thread() -> Self {
        Self { before: thread_cpu(), cpu: thread_cpu, began: Instant::now() }
    }

    /// Begins to measure work that uses other threads too. The processor's part is counted in hundredths of a second.
    pub(crate) fn of_all_threads() -> Self {
        Self { before: process_cpu(), cpu: process_cpu, began: Instant::now() }
    }

    /// Returns what was spent.
    pub(crate) fn read(&self) -> Spent {
        Spent { wall: self.began.elapsed(), cpu: (self.cpu)().saturating_sub(self.before) }
    }
}

impl Spent {
    /// Returns the smaller of each: noise only ever adds.
    pub(crate) fn best(self, other: Self) -> Self {
        Self { wall: self.wall.min(other.wall), cpu: self.cpu.min(other.cpu) }
    }
}

/// Runs both in turn, `rounds` times, so that what else the machine does hits both, and keeps the best of each.
pub(crate) fn race(rounds: usize, mut ours: impl FnMut() -> Spent, mut bare: impl FnMut() -> Spent) -> (Spent, Spent) {
    let mut best = (ours(), bare());
    for _ in 1..rounds {
        best = (best.0.best(ours()), best.1.best(bare()));
    }
    best
}

/// Returns what this thread has used.
fn thread_cpu() -> Duration {
    // The figure is brought up to date when the scheduler looks at the thread.
    std::thread::yield_now();
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("Linux says what a thread has used"))
}

/// Returns what all threads of the process have used, those that have ended too.
fn process_cpu() -> Duration {
    used("self", 2)
}

/// Returns what a process and all below it have used, those that have ended too.
pub(crate) fn cpu_of(process: u32) -> Duration {
    let own = used(&process.to_string(), 4);
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<u32> =
        children.flat_map(|line| line.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect();
    own + children.into_iter().map(cpu_of).sum::<Duration>()
}

/// Returns the sum of the first of a process's times: its own in user mode and in the system, then those of its children
/// that were waited for.
fn used(process: &str, times: usize) -> Duration {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name may hold anything, blanks too; it ends with the last bracket. The times stand 12 fields behind.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(times);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
