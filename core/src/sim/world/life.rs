//! A process from its start to its end, and what happens to it meanwhile.

use std::{path::Path, time::Duration};

use tokio::time::Instant;

use super::{End, World, locked};
use crate::{
    Kind,
    policy::Random,
    sim::{
        engine::{self, Ended, Engine, SPOOL},
        machine,
        plan::{Op, What},
        store::Contents,
        venue::{BEGAN, SECOND},
    },
    spool::{Cursor, Standing},
    testkit::{Failure, SimDisk},
};

/// A process and the world around it.
pub(super) struct Life<'a> {
    pub(super) world: &'a mut World,
    pub(super) began: Instant,
    pub(super) before: Duration,
    /// Reads the log for the recorder.
    pub(super) cursor: Option<Cursor>,
}

impl Life<'_> {
    pub(super) async fn run<'o>(&mut self, ops: &mut impl Iterator<Item = &'o Op>) -> Result<End, String> {
        let is_known = self.is_known();
        if is_known {
            let World { recorder, venue, .. } = &mut *self.world;
            let copy = disk().copy();
            copy.kill();
            recorder.compare_restart(copy, engine::spool_options(), venue)?;
        }
        let mut engine = match Engine::start(&self.world.setting, &self.world.stores) {
            Ok(engine) => engine,
            Err(error) => {
                self.world.tell(format!("it does not start: {}", error.chain()));
                if machine::has_died() {
                    return Ok(End::Killed);
                }
                if std::mem::take(&mut self.world.is_failing) {
                    return Ok(End::Failed);
                }
                if self.world.has_flipped && error.kind() == Kind::Permanent {
                    return Ok(End::Noticed(error.chain()));
                }
                return Err(format!("the pipeline does not start: {}", error.chain()));
            }
        };
        self.world.tell(format!("the pipeline runs, behind {}", engine.reader.end()));
        if is_known {
            self.world.recorder.compare(&engine.reader)?;
        }
        self.world.recorder.resume_ledger(&engine.reader);
        self.cursor = Some(self.world.recorder.cursor(&engine.reader));
        for op in ops {
            self.at();
            if let Some(end) = self.step(&mut engine, op) {
                if matches!(end, End::Restarted) {
                    return self.stop(engine, End::Restarted).await;
                }
                return Ok(end);
            }
            self.pass(op.pause).await;
            if let Some(end) = self.look(&engine)? {
                return Ok(end);
            }
        }
        self.heal(engine).await
    }

    /// Returns whether the spool's files are what processes have left.
    fn is_known(&self) -> bool {
        !self.world.has_restored && !self.world.has_flipped && self.world.recorder.position.is_some()
    }

    /// Takes note of the time.
    fn at(&mut self) {
        machine::goes_on();
        self.world.elapsed = self.before + self.began.elapsed();
        self.world.venue.market.now = BEGAN + self.world.elapsed.as_secs() as i64;
    }

    async fn pass(&mut self, pause: Duration) {
        if pause.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(pause).await;
        }
        self.at();
    }

    fn step(&mut self, engine: &mut Engine, op: &Op) -> Option<End> {
        let mut random = Random::new(op.luck);
        let wall = machine::wall_clock().unwrap_or_default();
        if op.what.is_fault() || self.world.tells_all {
            self.world.tell(op.what.to_string());
        }
        let World { venue, recorder, .. } = &mut *self.world;
        match op.what {
            What::Make => _ = venue.make(&mut random),
            What::Deliver(line) => {
                for _ in 0..=random.below(3) {
                    venue.deliver(line, &mut engine.links[line], wall);
                }
            }
            What::Connect(line) => venue.connect(line, &mut engine.links[line]),
            What::Ask => {
                let asks = engine.running.asks[0].borrow().clone();
                venue.ask(&asks, &mut engine.links, &mut random);
            }
            What::Answer => venue.answer(&mut random),
            What::Receive => venue.receive(&mut engine.links, wall),
            What::Cut(line) => venue.cut(line, &mut engine.links[line], "cut"),
            What::Leave(line) => venue.leave(line, &mut engine.links[line], &mut random),
            What::Renumber if recorder.knows_numbering(2, venue.market.books[2].epoch()) => {
                venue.market.restart(2);
                // What follows is clearly later.
                self.before += Duration::from_secs(3);
                machine::step_clock(3 * SECOND);
            }
            What::Renumber => {}
            What::Misdeliver(line) => venue.misdeliver(line, &mut random),
            _ => {
                if let Some(end) = self.befall(op, &mut random) {
                    return Some(end);
                }
            }
        }
        self.hand_over(engine);
        None
    }

    /// Something befalls the process, its disks or its stores.
    fn befall(&mut self, op: &Op, random: &mut Random) -> Option<End> {
        let World { venue, stores, copies, has_restored, .. } = &mut *self.world;
        match op.what {
            What::Kill => return Some(End::Killed),
            What::KillAfter(changes) => {
                let disks = machine::disks();
                disks[random.below(disks.len() as u64) as usize].1.kill_after(changes);
            }
            What::CutPower => return Some(End::PowerCut(op.luck)),
            What::Restart => return Some(End::Restarted),
            What::Fail(failure) => {
                let disks = machine::disks();
                disks[random.below(disks.len() as u64) as usize].1.fail(failure);
                self.world.is_failing = true;
            }
            What::Mend => engine::mend_disks(),
            What::SlowDisk(millis) => machine::slow_down(millis),
            What::Meet(sink, fault) => locked(&stores[sink]).faults.push_back(fault),
            What::Down(sink) => locked(&stores[sink]).is_down = true,
            What::Up(sink) => locked(&stores[sink]).is_down = false,
            What::Refuse => {
                let next = venue.market.made.len() as u64;
                stores.iter().for_each(|store| locked(store).refuse(next));
            }
            What::Take => stores.iter().for_each(|store| locked(store).refuses.clear()),
            What::EndTransaction(sink) => locked(&stores[sink]).end_transaction(),
            What::StepClock(by) => machine::step_clock(by),
            What::Flip => self.flip(random),
            What::CopySpool => {
                self.world.spool_copy = Some(disk().copy());
            }
            What::RestoreSpool => return self.restore_spool(),
            What::CopyStore(sink) => copies[sink] = Some(locked(&stores[sink]).contents.clone()),
            What::RestoreStore(sink) => {
                if let Some(copy) = copies[sink].clone() {
                    locked(&stores[sink]).restore(copy);
                    *has_restored = true;
                }
            }
            What::EmptyStore(sink) => {
                locked(&stores[sink]).restore(Contents::default());
                *has_restored = true;
            }
            _ => {}
        }
        None
    }

    /// Links hand over what they have; one that is refused begins another session, as its driver does.
    fn hand_over(&mut self, engine: &mut Engine) {
        for (line, link) in engine.links.iter_mut().enumerate() {
            if let Err(error) = link.hand_over() {
                let why = error.to_string();
                self.world.venue.cut(line, link, &why);
                self.world.tell(format!("line {line} ends its session: {why}"));
            }
        }
    }

    /// Looks at what may be seen after each step.
    fn look(&mut self, engine: &Engine) -> Result<Option<End>, String> {
        if let Some(panic) = machine::first_panic() {
            return Err(panic);
        }
        if machine::has_died() {
            return Ok(Some(End::Killed));
        }
        self.record(engine)?;
        if let Some(at) = self.world.cut_at.take_if(|at| *at <= self.world.elapsed) {
            self.world.tell("the power fails, soon after".to_owned());
            return Ok(Some(End::PowerCut(at.as_nanos() as u64)));
        }
        if engine.has_failed() {
            if std::mem::take(&mut self.world.is_failing) {
                self.world.tell("the pipeline has failed, and a person mends the disk".to_owned());
                return Ok(Some(End::Failed));
            }
            return Err("intake has ended on a disk that is well".to_owned());
        }
        self.stores_are_behind(engine)?;
        if self.world.setting.seed.is_multiple_of(EACH_STEP) && self.is_known() {
            let copy = disk().copy();
            let mut random = Random::new(self.world.elapsed.as_nanos() as u64);
            copy.cut_power(|most| random.below(most + 1));
            self.world.recorder.compare_power_cut(copy, engine::spool_options())?;
        }
        Ok(None)
    }

    fn record(&mut self, engine: &Engine) -> Result<(), String> {
        let World { recorder, venue, .. } = &mut *self.world;
        if let Some(cursor) = &mut self.cursor {
            recorder.read(cursor, u64::MAX, venue)?;
        }
        recorder.look_behind_loss(&engine.reader);
        let position = recorder.position;
        let told = recorder.told.as_mut().map(std::mem::take).unwrap_or_default();
        told.into_iter().chain(machine::said()).for_each(|line| self.world.tell(line));
        let floor = crate::delivery::Floor { committed: position, ..Default::default() };
        engine.ledger.send_if_modified(|shown| std::mem::replace(shown, floor) != floor);
        Ok(())
    }

    /// I3: no store is ahead of what is durable.
    fn stores_are_behind(&self, engine: &Engine) -> Result<(), String> {
        if self.world.has_restored || self.world.has_flipped {
            return Ok(());
        }
        for store in &self.world.stores {
            let store = locked(store);
            if let Some(broken) = &store.broken {
                return Err(broken.clone());
            }
            let Some(position) = store.contents.position else { continue };
            let standing = engine.reader.check(position);
            if !matches!(standing, Standing::Retained | Standing::Dropped) {
                let end = engine.reader.end();
                return Err(format!("I3: {} is at {position}, the log ends at {end}: {standing:?}", store.name));
            }
        }
        Ok(())
    }

    fn flip(&mut self, random: &mut Random) {
        let disk = disk();
        let names: Vec<String> = disk.names().into_iter().filter(|name| name.ends_with(".seg")).collect();
        let name = &names[random.below(names.len() as u64) as usize];
        let len = disk.bytes(name).len() as u64;
        if len > 0 {
            disk.flip(name, random.below(len) as usize, random.below(8) as u8);
            self.world.has_flipped = true;
        }
    }

    fn restore_spool(&mut self) -> Option<End> {
        let copy = self.world.spool_copy.as_ref()?.copy();
        copy.kill();
        copy.fail(Failure::None);
        machine::replace_disk(Path::new(SPOOL), copy);
        self.world.recorder.went_back();
        self.world.log_went_back = true;
        self.world.has_restored = true;
        Some(End::Killed)
    }

    async fn stop(&mut self, engine: Engine, end: End) -> Result<End, String> {
        let ledger = engine.ledger.clone();
        let Ended { intake, sinks } = engine.stop().await;
        self.at();
        let World { recorder, venue, .. } = &mut *self.world;
        if let Some(cursor) = &mut self.cursor {
            recorder.read(cursor, u64::MAX, venue)?;
        }
        drop(ledger);
        if machine::has_died() {
            return Ok(End::Killed);
        }
        if let Err(error) = intake {
            if std::mem::take(&mut self.world.is_failing) {
                return Ok(End::Failed);
            }
            return Err(format!("intake has ended on a disk that is well: {}", error.chain()));
        }
        for (sink, outcome) in sinks.into_iter().enumerate() {
            if let Some(balance) = outcome.balance
                && !balance.is_even()
            {
                return Err(format!("I2: the balance of sink {sink} is not even: {balance:?}"));
            }
            if let Some(why) = outcome.failure {
                if self.world.has_restored || self.world.has_flipped {
                    return Ok(End::Noticed(why));
                }
                if !std::mem::take(&mut self.world.is_failing) {
                    return Err(format!("sink {sink} needs a person, for no reason: {why}"));
                }
                return Ok(End::Failed);
            }
        }
        Ok(end)
    }

    /// All faults are over: what is missing comes, and is delivered.
    async fn heal(&mut self, mut engine: Engine) -> Result<End, String> {
        self.world.tell("all faults are over".to_owned());
        engine::mend_disks();
        machine::disks().iter().for_each(|(_, disk)| disk.spare());
        machine::slow_down(5);
        self.world.venue.heal();
        self.world.cut_at = None;
        for store in &self.world.stores {
            let mut store = locked(store);
            store.is_down = false;
            store.faults.clear();
        }
        let mut random = Random::new(self.world.setting.seed);
        let is_begun = self.world.summary.made > 0;
        for round in 0..ROUNDS {
            let wall = machine::wall_clock().unwrap_or_default();
            let venue = &mut self.world.venue;
            venue.connect(0, &mut engine.links[0]);
            if round == 0 && !is_begun {
                (0..2).for_each(|stream| venue.make_last(stream));
            }
            for _ in 0..4 {
                venue.deliver(0, &mut engine.links[0], wall);
            }
            venue.deliver(1, &mut engine.links[1], wall);
            let asks = engine.running.asks[0].borrow().clone();
            venue.ask(&asks, &mut engine.links, &mut random);
            venue.answer(&mut random);
            venue.receive(&mut engine.links, wall);
            self.hand_over(&mut engine);
            // Where nothing is on its way, nothing happens before the next gap may be asked for.
            let due = asks.iter().filter_map(|ask| ask.not_before).min();
            let due = due.map_or(LONGEST_PAUSE, |at| at.saturating_duration_since(Instant::now()));
            let is_waiting = self.world.venue.is_idle() && round > 20;
            self.pass(if is_waiting { due.clamp(PAUSE, LONGEST_PAUSE) } else { PAUSE }).await;
            if let Some(end) = self.look(&engine)? {
                return Ok(end);
            }
            let is_logged = engine.links.iter_mut().all(crate::intake::Link::is_logged);
            let is_quiet = self.world.venue.is_idle() && asks.is_empty() && is_logged;
            if is_quiet && round > 20 {
                self.world.summary.made = self.world.venue.market.made.len();
                self.world.tell("all is quiet".to_owned());
                return self.stop(engine, End::Done).await;
            }
        }
        let asks = format!("gaps stay open: {:?}", *engine.running.asks[0].borrow());
        // A sink that needs a person, since somebody has restored something or its disk has failed, has all it may have in
        // hand, and a spool that is full of that takes nothing.
        match self.stop(engine, End::Done).await? {
            end @ (End::Noticed(_) | End::Failed) => Ok(end),
            _ => Err(asks),
        }
    }
}

/// Returns the spool's disk.
fn disk() -> SimDisk {
    machine::disk_with(Path::new(SPOOL)).unwrap_or_default()
}

/// One history of so many is looked at as if the power failed after each step.
const EACH_STEP: u64 = 1_000;

/// How long a round lasts when all faults are over.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// After so many rounds all has to be there.
const ROUNDS: u32 = 4_000;
