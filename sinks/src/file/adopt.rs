//! What `tidegate adopt` and the renaming commands ask of a folder, while nobody writes to it. Blocks, and holds up nobody:
//! the pipeline does not run.

use std::{
    fs::{self, OpenOptions},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use tidegate_core::{
    Error, Result,
    sink::{Claim, Owner},
    spool::SpoolPosition,
};

use super::{
    config::FileConfig,
    folder::{files_named, lock},
    record::{Record, failed, sync_directory},
};

/// Reads whose the files are. Makes nothing.
pub(super) fn claim(config: &FileConfig, owner: &Owner) -> Result<Option<Claim>> {
    let path = config.path.of(&owner.pipeline).join(Record::name(owner));
    Ok(read(&path)?.and_then(Record::claim))
}

/// Sets the position, where that tears no file apart.
pub(super) fn adopt(config: &FileConfig, owner: &Owner, at: SpoolPosition) -> Result<()> {
    let directory = config.path.of(&owner.pipeline);
    fs::create_dir_all(&directory).map_err(|error| failed("make the directory", &directory, error))?;
    let _lock = lock(&directory)?;
    let path = directory.join(Record::name(owner));
    let record = read(&path)?.unwrap_or_else(|| Record::new(owner, config.format));
    // What lies behind the position does not count, and would be removed at the next start.
    let files = files_named(&directory, config.format, |_| true)?;
    let behind: Vec<_> = files.iter().filter(|(_, first)| *first > at.offset).collect();
    if let Some((name, _)) = behind.first() {
        let (directory, count, at) = (directory.display(), behind.len(), at.offset);
        return Err(Error::permanent(format!(
            "`{directory}` holds {count} files that begin behind offset {at}, from which on rows are written again, such as \
             `{name}`: move them away, then give the same command again"
        )));
    }
    for file in record.files.values() {
        cut(&directory.join(&file.name), file.bytes)?;
    }
    record.adopted(owner, at).write(&path)
}

/// Gives the folder and its record the new names.
pub(super) fn rename(config: &FileConfig, old: &Owner, owner: &Owner) -> Result<()> {
    let (from, to) = (config.path.of(&old.pipeline), config.path.of(&owner.pipeline));
    if from != to && from.is_dir() {
        fs::rename(&from, &to).map_err(|error| failed("put the folder of the old name in the place of", &to, error))?;
    }
    if !to.is_dir() {
        return Ok(());
    }
    let _lock = lock(&to)?;
    match fs::rename(to.join(Record::name(old)), to.join(Record::name(owner))) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("rename the record in", &to, error)),
        Ok(()) | Err(_) => sync_directory(&to),
    }
}

/// Reads the record, whoever it belongs to; none where there is none that could be read.
fn read(path: &PathBuf) -> Result<Option<Record>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, error)),
    }
}

/// Cuts a file in work to what counts of it: nobody knows that any more once the record is another one.
fn cut(path: &Path, bytes: u64) -> Result<()> {
    let file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(|error| failed("open", path, error))?,
    };
    let length = file.metadata().map_err(|error| failed("look at", path, error))?.len();
    if length > bytes {
        file.set_len(bytes).and_then(|()| file.sync_all()).map_err(|error| failed("cut", path, error))?;
    }
    Ok(())
}
