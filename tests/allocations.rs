//! The hot path allocates nothing: neither for a field, nor for a row, nor for a frame.
#![allow(unsafe_code, reason = "an allocator that counts, in this test only: GlobalAlloc is an unsafe trait")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

// The frames, the feeder and the disk of the bench: what is measured there is counted here.
#[path = "../benches/engine/feeder.rs"]
mod feeder;
#[allow(dead_code, reason = "the bench uses the rest")]
#[path = "../benches/engine/frames.rs"]
mod frames;
#[path = "../benches/engine/memory.rs"]
mod memory;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    path::Path,
    sync::Arc,
};

use tidegate_core::testkit::InlineIntake;

use feeder::Feeder;
use frames::{Feed, Kind};
use memory::Memory;

/// Frames of which the first half is warm-up: streams appear, buffers grow.
const FRAMES: usize = 8_000;
/// Frames that become one entry.
const BURST: usize = 16;
/// Buffers may still grow once or twice. An allocation for each frame, let alone for each field, is far beyond this.
const STRAY: u64 = 8;

#[test]
fn a_ticker_becomes_a_row_without_an_allocation() {
    let counted = Counted::over(Kind::Tickers);
    assert!(counted.reading <= STRAY, "{counted:?} for {} frames", FRAMES / 2);
}

#[test]
fn a_trade_becomes_a_row_without_an_allocation() {
    let counted = Counted::over(Kind::Trades);
    assert!(counted.reading <= STRAY, "{counted:?} for {} frames", FRAMES / 2);
}

#[test]
fn intake_enters_rows_in_the_log_without_an_allocation_for_each() {
    for kind in [Kind::Tickers, Kind::Trades] {
        let counted = Counted::over(kind);
        assert!(counted.entering <= STRAY, "{kind:?}: {counted:?} for {} rows", FRAMES / 2);
    }
}

#[test]
fn what_is_allocated_is_counted() {
    let (text, counted) = count(|| String::from("a field"));
    assert_eq!((text.len(), counted), (7, 1));
}

/// Allocations behind the warm-up.
#[derive(Debug, Default)]
struct Counted {
    /// From frames to rows.
    reading: u64,
    /// From rows to the log.
    entering: u64,
}

impl Counted {
    fn over(kind: Kind) -> Self {
        let feed = Feed::own(kind, FRAMES);
        let mut intake = InlineIntake::open(Arc::new(Memory), feeder::setup(Path::new(""))).unwrap();
        let mut feeder = Feeder::begin(intake.link(0, feeder::tables()), &feed);
        let mut total = Self::default();
        let mut rows = 0;
        for (number, burst) in feed.frames.chunks(BURST).enumerate() {
            let ((), reading) = count(|| burst.iter().for_each(|frame| feeder.read(frame)));
            let (entered, entering) = count(|| {
                feeder.link().hand_over().unwrap();
                intake.enter().unwrap()
            });
            if number % 8 == 7 {
                intake.sync().unwrap();
            }
            rows += entered as usize;
            if number >= FRAMES / BURST / 2 {
                total.reading += reading;
                total.entering += entering;
            }
        }
        assert_eq!(rows, feed.rows, "every row is in the log");
        total
    }
}

/// Does something, and returns how often this thread has allocated meanwhile.
fn count<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = ALLOCATIONS.get();
    let outcome = work();
    (outcome, ALLOCATIONS.get() - before)
}

thread_local! {
    // By thread, since tests run beside each other.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

impl Counting {
    fn note() {
        // A thread that ends has no counter any more, and nobody who would read it.
        _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
    }
}

// SAFETY: every call goes on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::note();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::note();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(block, layout) }
    }
}
