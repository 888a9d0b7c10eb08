//! Whether a file and the write-ahead log beside it belong together.
//!
//! SQLite takes any log of the right name for the file's own. A file that is put back from a backup while the log of the one
//! before still lies there is mixed with it page by page, and takes rows for days before somebody reads what is damaged. So
//! it is looked at first: whatever the log has of the database's pages, those that it has not are in the file.
//!
//! The format is SQLite's: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>, read on 2026-11-27.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tidegate_core::{Error, Result};

/// Looks whether a file and its log belong together. To be done before SQLite opens them, which may write one into the other.
///
/// # Errors
///
/// `Permanent` where they do not, saying what to do.
pub(super) async fn belong_together(path: &Path) -> Result<()> {
    if !lacks_pages(path).unwrap_or(false) {
        return Ok(());
    }
    // Pages that were made and given up in one transaction are in neither of the two: only a look at all of them tells.
    let checked = async {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).disable_statement_logging();
        let mut connection = options.connect().await?;
        let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(found)
    };
    match checked.await {
        Ok(found) if found == "ok" => Ok(()),
        Ok(_) => Err(strange(path)),
        Err(error) if super::error::is_damaged(&error) => Err(strange(path).because(error)),
        Err(error) => Err(super::error::sorted(path, error)),
    }
}

/// Returns the name of the write-ahead log.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Returns whether there are pages of the database that neither of the two has.
fn lacks_pages(path: &Path) -> io::Result<bool> {
    let log = match File::open(log_of(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let Some(Pages { size, of_log, pages }) = Pages::read(&log)? else { return Ok(false) };
    // Behind the log: a checkpoint of another process makes the file longer, never shorter.
    let of_file = fs::metadata(path)?.len() / u64::from(size);
    let locked = LOCK_BYTE / u64::from(size) + 1;
    let mut behind = of_file + 1..=u64::from(pages);
    Ok(behind.any(|page| page != locked && !u32::try_from(page).is_ok_and(|page| of_log.contains(&page))))
}

/// What a log has.
struct Pages {
    /// Bytes in a page.
    size: u32,
    /// The numbers of the pages that are in committed transactions.
    of_log: HashSet<u32>,
    /// How many the database has behind the last one.
    pages: u32,
}

impl Pages {
    /// Reads the heads of all frames; `None` where there is no committed transaction.
    fn read(log: &File) -> io::Result<Option<Self>> {
        let mut head = [0; 32];
        if log.metadata()?.len() < head.len() as u64 {
            return Ok(None);
        }
        log.read_exact_at(&mut head, 0)?;
        let number =
            |bytes: &[u8], at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (size, salts) = (number(&head, 8), [number(&head, 16), number(&head, 20)]);
        if number(&head, 0) & !1 != MAGIC || size == 0 {
            return Ok(None);
        }
        let (mut at, mut pending, mut of_log, mut pages) = (head.len() as u64, Vec::new(), HashSet::new(), 0);
        let mut frame = [0; 24];
        loop {
            match log.read_exact_at(&mut frame, at) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                read => read?,
            }
            if [number(&frame, 8), number(&frame, 12)] != salts {
                break;
            }
            pending.push(number(&frame, 0));
            let committed = number(&frame, 4);
            if committed > 0 {
                of_log.extend(pending.drain(..));
                pages = committed;
            }
            at += frame.len() as u64 + u64::from(size);
        }
        Ok((pages > 0).then_some(Self { size, of_log, pages }))
    }
}

fn strange(path: &Path) -> Error {
    let (file, log) = (path.display(), log_of(path));
    let log = log.display();
    Error::permanent(format!(
        "`{file}` and the write-ahead log beside it, `{log}`, do not belong together: pages of the database are in neither of \
         them. If the file was put back from a backup, move `{log}` and `{file}-shm` away and start again: the store goes on \
         where the backup was, and gets what the spool still has behind that. If it is the log that is right, bring its file \
         back"
    ))
}

const MAGIC: u32 = 0x377f_0682;
/// The page at this byte is never written: SQLite's locks are there.
const LOCK_BYTE: u64 = 0x4000_0000;
