//! What is known of a sink, kept beside the log: with its position, a store that lost its own is not taken for a new one.

use std::{
    io::{self, ErrorKind, Read},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    rules::{Rule, holds},
    spool::{
        Boot, SpoolPosition,
        disk::{self, Disk},
    },
};

/// The file `<data>/<pipeline>/sinks/<name>.json`.
#[derive(Debug)]
pub(crate) struct Known {
    disk: Arc<dyn Disk>,
    name: String,
    noted: Noted,
}

/// What the file says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The last known position; `None` for a store that was never written to.
    pub(crate) position: Option<SpoolPosition>,
    /// Where the sink begins, or began, if not with the oldest row.
    pub(crate) begins_at: Option<SpoolPosition>,
    /// The tables that it was written with: [`Plan::chain`](crate::chunk::Plan::chain).
    pub(crate) chain: Option<u64>,
    /// The first offset of the newest segment of which the store may have something.
    pub(crate) entered: Option<u64>,
    /// Up to here it was written with other tables, or other definitions of derived ones, than `chain` says.
    pub(crate) changed: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    position: Option<Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begins_at: Option<Place>,
    /// In hexadecimal, as the boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entered: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Place {
    /// In hexadecimal: a program that reads JSON numbers as floats would change it.
    boot: String,
    offset: u64,
}

impl Known {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    ///
    /// `Permanent` when it cannot be read or is none of ours: what it said must not be guessed. `Transient` when it cannot be
    /// read for now, as when a process has too many open files.
    pub(crate) fn open(disk: Arc<dyn Disk>, sink: &str) -> Result<Self> {
        let name = file_name(sink);
        let shown = || format!("`{}/{name}`", disk.place());
        let noted = match read(&*disk, &name) {
            Ok(bytes) if format_of(&bytes) > FORMAT => {
                let format = format_of(&bytes);
                return Err(Error::permanent(format!(
                    "{} has format {format}, this program knows up to {FORMAT}",
                    shown()
                )));
            }
            Ok(bytes) => {
                let noted = parse(&bytes)
                    .ok_or_else(|| Error::permanent(format!("{} is damaged: it holds no position", shown())))?;
                // A process that was killed may have put it there and not made its name durable: the spool must not be let
                // go for what a power cut takes back.
                let kept = if holds(Rule::KnownIsDurable) { disk.sync_dir() } else { Ok(()) };
                kept.map_err(|error| disk::trouble(format!("cannot keep {}", shown()), error))?;
                noted
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Noted::default(),
            Err(error) => return Err(disk::trouble(format!("cannot read {}", shown()), error)),
        };
        Ok(Self { disk, name, noted })
    }

    /// Begins anew, whatever the file says: a person has decided to do without it.
    pub(crate) fn blank(disk: Arc<dyn Disk>, sink: &str) -> Self {
        Self { disk, name: file_name(sink), noted: Noted::default() }
    }

    /// Returns what the file holds.
    pub(crate) fn noted(&self) -> Noted {
        self.noted
    }

    /// Replaces the file, durably. Until then the old one counts.
    ///
    /// # Errors
    ///
    /// `Transient`, naming the file.
    pub(crate) fn write(&mut self, noted: Noted) -> Result<()> {
        if self.noted == noted {
            return Ok(());
        }
        let content = Content {
            position: noted.position.map(Place::of),
            begins_at: noted.begins_at.map(Place::of),
            chain: noted.chain.map(|chain| format!("{chain:016x}")),
            entered: noted.entered,
            changed: noted.changed,
        };
        let replaced = disk::replace(&*self.disk, &self.name, |file| Ok(serde_json::to_writer(file, &content)?));
        replaced.map_err(|error| {
            Error::transient(format!("cannot write `{}/{}`", self.disk.place(), self.name)).because(error)
        })?;
        self.noted = noted;
        Ok(())
    }
}

impl Place {
    fn of(position: SpoolPosition) -> Self {
        Self { boot: format!("{:016x}", position.boot.0), offset: position.offset }
    }

    fn position(&self) -> Option<SpoolPosition> {
        Some(SpoolPosition { boot: Boot(u64::from_str_radix(&self.boot, 16).ok()?), offset: self.offset })
    }
}

/// Returns the name of the file of a sink.
pub(crate) fn file_name(sink: &str) -> String {
    format!("{sink}.json")
}

fn read(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let mut bytes = Vec::new();
    disk::read_to(&*file, LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the format of a file. The first one does not name itself.
fn format_of(bytes: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Named {
        format: u64,
    }
    serde_json::from_slice(bytes).map_or(FORMAT, |Named { format }| format)
}

fn parse(bytes: &[u8]) -> Option<Noted> {
    let Content { position, begins_at, chain, entered, changed } = serde_json::from_slice(bytes).ok()?;
    let place = |place: Option<Place>| match place {
        Some(place) => place.position().map(Some),
        None => Some(None),
    };
    let chain = match chain {
        Some(chain) => Some(u64::from_str_radix(&chain, 16).ok()?),
        None => None,
    };
    let noted = Noted { position: place(position)?, begins_at: place(begins_at)?, chain, entered, changed };
    (noted.position.is_some() || noted.begins_at.is_some() || entered.is_some()).then_some(noted)
}

/// The only format so far. The next one names itself: `"format":2`.
const FORMAT: u64 = 1;

/// No such file is longer; what is may be a device.
const LONGEST: u64 = 4_096;

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        Kind,
        spool::disk::RealDisk,
        testkit::{Failure, SimDisk},
    };

    const AT: SpoolPosition = SpoolPosition { boot: Boot(u64::MAX - 1), offset: 1 << 60 };

    #[test]
    fn what_was_written_is_known_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Known::open(Arc::new(RealDisk::at(directory.path())), "sqlite").unwrap();
        assert_eq!(open().noted(), Noted::default());

        for noted in [
            Noted { begins_at: Some(AT), ..Noted::default() },
            Noted {
                position: Some(AT),
                begins_at: Some(AT),
                chain: Some(u64::MAX),
                changed: Some(7),
                ..Noted::default()
            },
            Noted { position: Some(AT), ..Noted::default() },
        ] {
            open().write(noted).unwrap();
            assert_eq!(open().noted(), noted);
        }
    }

    #[test]
    fn what_a_killed_process_has_noted_outlives_a_power_cut_once_it_was_read() {
        let disk = SimDisk::default();
        let open = || Known::open(Arc::new(disk.clone()), "sqlite").unwrap();
        let first = Noted { begins_at: Some(AT), ..Noted::default() };
        open().write(first).unwrap();
        // Each change of a note in turn is the last one that the killed process makes.
        let next = Noted { position: Some(AT), ..Noted::default() };
        for changes in 1..12 {
            let disk = disk.copy();
            let mut known = Known::open(Arc::new(disk.clone()), "sqlite").unwrap();
            disk.kill_after(changes);
            drop(known.write(next));
            disk.kill();
            let read = Known::open(Arc::new(disk.clone()), "sqlite").unwrap().noted();
            disk.cut_power(|_| 0);
            let again = Known::open(Arc::new(disk), "sqlite").unwrap().noted();
            assert_eq!(again, read, "killed at change {changes}");
        }
    }

    #[test]
    fn a_damaged_file_is_no_fresh_start() {
        let directory = tempfile::tempdir().unwrap();
        for content in ["", "{}", "{\"boot\":\"x\",\"offset\":1}", "{\"boot\":\"1\"", "{\"chain\":\"1\"}"] {
            fs::write(directory.path().join("sqlite.json"), content).unwrap();
            let error = Known::open(Arc::new(RealDisk::at(directory.path())), "sqlite").unwrap_err();
            assert!(error.to_string().contains("sqlite.json"), "{content}: {error}");
        }
    }

    #[test]
    fn too_many_open_files_is_no_damage_and_passes() {
        let disk = SimDisk::default();
        let open = || Known::open(Arc::new(disk.clone()), "sqlite");
        open().unwrap().write(Noted { position: Some(AT), ..Noted::default() }).unwrap();
        disk.fail(Failure::Opens(0));
        let error = open().unwrap_err();
        assert!(matches!(error.kind(), Kind::Transient { .. }), "{error:?}");
        assert!(error.chain().contains("cannot read `simulated/sqlite.json`"), "{}", error.chain());
        disk.fail(Failure::None);
        assert_eq!(open().unwrap().noted().position, Some(AT));
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_a_position_or_no_position_and_never_a_fresh_start(
            changes in vec((0_usize..200, any::<u8>()), 1..6),
            cut in 0_usize..200,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let disk = Arc::new(RealDisk::at(directory.path()));
            let mut known = Known::open(disk, "sqlite").unwrap();
            known.write(Noted { position: Some(AT), chain: Some(7), ..Noted::default() }).unwrap();
            let mut bytes = fs::read(directory.path().join("sqlite.json")).unwrap();
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(cut.max(1));
            prop_assert!(parse(&bytes).is_none_or(|noted| noted != Noted::default()));
        }
    }

    #[test]
    fn a_file_of_a_newer_format_is_refused_with_both_numbers_and_one_of_the_first_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let open = |content: &str| {
            fs::write(directory.path().join("sqlite.json"), content).unwrap();
            Known::open(Arc::new(RealDisk::at(directory.path())), "sqlite").map(|known| known.noted())
        };
        let error = open(r#"{"format":2,"boot":"0000000000000007","offset":3}"#).unwrap_err();
        assert!(error.to_string().contains("has format 2, this program knows up to 1"), "{error}");
        // As programs of the first format have written it.
        let position = Some(SpoolPosition { boot: Boot(7), offset: 3 });
        let first = open(r#"{"boot":"0000000000000007","offset":3,"chain":"00000000000000ff"}"#).unwrap();
        assert_eq!(first, Noted { position, chain: Some(255), ..Noted::default() });
        let begun = open(r#"{"begins_at":{"boot":"0000000000000007","offset":3}}"#).unwrap();
        assert_eq!(begun, Noted { begins_at: position, ..Noted::default() });
    }

    #[test]
    fn a_directory_in_its_place_is_said_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let mut known = Known::open(Arc::new(RealDisk::at(directory.path())), "sqlite").unwrap();
        fs::create_dir(directory.path().join("sqlite.json")).unwrap();
        let error = known.write(Noted { position: Some(AT), ..Noted::default() }).unwrap_err();
        assert!(error.to_string().contains("sqlite.json"), "{error}");
        assert_eq!(known.noted(), Noted::default(), "a position that was not written is not known");
    }
}
