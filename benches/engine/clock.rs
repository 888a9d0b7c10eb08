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
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may hold anything, blanks too; it ends with the last bracket. User and system time stand 12 fields behind.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
