//! One history: a process after the other between a venue that makes records and stores that take them.

mod life;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use self::life::Life;
use super::{
    check, engine, ledger, machine,
    plan::{Op, Setting},
    recorder::Recorder,
    store::{Contents, Shared, Store},
    venue::{BEGAN, SECOND, Venue},
};
use crate::{policy::Random, row::Timestamp, spool::Cause, testkit::SimDisk};

/// What came of a history that broke no rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) made: usize,
    pub(super) stored: usize,
    pub(super) processes: u32,
    /// Why it ended early: somebody restored something, and it was noticed.
    pub(super) noticed: Option<String>,
}

pub(super) struct World {
    pub(super) setting: Setting,
    pub(super) venue: Venue,
    pub(super) stores: Vec<Shared>,
    pub(super) recorder: Recorder,
    pub(super) summary: Summary,
    /// What happened, in words.
    pub(super) story: Vec<String>,
    /// Whether that is all that happened.
    tells_all: bool,
    /// How long it has lasted, by the monotonic clock.
    elapsed: Duration,
    copies: Vec<Option<Contents>>,
    spool_copy: Option<SimDisk>,
    /// Whether somebody brought back what was older, so that it may be noticed.
    pub(super) has_restored: bool,
    /// Whether the log went back, so that what it had said is no longer known.
    pub(super) log_went_back: bool,
    pub(super) has_flipped: bool,
    is_failing: bool,
    /// When the power fails, since the last process was killed in the middle of a change.
    cut_at: Option<Duration>,
}

/// How a process ended.
#[derive(Debug)]
enum End {
    Killed,
    /// The disk failed, and a person starts the pipeline again.
    Failed,
    PowerCut(u64),
    Restarted,
    Noticed(String),
    /// All is delivered, and the pipeline was stopped.
    Done,
}

impl World {
    fn new(setting: Setting) -> Self {
        let store = |(sink, kind): (usize, &_)| {
            let seed = setting.seed.wrapping_add(sink as u64);
            Arc::new(Mutex::new(Store::new(&format!("sink{sink}"), *kind, setting.stores_wait, seed)))
        };
        let stores: Vec<Shared> = setting.sinks.iter().enumerate().map(store).collect();
        Self {
            venue: Venue::new(&setting),
            copies: vec![None; stores.len()],
            stores,
            recorder: Recorder::default(),
            summary: Summary::default(),
            story: Vec::new(),
            tells_all: false,
            elapsed: Duration::ZERO,
            spool_copy: None,
            has_restored: false,
            log_went_back: false,
            has_flipped: false,
            is_failing: false,
            cut_at: None,
            setting,
        }
    }

    /// Lives through a history, to the end and a bit further; returns it with what rule was broken, if one was.
    pub(super) fn run(setting: &Setting, ops: &[Op]) -> (Self, Result<(), String>) {
        machine::build(setting.seed, Timestamp(BEGAN * SECOND), setting.max_unsynced);
        machine::disk_with(Path::new(engine::SPOOL)).unwrap_or_default().keep_removed();
        let mut world = Self::new(setting.clone());
        world.tells_all = ops.len() < FEW_STEPS;
        world.recorder.told = std::env::var("SIM_ITEMS").is_ok().then(Vec::new);
        let mut result = world.live(ops);
        let panics = machine::scrap();
        if let Some(panic) = panics.into_iter().next() {
            result = Err(panic);
        }
        world.summary.made = world.venue.market.made.len();
        (world, result)
    }

    fn live(&mut self, ops: &[Op]) -> Result<(), String> {
        let mut ops = ops.iter();
        // Whoever starts it again after each failure mends the disk first.
        loop {
            let end = self.process(&mut ops)?;
            self.venue.hang_up();
            match end {
                End::Killed => {
                    machine::disks().iter().for_each(|(_, disk)| disk.kill());
                    let mut random = Random::new(self.elapsed.as_nanos() as u64);
                    let millis = self.setting.power_follows.then(|| random.below(SOON));
                    self.cut_at = millis.map(|millis| self.elapsed + Duration::from_millis(millis));
                }
                End::Failed => {
                    engine::mend_disks();
                    machine::disks().iter().for_each(|(_, disk)| disk.kill());
                }
                End::PowerCut(luck) => {
                    let mut random = Random::new(luck);
                    for (_, disk) in machine::disks() {
                        disk.cut_power(|most| random.below(most + 1));
                    }
                }
                End::Restarted => {}
                End::Noticed(text) => {
                    self.tell(format!("noticed: {text}"));
                    self.summary.noticed = Some(text);
                    return check::nothing_is_wrong(self);
                }
                End::Done => break,
            }
        }
        check::all_is_there(self)?;
        // What a bit has taken along the ledger learns from what intake knows at the next start.
        if !self.has_flipped {
            ledger::says_the_truth(self)?;
        }
        self.restart_changes_nothing()?;
        if self.log_went_back { Ok(()) } else { ledger::says_the_truth(self) }
    }

    /// Runs a process to its end.
    fn process<'a>(&mut self, ops: &mut impl Iterator<Item = &'a Op>) -> Result<End, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let before = self.elapsed;
        let end = runtime.block_on(async {
            let began = Instant::now();
            machine::start_clock(began);
            let mut life = Life { world: self, began, before, cursor: None };
            let end = life.run(ops).await;
            machine::stop_clock();
            end
        });
        drop(runtime);
        self.summary.processes += 1;
        end
    }

    /// I20: a restart without faults changes no row.
    fn restart_changes_nothing(&mut self) -> Result<(), String> {
        let before: Vec<_> = self.stores.iter().map(|store| locked(store).rows()).collect();
        let end = self.process(&mut [].iter())?;
        // What a bit has taken along may be asked for again at each start.
        if matches!(end, End::Noticed(_)) || self.has_flipped {
            return Ok(());
        }
        if !matches!(end, End::Done) {
            return Err(format!("I20: a restart after all was delivered did not end well: {end:?}"));
        }
        for (store, before) in self.stores.iter().zip(before) {
            let store = locked(store);
            let now = store.rows();
            if now != before {
                let gone: Vec<_> = before.iter().filter(|row| !now.contains(row)).collect();
                // What was believed not to be, or given up, may come after all.
                let is_excused = |record: &u64| check::is_excused(self, *record as usize);
                let is_new = |row: &&(usize, Cause, u64)| !before.contains(row) && !is_excused(&row.2);
                let new: Vec<_> = now.iter().filter(is_new).collect();
                if gone.is_empty() && new.is_empty() {
                    continue;
                }
                return Err(format!("I20: a restart has changed {}: gone {gone:?}, new {new:?}", store.name));
            }
        }
        Ok(())
    }

    pub(super) fn tell(&mut self, what: String) {
        let at = self.elapsed.as_secs_f64();
        self.story.push(format!("{at:8.3} s  {what}"));
    }
}

pub(super) fn locked(store: &Shared) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where one accident follows on another, it does so within so many milliseconds.
const SOON: u64 = 1_500;

/// Of so few steps each one is told.
const FEW_STEPS: usize = 250;
