//! What happens in a history, drawn from a seed before it begins: what is left out of it changes nothing of the rest.

use std::{fmt, time::Duration};

use super::store::{Fault, Kind};
use crate::{config::WhenFull, policy::Random, testkit::Failure};

/// How many steps a history has.
const STEPS: usize = 1_000;

/// One history of so many is [narrowed](narrow); the others stay what they were when they failed.
const MORE: u64 = 4;

/// A link that collects no more than a few records.
const SMALL_LINK: usize = 300;

/// What does not change in the course of a history.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) seed: u64,
    pub(super) sinks: Vec<Kind>,
    /// Whether stores wait, at an opening, for transactions of sessions that are gone.
    pub(super) stores_wait: bool,
    pub(super) when_full: WhenFull,
    pub(super) segment_bytes: u64,
    pub(super) max_bytes: u64,
    pub(super) keep: Duration,
    pub(super) sync: Duration,
    pub(super) batch_rows: usize,
    pub(super) linger: Duration,
    /// Whether the venue's history may lag behind more than it says.
    pub(super) lags: bool,
    /// How many seconds the venue's history goes back.
    pub(super) memory: i64,
    /// By how many seconds the venue's times may go back where its numbers grow.
    pub(super) uneven: i64,
    /// How many bytes a link collects.
    pub(super) link_bytes: usize,
    /// How many bytes may wait for an fsync.
    pub(super) max_unsynced: usize,
    /// Whether what comes on the first line is on its way for long.
    pub(super) is_slow: bool,
    /// Whether the power fails soon after a process was killed.
    pub(super) power_follows: bool,
}

/// One step, with the luck that decides all that it leaves open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Op {
    pub(super) what: What,
    pub(super) luck: u64,
    /// How long it takes until the next one.
    pub(super) pause: Duration,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What {
    Make,
    Deliver(usize),
    Connect(usize),
    Ask,
    Answer,
    Receive,
    // What follows are faults, and what users do.
    Cut(usize),
    Leave(usize),
    Renumber,
    Misdeliver(usize),
    Kill,
    KillAfter(u32),
    CutPower,
    Restart,
    Fail(Failure),
    Mend,
    SlowDisk(u64),
    Meet(usize, Fault),
    Down(usize),
    Up(usize),
    Refuse,
    Take,
    EndTransaction(usize),
    StepClock(i64),
    Flip,
    CopySpool,
    RestoreSpool,
    CopyStore(usize),
    RestoreStore(usize),
    EmptyStore(usize),
}

impl What {
    /// Returns whether a history without it would be a quieter one.
    pub(super) fn is_fault(self) -> bool {
        !matches!(
            self,
            Self::Make
                | Self::Deliver(_)
                | Self::Connect(_)
                | Self::Ask
                | Self::Answer
                | Self::Receive
                | Self::Mend
                | Self::Up(_)
        )
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make => f.write_str("the venue makes a record"),
            Self::Deliver(line) => write!(f, "line {line} brings what is on its way"),
            Self::Connect(line) => write!(f, "line {line} connects and subscribes"),
            Self::Ask => f.write_str("an open gap is asked for"),
            Self::Answer => f.write_str("the venue answers"),
            Self::Receive => f.write_str("an answer arrives"),
            Self::Cut(line) => write!(f, "line {line} is cut"),
            Self::Leave(line) => write!(f, "line {line} unsubscribes from a stream"),
            Self::Renumber => f.write_str("the venue numbers stream C anew"),
            Self::Misdeliver(line) => write!(f, "line {line} repeats a record, or swaps two"),
            Self::Kill => f.write_str("the process is killed"),
            Self::KillAfter(changes) => {
                write!(f, "the process is killed in the middle of a change, {changes} from now")
            }
            Self::CutPower => f.write_str("the power fails"),
            Self::Restart => f.write_str("the pipeline is stopped and started"),
            Self::Fail(failure) => write!(f, "from now on the disk fails: {failure:?}"),
            Self::Mend => f.write_str("the disk is well again"),
            Self::SlowDisk(millis) => write!(f, "from now on the disk takes up to {millis} ms"),
            Self::Meet(sink, fault) => write!(f, "the next write of sink {sink} meets {fault:?}"),
            Self::Down(sink) => write!(f, "the store of sink {sink} goes down"),
            Self::Up(sink) => write!(f, "the store of sink {sink} comes up"),
            Self::Refuse => f.write_str("the stores will never take the next record"),
            Self::Take => f.write_str("the stores take all again"),
            Self::EndTransaction(sink) => write!(f, "a transaction of a dead session of sink {sink} ends"),
            Self::StepClock(by) => write!(f, "the wall clock is set by {} s", by / 1_000_000_000),
            Self::Flip => f.write_str("a bit of the spool flips"),
            Self::CopySpool => f.write_str("the spool is copied"),
            Self::RestoreSpool => f.write_str("the spool is restored from the copy"),
            Self::CopyStore(sink) => write!(f, "the store of sink {sink} is copied"),
            Self::RestoreStore(sink) => write!(f, "the store of sink {sink} is restored from the copy"),
            Self::EmptyStore(sink) => write!(f, "the store of sink {sink} is emptied"),
        }
    }
}

/// Draws a history.
pub(super) fn draw(seed: u64) -> (Setting, Vec<Op>) {
    // Neighbouring seeds are no neighbours.
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut setting = setting(seed, &mut random);
    if seed.is_multiple_of(MORE) {
        narrow(&mut setting);
    }
    let odds = odds(&setting, &mut random);
    let all: u64 = odds.iter().map(|(weight, _)| weight).sum();
    let ops = (0..STEPS).map(|_| {
        let mut drawn = random.below(all);
        let mut what = What::Make;
        for (weight, one) in &odds {
            if drawn < *weight {
                what = *one;
                break;
            }
            drawn -= weight;
        }
        let millis = match random.below(10) {
            0..5 => random.below(4),
            5..8 => random.below(300),
            _ => random.below(2_000),
        };
        Op { what: vary(what, &mut random), luck: random.below(u64::MAX), pause: Duration::from_millis(millis) }
    });
    let ops = ops.collect();
    (setting, ops)
}

fn setting(seed: u64, random: &mut Random) -> Setting {
    let kinds = [Kind::Transaction, Kind::Transaction, Kind::Lazy, Kind::Keyed];
    let sinks = (0..=random.below(2)).map(|_| kinds[random.below(4) as usize]).collect();
    let is_small = random.below(4) == 0;
    let when_full = [WhenFull::Block, WhenFull::DropNewest, WhenFull::DropOldest][random.below(3) as usize];
    let segment_bytes = [2, 4, 16][random.below(3) as usize] << 10;
    Setting {
        seed,
        sinks,
        // `Sink::open` settles what is in doubt. Where nothing is refused and nothing dropped the guard alone is enough, and is
        // tried alone; a late commit of rows that were dropped meanwhile gives them a second fate (I2) that nobody can take back.
        stores_wait: random.below(2) == 0 || when_full == WhenFull::DropOldest,
        when_full,
        segment_bytes,
        max_bytes: if is_small { 3 * segment_bytes + 20_000 } else { 1 << 30 },
        keep: Duration::from_secs([0, 20, 3_600][random.below(3) as usize]),
        sync: Duration::from_millis([0, 0, 50][random.below(3) as usize]),
        batch_rows: [1, 4, 50][random.below(3) as usize],
        linger: Duration::from_millis([0, 0, 700][random.below(3) as usize]),
        lags: random.below(3) == 0,
        memory: [400, 400, 60][random.below(3) as usize],
        uneven: random.below(2) as i64,
        link_bytes: if random.below(4) == 0 { SMALL_LINK } else { 1 << 20 },
        max_unsynced: usize::MAX,
        is_slow: false,
        power_follows: false,
    }
}

/// Brings a history to what is far off the others' way.
fn narrow(setting: &mut Setting) {
    let mut random = Random::new(!setting.seed);
    match random.below(3) {
        // Intake waits for its disk, and a link overflows.
        0 => (setting.max_unsynced, setting.link_bytes) = (1 << 10, SMALL_LINK),
        1 => setting.is_slow = true,
        _ => setting.power_follows = true,
    }
}

/// Returns how often what happens. Not every history has every fault: some would hide others.
fn odds(setting: &Setting, random: &mut Random) -> Vec<(u64, What)> {
    let mut odds = vec![
        (3_000, What::Make),
        (if setting.is_slow { 1_500 } else { 2_800 }, What::Deliver(0)),
        (500, What::Deliver(1)),
        (350, What::Connect(0)),
        (80, What::Connect(1)),
        (900, What::Ask),
        (700, What::Answer),
        (700, What::Receive),
    ];
    // In some histories processes die so often that one death meets what the last one has left.
    let deaths = if random.below(6) == 0 { 6 } else { 1 };
    // A link overflows where intake has to wait for its disk.
    let waits = setting.link_bytes == SMALL_LINK && random.below(2) == 0;
    let mut some = |share: u64, faults: &[(u64, What)]| {
        if random.below(100) < share {
            odds.extend_from_slice(faults);
        }
    };
    some(80, &[(100, What::Cut(0)), (30, What::Cut(1))]);
    some(50, &[(100, What::Leave(0)), (30, What::Leave(1))]);
    some(50, &[(60, What::Renumber)]);
    some(60, &[(150, What::Misdeliver(0)), (30, What::Misdeliver(1))]);
    some(80, &[(50 * deaths, What::Kill), (50 * deaths, What::KillAfter(0)), (20, What::Restart)]);
    some(50, &[(60 * deaths, What::CutPower)]);
    some(if waits { 100 } else { 25 }, &[(60, What::Fail(Failure::None)), (120, What::Mend)]);
    some(if waits { 100 } else { 30 }, &[(30, What::SlowDisk(0))]);
    some(30, &[(40, What::StepClock(0))]);
    some(8, &[(20, What::Flip)]);
    some(6, &[(15, What::CopySpool), (5, What::RestoreSpool)]);
    // What is refused counts on openings that settle what is in doubt; without refusals the guard alone is enough.
    let refuses = setting.stores_wait && random.below(100) < 60;
    for (sink, kind) in setting.sinks.iter().enumerate() {
        let mut some = |share: u64, faults: &[(u64, What)]| {
            if random.below(100) < share {
                odds.extend_from_slice(faults);
            }
        };
        some(80, &[(300, What::Meet(sink, Fault::Before)), (150, What::EndTransaction(sink))]);
        some(40, &[(30, What::Down(sink)), (60, What::Up(sink))]);
        // One that keeps no position cannot know that it was brought back.
        if *kind != Kind::Keyed {
            some(8, &[(15, What::CopyStore(sink)), (8, What::RestoreStore(sink))]);
            some(2, &[(3, What::EmptyStore(sink))]);
        }
    }
    if refuses {
        odds.extend([(60, What::Refuse), (20, What::Take)]);
    }
    odds
}

/// Fills in what an operation leaves open.
fn vary(what: What, random: &mut Random) -> What {
    match what {
        What::KillAfter(_) => What::KillAfter(1 + random.below(12) as u32),
        What::Fail(_) => What::Fail(match random.below(9) {
            0 => Failure::Full(random.below(4_000)),
            1 => Failure::Full(0),
            2 => Failure::Writes(random.below(4) as u32),
            3 => Failure::OneWrite,
            4 | 5 => Failure::OneSync(random.below(3) as u32),
            6 => Failure::Syncs,
            7 => Failure::OneDirSync,
            _ => Failure::Opens(random.below(4) as u32),
        }),
        What::SlowDisk(_) => What::SlowDisk([0, 5, 200, 3_000][random.below(4) as usize]),
        What::StepClock(_) => {
            let by = [1, -1, 90, -90, 31_536_000, -31_536_000][random.below(6) as usize];
            What::StepClock(by * 1_000_000_000)
        }
        What::Meet(sink, _) => {
            use Fault::{AnswerLost, Before, CommitsLater, Hangs, HangsCommitted};
            let faults = [Before, AnswerLost, CommitsLater, CommitsLater, Hangs, HangsCommitted];
            What::Meet(sink, faults[random.below(6) as usize])
        }
        other => other,
    }
}
