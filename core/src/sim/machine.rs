//! The machine that a simulated process runs on, as far as the engine asks it for something: see
//! [`outside`](crate::outside). There is one for each thread that runs a history.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};

use crate::{policy::Random, row::Timestamp, testkit::SimDisk};

/// The disks, the wall clock and the luck of one history.
#[derive(Debug)]
pub(super) struct Machine {
    /// By directory.
    disks: BTreeMap<PathBuf, SimDisk>,
    /// What the wall clock shows, and by the monotonic one since when.
    wall: (Timestamp, Option<Instant>),
    random: Random,
    /// So many bytes may wait for an fsync.
    max_unsynced: usize,
    /// Work on other threads takes up to so many milliseconds.
    slowest: u64,
    /// How much of it was asked for since the world was looked at.
    works: u32,
    /// What panicked.
    panics: Vec<String>,
    /// What the engine said, since somebody looked.
    said: Vec<String>,
}

thread_local! {
    static MACHINE: RefCell<Option<Machine>> = const { RefCell::new(None) };
}

fn with<T>(act: impl FnOnce(&mut Machine) -> T) -> Option<T> {
    MACHINE.with_borrow_mut(|machine| machine.as_mut().map(act))
}

/// Puts a new machine in place of the last one of this thread.
pub(super) fn build(seed: u64, wall: Timestamp, max_unsynced: usize) {
    let (disks, random, panics) = (BTreeMap::new(), Random::new(seed), Vec::new());
    let (wall, said) = ((wall, None), Vec::new());
    let machine = Machine { disks, wall, random, max_unsynced, slowest: 5, works: 0, panics, said };
    MACHINE.set(Some(machine));
}

/// Takes the machine away; returns what panicked on it.
pub(super) fn scrap() -> Vec<String> {
    MACHINE.take().map_or_else(Vec::new, |machine| machine.panics)
}

/// A runtime begins, with a monotonic clock of its own.
pub(super) fn start_clock(now: Instant) {
    with(|machine| machine.wall.1 = Some(now));
}

/// The runtime is about to end: without one the monotonic clock is that of the computer.
pub(super) fn stop_clock() {
    let at = wall_clock();
    with(|machine| machine.wall = (at.unwrap_or_default(), None));
}

/// Somebody sets the wall clock.
pub(super) fn step_clock(by: i64) {
    with(|machine| machine.wall.0.0 += by);
}

/// The world goes on.
pub(super) fn goes_on() {
    with(|machine| machine.works = 0);
}

/// From now on work on other threads takes up to so many milliseconds.
pub(super) fn slow_down(slowest: u64) {
    with(|machine| machine.slowest = slowest);
}

/// Something panicked; returns whether it did so on a machine.
pub(super) fn panicked(what: String) -> bool {
    // What panics while the machine is asked for something is a fault of the machine.
    MACHINE.with(|machine| match machine.try_borrow_mut() {
        Ok(mut machine) => machine.as_mut().map(|machine| machine.panics.push(what)).is_some(),
        Err(_) => false,
    })
}

/// The engine said something.
pub(super) fn say(what: String) {
    // What a disk says while the machine is asked for it is left out.
    MACHINE.with(|machine| {
        if let Ok(mut machine) = machine.try_borrow_mut() {
            machine.iter_mut().for_each(|machine| machine.said.push(what.clone()));
        }
    });
}

/// Returns what the engine has said since the last call.
pub(super) fn said() -> Vec<String> {
    with(|machine| std::mem::take(&mut machine.said)).unwrap_or_default()
}

/// Returns what has panicked so far.
pub(super) fn first_panic() -> Option<String> {
    with(|machine| machine.panics.first().cloned()).flatten()
}

pub(crate) fn is_simulated() -> bool {
    with(|_| ()).is_some()
}

pub(crate) fn wall_clock() -> Option<Timestamp> {
    with(|machine| {
        let (at, since) = machine.wall;
        let passed = since.map_or(Duration::ZERO, |since| Instant::now().saturating_duration_since(since));
        Timestamp(at.0 + passed.as_nanos() as i64)
    })
}

pub(crate) fn max_unsynced() -> Option<usize> {
    with(|machine| machine.max_unsynced)
}

pub(crate) fn draw() -> Option<u64> {
    with(|machine| machine.random.below(u64::MAX))
}

pub(crate) fn disk_with(path: &Path) -> Option<SimDisk> {
    with(|machine| machine.disks.entry(path.to_owned()).or_default().clone())
}

/// Returns all disks with their directories.
pub(super) fn disks() -> Vec<(PathBuf, SimDisk)> {
    with(|machine| machine.disks.iter().map(|(path, disk)| (path.clone(), disk.clone())).collect()).unwrap_or_default()
}

/// Returns whether a process is dead that does not know it yet.
pub(super) fn has_died() -> bool {
    with(|machine| machine.disks.values().any(SimDisk::is_dead)).unwrap_or_default()
}

/// Puts another disk in the place of the one with a directory.
pub(super) fn replace_disk(path: &Path, disk: SimDisk) {
    with(|machine| machine.disks.insert(path.to_owned(), disk));
}

/// Another thread is another task here, which takes its time first.
pub(crate) fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (works, millis) = with(|machine| {
        machine.works += 1;
        (machine.works, machine.random.below(machine.slowest + 1))
    })
    .unwrap_or_default();
    assert!(works < ENDLESS, "the process works and works, and nothing comes of it");
    tokio::spawn(async move {
        match millis {
            0 => tokio::task::yield_now().await,
            millis => tokio::time::sleep(Duration::from_millis(millis)).await,
        }
        work()
    })
}

/// Whoever asks for so much work between two steps of the world never ends.
const ENDLESS: u32 = 100_000;
