//! A disk of which nothing is kept: what it takes to put bytes into memory, and no more.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tidegate_core::{
    Error,
    spool::disk::{Disk, DiskFile, DiskLock},
};

/// So much of a file is memory, which is written over and over.
const WINDOW: usize = 4 << 20;

/// A directory whose files cannot be read.
#[derive(Debug, Default)]
pub(crate) struct Memory;

#[derive(Debug)]
struct Window(Mutex<Vec<u8>>);

#[derive(Debug)]
struct Nobody;

impl Disk for Memory {
    fn create_new(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Window(Mutex::new(vec![0; WINDOW]))))
    }

    fn open(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> Result<Box<dyn DiskLock>, Error> {
        Ok(Box::new(Nobody))
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

impl DiskFile for Window {
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = at as usize % WINDOW;
        for part in bytes.chunks(WINDOW) {
            // What does not fit in front of the end begins anew.
            at = if at + part.len() > WINDOW { 0 } else { at };
            window[at..at + part.len()].copy_from_slice(part);
        }
        Ok(())
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn id(&self) -> io::Result<(u64, u64)> {
        Ok((0, 0))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskLock for Nobody {}
