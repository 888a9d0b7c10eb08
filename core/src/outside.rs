//! What the engine asks of the machine that it runs on: the wall clock, luck, memory, threads that may
//! block, directories.
//!
//! All of it stands here, since the bench of histories (`sim`, in this crate's tests) is another machine: its clocks step,
//! its disks fail, and one seed gives one history.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    path::Path,
    sync::Arc,
};

use tokio::task::JoinHandle;

use crate::{
    row::Timestamp,
    spool::disk::{Disk, RealDisk},
};

/// Returns the time of the wall clock.
pub(crate) fn wall_clock() -> Timestamp {
    #[cfg(test)]
    if let Some(at) = crate::sim::machine::wall_clock() {
        return at;
    }
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Draws a number that nobody draws again. The standard library seeds its hash maps with the system's randomness.
pub(crate) fn draw() -> u64 {
    #[cfg(test)]
    if let Some(number) = crate::sim::machine::draw() {
        return number;
    }
    RandomState::new().hash_one("tidegate")
}

/// Returns what tells this process from others that run now.
pub(crate) fn process_id() -> u32 {
    #[cfg(test)]
    if crate::sim::machine::is_simulated() {
        return 1;
    }
    std::process::id()
}

/// Returns how many bytes may wait for an fsync: they are held in memory, since a failed fsync means to write them again.
#[inline]
pub(crate) fn max_unsynced() -> usize {
    #[cfg(test)]
    if let Some(most) = crate::sim::machine::max_unsynced() {
        return most;
    }
    64 << 20
}

/// Runs what may block on another thread.
pub(crate) fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(test)]
    if crate::sim::machine::is_simulated() {
        return crate::sim::machine::spawn_blocking(work);
    }
    tokio::task::spawn_blocking(work)
}

/// Makes a directory where there is none.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if crate::sim::machine::is_simulated() {
        return Ok(());
    }
    std::fs::create_dir_all(path)
}

/// Returns the disk with a directory.
pub(crate) fn disk_with(path: &Path) -> Arc<dyn Disk> {
    #[cfg(test)]
    if let Some(disk) = crate::sim::machine::disk_with(path) {
        return Arc::new(disk);
    }
    Arc::new(RealDisk::at(path))
}
