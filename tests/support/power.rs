//! Power cuts without privileges: what a killed program has written and not synced is taken back, page by page, by luck.
//!
//! `power.c` is loaded into the program and notes what it changes; see there.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{DirEntryExt, FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{Random, skipped};

/// What makes the power of one folder fail.
pub struct Power {
    root: PathBuf,
    notes: TempDir,
    library: PathBuf,
}

/// What a power cut took back.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Taken {
    /// Pages of files that had been written.
    pub pages: u64,
    /// Changes of names: files made, moved, removed.
    pub names: u64,
}

impl Power {
    /// Builds the layer, where that can be had.
    pub fn of(root: &Path) -> Option<Self> {
        let notes = tempfile::tempdir().unwrap();
        let library = layer("power", notes.path())?;
        Some(Self { root: fs::canonicalize(root).unwrap(), notes, library })
    }

    /// Returns the variables that the program has to be started with.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            ("LD_PRELOAD", text(&self.library)),
            ("POWER_ROOT", text(&self.root)),
            ("POWER_NOTES", text(self.notes.path())),
            // As a disk that is neither fast nor slow.
            ("POWER_SYNC_US", "4000".to_owned()),
        ]
    }

    /// Learns that another program has made a file durable.
    pub fn synced(&self, path: impl AsRef<Path>) {
        let Ok(file) = fs::metadata(path) else { return };
        if let Ok(notes) = fs::File::options().write(true).open(self.notes.path().join(file.ino().to_string())) {
            notes.set_len(0).unwrap();
        }
    }

    /// Cuts the power: of what was not synced, whoever wrote it since the last cut, a part that luck decides is gone. The
    /// program must have been killed.
    pub fn cut(&self, luck: &mut Random) -> Taken {
        let notes: Vec<PathBuf> = fs::read_dir(self.notes.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut taken = Taken::default();
        for path in notes.iter().filter(|path| name(path).starts_with("names-")) {
            taken.names += take_back_names(&fs::read_to_string(path).unwrap(), luck);
        }
        let files = files_by_inode(&self.root);
        for path in &notes {
            let Some(file) = name(path).parse().ok().and_then(|inode: u64| files.get(&inode)) else { continue };
            taken.pages += take_back_pages(file, &fs::read(path).unwrap(), luck);
        }
        notes.iter().filter(|path| **path != self.library).for_each(|path| fs::remove_file(path).unwrap());
        taken
    }
}

/// Builds a layer between a program and the operating system, from its source beside this file. `None`, with a word on
/// standard error, where there is no C compiler or no such layer.
pub fn layer(name: &str, folder: &Path) -> Option<PathBuf> {
    let library = folder.join(format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/support/{name}.c"));
    let mut cc = Command::new("cc");
    let built = cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-lpthread").output();
    if cfg!(target_os = "linux") && built.as_ref().is_ok_and(|built| built.status.success()) {
        return Some(library);
    }
    skipped(&format!("no `{name}.c` under the program, the rest is done: it cannot be built ({built:?})"));
    None
}

/// Takes back the last changes of a folder's names: luck says how many.
fn take_back_names(notes: &str, luck: &mut Random) -> u64 {
    let mut pending: Vec<(usize, Vec<&str>)> = Vec::new();
    let mut at = 0;
    for line in notes.split_inclusive('\n') {
        let fields: Vec<&str> = line.trim_end().split('\t').collect();
        if let ["synced", began, ..] = fields[..] {
            let began: usize = began.parse().unwrap();
            pending.retain(|(at, _)| *at >= began);
        } else if line.ends_with('\n') {
            pending.push((at, fields));
        }
        at += line.len();
    }
    let lost = pending.split_off(luck.below(pending.len() as u64 + 1) as usize);
    for (_, change) in lost.iter().rev() {
        // A change that was noted and did not happen any more leaves nothing to take back.
        match change[..] {
            ["made", path, ..] => drop(fs::remove_file(path)),
            ["moved", to, from, keeping] if !Path::new(from).exists() => {
                drop(fs::rename(to, from));
                drop(fs::hard_link(keeping, to));
            }
            ["moved", ..] => {}
            ["removed", path, _, keeping] => drop(fs::hard_link(keeping, path)),
            _ => panic!("no note: {change:?}"),
        }
    }
    lost.len() as u64
}

/// Takes back what was written to a file: each page by its own luck.
fn take_back_pages(path: &Path, notes: &[u8], luck: &mut Random) -> u64 {
    let number = |at: usize| Some(u64::from_le_bytes(notes.get(at..at + 8)?.try_into().unwrap()));
    let mut pending = Vec::new();
    let mut at = 0;
    while let (Some(offset), Some(size), Some(length)) = (number(at), number(at + 8), number(at + 16)) {
        let Some(before) = notes.get(at + 24..at + 24 + length as usize) else { break };
        if offset == u64::MAX {
            pending.retain(|(noted, ..): &(usize, _, _, _)| *noted as u64 >= size);
        } else {
            pending.push((at, offset as usize, size as usize, before));
        }
        at += 24 + length as usize;
    }
    if pending.is_empty() {
        return 0;
    }
    let written = fs::read(path).unwrap();
    let mut durable = written.clone();
    for (_, offset, size, before) in pending.into_iter().rev() {
        durable.resize(durable.len().max(offset + before.len()), 0);
        durable[offset..offset + before.len()].copy_from_slice(before);
        durable.resize(size, 0);
    }
    let size = if luck.below(2) == 0 { durable.len() } else { written.len() };
    let (mut left, end) = (vec![0; size], written.len());
    let mut taken = 0;
    for (page, left) in left.chunks_mut(PAGE).enumerate() {
        let of = |bytes: &[u8]| {
            let mut copy = [0; PAGE];
            let part = bytes.get(page * PAGE..).unwrap_or_default();
            let length = part.len().min(PAGE);
            copy[..length].copy_from_slice(&part[..length]);
            copy
        };
        let (written, durable) = (of(&written), of(&durable));
        let is_lost = (page * PAGE >= end || luck.below(2) == 0) && written != durable;
        taken += u64::from(is_lost);
        let chosen = if is_lost { durable } else { written };
        left.copy_from_slice(&chosen[..left.len()]);
    }
    taken += written.len().saturating_sub(size).div_ceil(PAGE) as u64;
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&left, 0).unwrap();
    file.set_len(size as u64).unwrap();
    taken
}

fn files_by_inode(folder: &Path) -> BTreeMap<u64, PathBuf> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files.append(&mut files_by_inode(&entry.path()));
        } else {
            files.insert(entry.ino(), entry.path());
        }
    }
    files
}

const PAGE: usize = 4096;
