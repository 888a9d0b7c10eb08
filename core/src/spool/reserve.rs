//! A file that only takes room: when the disk is full it makes way for entries without rows, so that "full" can always be
//! written down.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use super::disk::{Disk, remove_any};

const NAME: &str = "reserve";

/// How much room is kept.
pub(super) const BYTES: u64 = 1 << 20;

/// Whether the reserve is there.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    there: AtomicBool,
}

impl Reserve {
    /// Looks for the reserve of an earlier process.
    pub(super) fn find(disk: &dyn Disk) -> Self {
        let len = disk.open(NAME).and_then(|file| file.len()).unwrap_or(0);
        let there = AtomicBool::new(len >= BYTES);
        Self { there }
    }

    pub(super) fn is_there(&self) -> bool {
        self.there.load(Ordering::Relaxed)
    }

    /// Makes way; returns whether there was anything to free.
    pub(super) fn release(&self, disk: &dyn Disk) -> bool {
        self.there.swap(false, Ordering::Relaxed) && disk.remove(NAME).is_ok()
    }

    /// Takes the room again where it is gone.
    ///
    /// # Errors
    ///
    /// When there is none: the next call tries again.
    pub(super) fn make(&self, disk: &dyn Disk) -> io::Result<()> {
        if self.is_there() {
            return Ok(());
        }
        remove_any(disk, NAME)?;
        let file = disk.create_new(NAME)?;
        // No zeros: a file system that compresses would give no room for them.
        let made = file.write_all_at(&noise(), 0).and_then(|()| file.sync_data());
        if made.is_err() {
            drop(disk.remove(NAME));
        }
        made?;
        self.there.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn noise() -> Vec<u8> {
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![0; BYTES as usize];
    for place in bytes.chunks_exact_mut(8) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}
