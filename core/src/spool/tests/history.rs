//! Random histories of appends, syncs, rolls, retention, failing disks, kills and power cuts against a model: what a
//! reader may see is what was appended, in order, nothing twice, and everything that was durable.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::testkit::Failure;

#[derive(Debug, Clone)]
enum Event {
    Append {
        count: u32,
        bytes: usize,
    },
    Sync,
    /// Begins an fsync that ends with a later `Land`, or never.
    Launch,
    Land,
    Roll,
    /// Lets go up to a share of what is durable, and perhaps dies before the files are gone.
    Retain {
        share: u8,
        removed: bool,
    },
    Fail(Failure),
    Kill,
    CutPower(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (1..5_u32, 0..3000_usize).prop_map(|(count, bytes)| Event::Append { count, bytes }),
        4 => Just(Event::Sync),
        3 => Just(Event::Launch),
        3 => Just(Event::Land),
        4 => Just(Event::Roll),
        2 => Just(Event::Retain { share: u8::MAX, removed: true }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(share, removed)| Event::Retain { share, removed }),
        1 => (0..4_u32).prop_map(|n| Event::Fail(Failure::OneSync(n))),
        1 => (0..4_u32).prop_map(|n| Event::Fail(Failure::Writes(n))),
        1 => (0..20_000_u64).prop_map(|n| Event::Fail(Failure::Full(n))),
        1 => Just(Event::Fail(Failure::OneDirSync)),
        1 => (0..4_u32).prop_map(|n| Event::Fail(Failure::Opens(n))),
        1 => Just(Event::Fail(Failure::Names)),
        1 => Just(Event::Fail(Failure::Syncs)),
        1 => Just(Event::Fail(Failure::ReadOnly)),
        2 => Just(Event::Fail(Failure::None)),
        2 => Just(Event::Kill),
        2 => any::<u64>().prop_map(Event::CutPower),
    ]
}

struct World {
    disk: SimDisk,
    writer: SpoolWriter,
    flying: Option<SyncDone>,
    /// All entries that were taken and may still be there.
    log: Vec<Seen>,
    /// Every item that a reader could ever see.
    visible: BTreeMap<u64, Vec<u8>>,
    floor: u64,
    appended: u64,
    /// An fsync and what should have mended it have both failed: what was not durable may be gone.
    has_failed: bool,
}

impl World {
    fn new() -> Self {
        let disk = SimDisk::default();
        let begun = recover(&disk).unwrap().begin(snapshot(0), Timestamp(0), "0.0.0").unwrap();
        let log = vec![boot_entry(&begun)];
        Self {
            disk,
            writer: begun.writer,
            flying: None,
            log,
            visible: BTreeMap::new(),
            floor: 0,
            appended: 0,
            has_failed: false,
        }
    }

    fn on(&mut self, event: &Event) {
        match event {
            Event::Append { count, bytes } => self.append(*count, *bytes),
            Event::Sync => {
                self.land();
                self.sync();
            }
            Event::Launch => {
                self.land();
                self.flying = self.writer.sync_job().map(SyncJob::run);
            }
            Event::Land => self.land(),
            Event::Roll => {
                // Without room, or on a failing disk, the old segment goes on.
                drop(self.writer.roll(snapshot(self.writer.next_offset() - 1)));
            }
            Event::Retain { share, removed } => self.retain(*share, *removed),
            Event::Fail(failure) => self.disk.fail(*failure),
            Event::Kill => self.restart(None),
            Event::CutPower(seed) => self.restart(Some(*seed)),
        }
        self.look();
    }

    fn append(&mut self, count: u32, bytes: usize) {
        self.appended += 1;
        let mut payload = vec![0; bytes.max(8)];
        payload[..8].copy_from_slice(&self.appended.to_le_bytes());
        match self.writer.append(&rows(count, &payload), Duration::ZERO) {
            Ok(Append::Written { first, .. }) => {
                self.log.push((self.writer.boot(), first, vec![payload; count as usize]));
            }
            Ok(Append::Full | Append::Behind) => {}
            // The pipeline has failed: a person mends the disk and starts it again.
            Err(_) => self.restart(None),
        }
    }

    fn sync(&mut self) {
        if sync(&mut self.writer).is_err() {
            self.has_failed = true;
            self.restart(None);
        }
    }

    fn land(&mut self) {
        if let Some(done) = self.flying.take()
            && self.writer.synced(done).is_err()
        {
            self.has_failed = true;
            self.restart(None);
        }
    }

    fn retain(&mut self, share: u8, removed: bool) {
        let durable = self.writer.synced_position().offset;
        self.floor = self.floor.max(durable * u64::from(share) / 255);
        let floor = Floor { offset: self.floor, now: Duration::ZERO };
        let job = self.writer.retain(floor);
        if removed && let Some(job) = job {
            // What cannot be removed is found again at the next start.
            drop(job.run());
        }
    }

    /// Every item that is visible now was visible as the same before.
    fn look(&mut self) {
        // What fails for a reader it reads later.
        let failing = self.disk.failure();
        self.disk.fail(Failure::None);
        self.look_around();
        self.disk.fail(failing);
    }

    fn look_around(&mut self) {
        let from = self.writer.synced_position().offset.saturating_sub(20).max(self.writer.reader().oldest().offset);
        let (seen, missing) = read(&self.writer.reader(), SpoolPosition { offset: from, ..SpoolPosition::START });
        assert_eq!(missing, []);
        self.check_visible(seen);
    }

    fn check_visible(&mut self, seen: Vec<Seen>) {
        for (_, first, items) in seen {
            for (offset, item) in (first..).zip(items) {
                let known = self.visible.entry(offset).or_insert_with(|| item.clone());
                assert_eq!(*known, item, "offset {offset} was seen with other bytes");
            }
        }
    }

    fn restart(&mut self, power: Option<u64>) {
        let durable = self.writer.synced_position().offset;
        // It may die before it hears how the fsync under way has ended.
        let unheard = self.flying.take().is_some_and(|done| self.writer.synced(done).is_err());
        let has_failed = std::mem::take(&mut self.has_failed) || unheard;
        match power {
            Some(seed) => self.disk.cut_power(luck(seed)),
            None => self.disk.kill(),
        }
        self.disk.fail(Failure::None);
        let recovery = recover(&self.disk).unwrap();
        let report = recovery.report().clone();
        assert_eq!(report.corrupt, []);
        assert!(!report.new || durable == 0, "a spool that held something is not new");
        let restored = recovery.snapshot().map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        let mut replayed = Vec::new();
        let recovery = recovery.replay(|step| match step {
            Step::Entry(entry) => replayed.push(see(&entry)),
            Step::Missing { first, last } => panic!("{first} to {last} are missing"),
        });
        let begun = recovery.unwrap().begin(snapshot(report.end), Timestamp(0), "0.0.0").unwrap();

        let reader = begun.writer.reader();
        let (seen, missing) = read(&reader, reader.oldest());
        assert_eq!(missing, []);
        let oldest = reader.oldest().offset;
        let start = self.log.iter().position(|entry| entry.1 > oldest).unwrap_or(self.log.len());
        assert!(start == 0 || self.log[start - 1].1 <= self.floor, "what somebody needs is there");
        let kept = start + seen.len();
        assert_eq!(seen, self.log[start..kept], "what is there is what was appended");
        if let Some(lost) = self.log.get(kept) {
            assert!(lost.1 > durable, "offset {} was durable up to {durable}", lost.1);
            assert!(power.is_some() || has_failed, "a killed process loses nothing");
        }
        let later: Vec<_> = seen.iter().filter(|entry| entry.1 > restored).cloned().collect();
        assert_eq!(replayed, later, "snapshot and replay are everything");

        self.check_visible(seen);
        self.log.truncate(kept);
        let highest = self.visible.keys().last().copied().unwrap_or(0);
        assert!(begun.offset > highest, "offset {} is used again", begun.offset);
        self.log.push(boot_entry(&begun));
        self.writer = begun.writer;
    }
}

fn boot_entry(begun: &Begun) -> Seen {
    (begun.writer.boot(), begun.offset, vec![format!("{:?}", begun.boot).into_bytes()])
}

/// Numbers from 0 to a limit, of which a seed makes a history.
pub(super) fn luck(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |limit| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % (limit + 1)
    }
}

#[test]
fn a_process_that_is_killed_before_it_hears_that_two_fsyncs_have_failed_has_lost_what_was_not_durable() {
    let mut world = World::new();
    for event in [
        Event::Roll,
        Event::Fail(Failure::OneSync(0)),
        Event::Append { count: 1, bytes: 0 },
        Event::Launch,
        Event::Fail(Failure::OneDirSync),
        Event::Launch,
        Event::Kill,
        Event::Append { count: 1, bytes: 0 },
        Event::Sync,
        Event::Kill,
    ] {
        world.on(&event);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_leaves_what_was_appended_in_order_and_all_that_was_durable(events in vec(event(), 1..80)) {
        let mut world = World::new();
        for event in &events {
            world.on(event);
        }
        world.disk.fail(Failure::None);
        world.restart(None);
    }
}
