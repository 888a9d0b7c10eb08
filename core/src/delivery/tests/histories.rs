//! Random histories of the state machine: failures, lost answers, late commits, kills, restarts, refusals. No clock, no
//! task: thousands of them in a second.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    super::{
        event::{Do, Event, Settings},
        feeder::{Bounds, Feeder, Read},
        machine::Machine,
        opening::{Opening, compare},
    },
    log, quote,
    store::{Fault, Store},
    trade,
};
use crate::{
    chunk::{Chunk, Part, TableRows},
    config::TableChoice,
    deadletter::{DeadLetter, DeadLetters},
    delivery::Log,
    row::Timestamp,
    sink::{Refusal, Written},
    spool::{Cause, SpoolPosition},
    testkit::{MemoryLog, SimDisk},
};

const SEEDS: u64 = 1_500;

#[test]
fn every_row_is_stored_once_or_a_dead_letter_in_any_history() {
    let mut kills = 0;
    for seed in 0..SEEDS {
        kills += World::new(seed).run();
    }
    assert!(kills > SEEDS, "the histories were too quiet: {kills} kills");
}

/// One process after the other, on one log, one store and one disk.
struct World {
    random: u64,
    log: MemoryLog,
    store: Store,
    now: Instant,
    machine: Machine,
    feeder: Feeder<MemoryLog>,
    rows: Vec<TableRows>,
    refusals: Vec<Refusal>,
    /// The file beside the log.
    known: Option<SpoolPosition>,
    /// The disk of the dead letters, which are open once the sink is.
    disk: SimDisk,
    letters: Option<DeadLetters>,
    /// The rows that were refused at any time.
    refused: BTreeSet<Cause>,
    /// By offset: rows that send a dead letter again, and which one.
    redrives: BTreeMap<u64, Cause>,
    seed: u64,
    made: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let log = log();
        let (machine, feeder) = process(&log, seed);
        let mut store = Store::default();
        store.is_lazy = seed.is_multiple_of(3);
        Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            log,
            store,
            now: Instant::now(),
            machine,
            feeder,
            rows: Vec::new(),
            refusals: Vec::new(),
            known: None,
            disk: SimDisk::default(),
            letters: None,
            refused: BTreeSet::new(),
            redrives: BTreeMap::new(),
            seed,
            made: 0,
        }
    }

    fn run(mut self) -> u64 {
        let mut kills = 0;
        for _ in 0..120 {
            match self.up_to(20) {
                0..=5 => self.venue(),
                6 => {
                    (self.machine, self.feeder) = process(&self.log, self.seed);
                    self.rows.clear();
                    self.letters = None;
                    kills += 1;
                }
                _ => self.step(true),
            }
        }
        // The faults are over: what is left is delivered.
        self.machine.on(self.now, Event::Stop(self.now + Duration::from_secs(3_600)));
        for _ in 0..400 {
            self.step(false);
        }
        self.check();
        kills
    }

    fn venue(&mut self) {
        self.made += 1;
        let n = self.made;
        match self.up_to(14) {
            0 => drop(self.log.control()),
            1 => self.log.roll(),
            2 => self.log.skip(3),
            3 => {
                let offset = trade(&self.log, n);
                self.store.refuses.insert(offset);
            }
            4 | 5 => drop(quote(&self.log, n)),
            6 if !self.log.rows("trades").is_empty() => drop(self.log.emit_raw(0, &[7; 5])),
            7 | 8 => self.redrive(),
            // What it has refused it would take now.
            9 => {
                let one = self.up_to(self.store.refuses.len() as u64 + 1) as usize;
                self.store.refuses = self
                    .store
                    .refuses
                    .iter()
                    .copied()
                    .enumerate()
                    .filter(|(n, _)| *n != one)
                    .map(|(_, offset)| offset)
                    .collect();
            }
            _ => drop(trade(&self.log, n)),
        }
    }

    /// Sends any row again that was ever refused, for this sink or another one, and it may be refused once more.
    fn redrive(&mut self) {
        let refused: Vec<_> = self.refused.iter().copied().collect();
        let Some(cause) = refused.get(self.up_to(refused.len() as u64 + 1) as usize) else { return };
        if self.up_to(5) == 0 {
            self.log.redrive("another", *cause);
            return;
        }
        let offset = self.log.redrive("memory", *cause);
        self.redrives.insert(offset, *cause);
        if self.up_to(3) == 0 {
            self.store.refuses.insert(offset);
        }
    }

    fn step(&mut self, faults: bool) {
        let synced = self.log.synced().borrow().offset;
        self.machine.on(self.now, Event::Synced(synced));
        let event = match self.machine.next(self.now) {
            Do::Wait(until) => {
                self.now = until.map_or(self.now, |until| until.min(self.now + Duration::from_secs(5)));
                self.now += Duration::from_millis(1);
                return;
            }
            Do::End => return,
            Do::Open => self.open(faults),
            Do::Build => self.build(synced),
            Do::Write => self.write(faults),
            Do::Bury | Do::Discard if faults && self.up_to(4) == 0 => {
                Event::NotBuried(crate::Error::transient("the disk is full"))
            }
            Do::Discard => {
                let from = self.machine.read_to().offset;
                let comes_again = |row: SpoolPosition| row.offset > from;
                match &mut self.letters {
                    Some(letters) => drop(letters.discard(from, comes_again).unwrap()),
                    None => self.letters = Some(DeadLetters::open(Arc::new(self.disk.clone()), comes_again).unwrap().0),
                }
                Event::Discarded
            }
            Do::Bury => self.bury(),
            Do::Applied => {
                if self.up_to(3) == 0 {
                    self.store.applied = self.store.position;
                }
                Event::Applied(self.store.applied)
            }
            Do::Check => Event::Checked,
            Do::Count => {
                let from = self.machine.stored().unwrap_or(SpoolPosition::START);
                let (rows, _) = self.feeder.count_rows(from, synced, u64::MAX).unwrap();
                // So that the position arrives as well.
                Event::Counted(rows + u64::from(from.offset < synced))
            }
            Do::Close => {
                self.store.applied = self.store.position;
                Event::Closed
            }
        };
        self.machine.on(self.now, event);
        if let Some(stored) = self.machine.stored() {
            self.feeder.committed(stored);
            self.letters.as_mut().into_iter().for_each(DeadLetters::committed);
            // The file lags behind.
            if self.up_to(3) == 0 || self.known.is_none() {
                self.known = Some(stored);
            }
        }
        if let Some(balance) = self.machine.balance() {
            assert!(balance.is_even(), "seed {}: {balance:?}", self.seed);
            assert!(balance.upto.offset <= synced);
            let durable = if self.store.is_lazy { self.store.applied } else { self.store.position };
            assert!(balance.upto.offset <= durable.map_or(0, |durable| durable.offset), "seed {}", self.seed);
        }
    }

    fn open(&mut self, faults: bool) -> Event {
        if faults && self.up_to(5) == 0 {
            self.store.open_faults.push_back(Fault::Before);
        }
        let store = match self.store.open() {
            Ok(store) => store,
            Err(error) => return Event::Failed(error),
        };
        let stand = |position| (position, self.log.standing(position));
        let at = match compare(store.map(stand), self.known.map(stand), false) {
            Opening::Start => SpoolPosition::START,
            Opening::Again(at) => at,
            Opening::Mismatch(text) => panic!("seed {}: {text}", self.seed),
        };
        self.feeder.opened(at, 0);
        Event::Opened { at, read_from: at }
    }

    fn build(&mut self, synced: u64) -> Event {
        match self.feeder.read(self.machine.read_to(), synced).unwrap() {
            Read::Range { portion, border, rows } => {
                self.rows = rows;
                Event::Built { portion, border }
            }
            Read::Unreadable(letters) | Read::Unfit(letters) => {
                self.keep(&letters);
                Event::Buried
            }
            Read::Redrives(rows) => {
                let go = self.letters().redriven(&rows).unwrap();
                self.feeder.redriven(rows, &go);
                Event::Buried
            }
            Read::Replanned => panic!("the plan has every table"),
        }
    }

    fn write(&mut self, faults: bool) -> Event {
        let fault = match self.up_to(if faults { 10 } else { 1 }) {
            6 => Fault::Before,
            7 => Fault::AnswerLost,
            8 => Fault::CommitsLater(true),
            9 => Fault::CommitsLater(false),
            _ => Fault::None,
        };
        let range = *self.machine.in_hand();
        let tables = if range.fates.delivered > 0 { std::mem::take(&mut self.rows) } else { Vec::new() };
        let chunk = Chunk { part: Part::spool(), from: range.from, to: range.to, bytes: range.bytes, tables };
        self.machine.is_writing();
        match self.store.write(&chunk, fault) {
            Ok(Written::Refused(refusals)) => {
                (self.rows, self.refusals) = (chunk.tables, refusals);
                Event::Refused
            }
            Ok(Written::Accepted) if self.up_to(3) > 0 => Event::Accepted,
            Ok(Written::Accepted | Written::Committed) => {
                self.store.applied = self.store.position;
                Event::Committed
            }
            Err(error) => Event::Failed(error),
        }
    }

    fn bury(&mut self) -> Event {
        let derived = self.feeder.derived_among(&self.refusals);
        let origins = self.feeder.origins(self.machine.in_hand().from, &derived).unwrap();
        let letters = self.feeder.letters(&self.rows, &self.refusals, Timestamp(0), &origins);
        let letters = letters.expect("rows of the chunk");
        self.keep(&letters);
        Event::Buried
    }

    fn keep(&mut self, letters: &[DeadLetter]) {
        self.letters().append(letters).unwrap();
        self.refused.extend(letters.iter().map(DeadLetter::cause));
        self.feeder.leave_out(letters.iter().map(DeadLetter::cause));
    }

    fn letters(&mut self) -> &mut DeadLetters {
        self.letters.as_mut().expect("open before anything is read")
    }

    fn check(&mut self) {
        let seed = self.seed;
        let synced = self.log.synced().borrow().offset;
        assert_eq!(self.machine.next_is_end(), Some(true), "seed {seed} did not come to its end: {:?}", self.machine);
        let stored: Vec<u64> = self.store.rows.iter().map(|cause| cause.offset).collect();
        let all = self.log.rows("trades");
        let letters: HashMap<u64, DeadLetter> =
            self.letters().all().into_iter().map(|letter| (letter.offset, letter)).collect();
        // By what it is a row of at last: a row that is sent again stands for the one that was refused.
        let sent = |letter: &DeadLetter| letter.redriven.map(|row| row.offset);
        let counts: BTreeSet<u64> = all.iter().copied().chain(letters.values().filter_map(sent)).collect();
        let want: Vec<u64> = counts.iter().copied().filter(|offset| !letters.contains_key(offset)).collect();
        assert_eq!(stored, want, "seed {seed}: stored rows are not those of the log, each once, in order");
        assert!(
            self.store
                .refuses
                .iter()
                .filter(|offset| counts.contains(offset))
                .all(|offset| letters.contains_key(offset)),
            "seed {seed}: a refused row is nowhere"
        );
        for (offset, cause) in &self.redrives {
            let of = letters.get(&cause.offset);
            assert!(of.is_none_or(|letter| letter.redriven.is_some()), "seed {seed}: {offset} does not send {cause}");
            let again = letters.get(offset);
            assert!(again.is_none_or(|letter| letter.redrive_of == Some(*cause)), "seed {seed}: {again:?}");
        }
        let waiting = letters.values().filter(|letter| letter.redriven.is_none()).count() as u64;
        assert_eq!(self.letters.as_ref().map_or(0, DeadLetters::count), waiting, "seed {seed}");
        assert_eq!(self.store.position.unwrap_or(SpoolPosition::START).offset, synced, "seed {seed}");
    }

    fn up_to(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % n
    }
}

impl Machine {
    fn next_is_end(&self) -> Option<bool> {
        self.balance().map(|_| self.failure().is_none() && self.is_ended())
    }
}

fn process(log: &MemoryLog, seed: u64) -> (Machine, Feeder<MemoryLog>) {
    let settings = Settings {
        batch_rows: 4,
        linger: Duration::from_millis(seed % 3),
        retry_first: Duration::from_millis(1),
        retry_longest: Duration::from_millis(10),
        breaker_failures: NonZeroU32::new(3).unwrap(),
        breaker_open_for: Duration::from_millis(20),
        breaker_successes: NonZeroU32::new(2).unwrap(),
        probe_every: Duration::from_secs(1),
        seed,
    };
    let tables: TableChoice = serde_json::from_str(r#"["trades"]"#).unwrap();
    let bounds = Bounds { rows: 4, bytes: 1 << 20 };
    let feeder = Feeder::new(log.clone(), "memory", "test", vec![log.source()], tables, bounds).unwrap();
    (Machine::new(settings), feeder)
}
