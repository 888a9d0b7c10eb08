use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    Kind,
    spool::disk::RealDisk,
    testkit::{Failure, SimDisk},
};

use super::*;

const BOOT: Boot = Boot(0xfedc_ba98_7654_3210);

#[test]
fn what_was_appended_is_read_back_as_it_was() {
    let (_directory, path) = place();
    let mut letters = open(&path);
    let mut odd = letter(2, 1);
    odd.row = json!({ "price": 0.1, "id": u64::MAX, "note": "a\nb \"c\" \u{0}", "bids": [[1.5, 2.0]], "iv": null })
        .as_object()
        .unwrap()
        .clone();
    odd.ts_event = Timestamp(-1);
    letters.append(&[letter(1, 0), odd.clone()]).unwrap();
    letters.append(&[letter(3, 0)]).unwrap();
    assert_eq!(letters.count(), 3);
    assert_eq!(list(&path).unwrap().letters, [letter(1, 0), odd, letter(3, 0)]);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3, "a line each");
}

#[test]
fn a_line_can_be_read_without_this_program() {
    let (_directory, path) = place();
    open(&path).append(&[letter(7, 2)]).unwrap();
    let line: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let expected = json!({
        "format": 2, "sink": "sqlite", "boot": "fedcba9876543210", "offset": 7, "sub": 2, "source": "deribit", "table": "trades",
        "symbol": "ETH", "ts_event": 1, "row": { "price": 1.5 }, "error": "value too long for column `side`", "when": 2,
    });
    assert_eq!(line, expected);
}

#[test]
fn a_second_letter_with_the_same_key_replaces_the_first() {
    let (_directory, path) = place();
    let mut letters = open(&path);
    letters.append(&[letter(1, 0), letter(2, 0)]).unwrap();
    let again = DeadLetter { error: "still too long".into(), ..letter(1, 0) };
    letters.append(std::slice::from_ref(&again)).unwrap();
    assert_eq!(letters.count(), 2);
    assert_eq!(list(&path).unwrap().letters, [again.clone(), letter(2, 0)]);

    let (letters, recovered) = reopen(&path, |_| false).unwrap();
    assert_eq!((letters.count(), recovered.letters, recovered.discarded), (2, 2, 0));
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2, "the first is gone from the file");
    assert!(list(&path).unwrap().letters.contains(&again));
}

#[test]
fn opening_discards_what_the_store_has_not_passed_and_keeps_other_boots_apart() {
    let (_directory, path) = place();
    let other_boot = DeadLetter { boot: Boot(1), ..letter(2, 0) };
    open(&path).append(&[letter(1, 0), letter(2, 0), letter(3, 0), other_boot]).unwrap();

    let committed = SpoolPosition { boot: BOOT, offset: 2 };
    let (mut letters, recovered) =
        reopen(&path, |at| at.boot != committed.boot || at.offset > committed.offset).unwrap();
    assert_eq!(recovered, Recovered { letters: 2, discarded: 2, is_torn: false, unreadable: 0 });
    assert_eq!(list(&path).unwrap().letters, [letter(1, 0), letter(2, 0)]);

    letters.append(&[letter(3, 0)]).unwrap();
    assert_eq!(list(&path).unwrap().letters.len(), 3, "the new file takes more");
}

#[test]
fn a_line_that_a_crash_cut_anywhere_is_dropped_and_the_rest_stays() {
    let (_directory, path) = place();
    open(&path).append(&[letter(1, 0), letter(2, 0)]).unwrap();
    let whole = fs::read(&path).unwrap();
    let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    for cut in first + 1..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(list(&path).unwrap().letters, [letter(1, 0)], "cut at {cut}");
        let (mut letters, recovered) = reopen(&path, |_| false).unwrap();
        assert_eq!(recovered, Recovered { letters: 1, discarded: 0, is_torn: true, unreadable: 0 });
        letters.append(&[letter(3, 0)]).unwrap();
        assert_eq!(list(&path).unwrap().letters, [letter(1, 0), letter(3, 0)], "cut at {cut}");
    }
}

#[test]
fn a_line_that_is_no_letter_is_counted_and_never_thrown_away() {
    let (_directory, path) = place();
    open(&path).append(&[letter(1, 0)]).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"half\n\xff\xfe\n");
    fs::write(&path, &bytes).unwrap();
    open(&path).append(&[letter(2, 0)]).unwrap();

    let (_, recovered) = reopen(&path, |at| at.offset >= 2).unwrap();
    assert_eq!(recovered, Recovered { letters: 1, discarded: 1, is_torn: false, unreadable: 2 });
    assert_eq!(fs::read(&path).unwrap(), bytes, "the file was written anew with them");
    assert_eq!(list(&path).unwrap().unreadable, 2);
}

#[test]
fn letters_that_are_put_back_from_a_copy_are_not_sent_a_second_time() {
    let (_directory, path) = place();
    let mut letters = open(&path);
    letters.append(&[letter(1, 0), letter(2, 0)]).unwrap();
    let copy = fs::read(&path).unwrap();
    let sent = |letter: u64, row: u64| Sent {
        letter: Cause { boot: BOOT, offset: letter, sub: 0 },
        row: Cause { boot: BOOT, offset: row, sub: 0 },
    };
    assert_eq!(letters.redriven(&[sent(1, 10)]).unwrap(), [true]);
    letters.committed();
    drop(letters);

    fs::write(&path, copy).unwrap();
    let mut letters = open(&path);
    assert_eq!(letters.count(), 1, "the other one waits");
    assert_eq!(list(&path).unwrap().letters[0].redriven, Some(sent(1, 10).row));
    assert_eq!(letters.redriven(&[sent(1, 20), sent(1, 10), sent(2, 21)]).unwrap(), [false, true, true]);
    assert_eq!(letters.count(), 0);

    // The store goes back to before the row that was refused, which is read in one chunk with the one that sends it again.
    assert_eq!(letters.discard(0, |at| at.offset == 1).unwrap(), 1);
    assert_eq!(letters.redriven(&[sent(1, 10)]).unwrap(), [false], "it has not been refused yet");
    letters.append(&[letter(1, 0)]).unwrap();
    assert_eq!(letters.count(), 1);
    assert_eq!(letters.redriven(&[sent(1, 30)]).unwrap(), [true], "it was refused anew, and nothing has sent it");
}

#[test]
fn a_letter_of_a_newer_format_is_refused_with_both_numbers_and_one_of_the_first_is_read() {
    let (_directory, path) = place();
    open(&path).append(&[letter(1, 0)]).unwrap();
    let line = fs::read_to_string(&path).unwrap();
    fs::write(&path, line.replace(r#""format":2,"#, "")).unwrap();
    assert_eq!(list(&path).unwrap().letters, [letter(1, 0)]);
    let newer = line.replace(r#""format":2,"#, r#""format":3,"more":true,"#);
    fs::write(&path, &newer).unwrap();
    for error in [reopen(&path, |_| true).unwrap_err(), list(&path).unwrap_err()] {
        let said = error.chain();
        assert!(said.contains("has format 3, this program knows up to 2"), "{said}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn a_row_that_is_taken_the_second_time_leaves_no_letter() {
    let (_directory, path) = place();
    let mut letters = open(&path);
    letters.append(&[letter(1, 0)]).unwrap();
    letters.committed();
    letters.append(&[letter(2, 0), letter(3, 0)]).unwrap();

    assert_eq!(letters.discard(1, |at| at.offset > 1).unwrap(), 2);
    assert_eq!(letters.count(), 1);
    assert_eq!(list(&path).unwrap().letters, [letter(1, 0)]);
    letters.append(&[letter(3, 0)]).unwrap();
    assert_eq!(list(&path).unwrap().letters, [letter(1, 0), letter(3, 0)]);
    assert_eq!(letters.count(), 2);
}

#[test]
fn letters_of_committed_chunks_take_no_memory_and_go_when_the_store_went_back() {
    let (_directory, path) = place();
    let mut letters = open(&path);
    letters.append(&[letter(1, 0), letter(2, 0)]).unwrap();
    assert_eq!(letters.pending.len(), 2);
    letters.committed();
    assert!(letters.pending.is_empty());
    assert_eq!(letters.discard(1, |at| at.offset >= 2).unwrap(), 1);
    assert_eq!((letters.count(), list(&path).unwrap().letters), (1, vec![letter(1, 0)]));
}

#[test]
fn whatever_a_disk_does_the_same_letters_fit_later() {
    for failure in [
        Failure::Full(0),
        Failure::Full(30),
        Failure::ReadOnly,
        Failure::Writes(0),
        Failure::OneWrite,
        Failure::Syncs,
        Failure::OneSync(0),
    ] {
        let disk = SimDisk::default();
        let mut letters = DeadLetters::open(Arc::new(disk.clone()), |_| false).unwrap().0;
        letters.append(&[letter(1, 0)]).unwrap();
        disk.fail(failure);
        let error = letters.append(&[letter(2, 0)]).unwrap_err();
        assert_eq!(error.kind(), Kind::Transient { retry_after: None }, "{failure:?}: {error}");
        assert!(error.to_string().contains("`simulated/dead-letters.jsonl`"), "{failure:?}: {error}");
        assert_eq!(letters.count(), 1, "{failure:?}");

        disk.fail(Failure::None);
        letters.append(&[letter(2, 0)]).unwrap();
        // What a disk called safe, and nothing else, is there after a power cut.
        disk.cut_power(|_| 0);
        let (letters, recovered) = DeadLetters::open(Arc::new(disk.clone()), |_| false).unwrap();
        assert_eq!((letters.count(), recovered.unreadable, recovered.is_torn), (2, 0, false), "{failure:?}");
    }
}

#[test]
fn a_file_that_a_person_removed_empties_or_mends_takes_the_next_letters() {
    let (_directory, path) = place();
    let mut letters = open(&path);
    letters.append(&[letter(1, 0), letter(2, 0)]).unwrap();
    fs::remove_file(&path).unwrap();
    letters.append(&[letter(3, 0)]).unwrap();
    assert_eq!((letters.count(), list(&path).unwrap().letters), (1, vec![letter(3, 0)]), "removed");

    fs::write(&path, "").unwrap();
    letters.append(&[letter(4, 0)]).unwrap();
    assert_eq!((letters.count(), list(&path).unwrap().letters), (1, vec![letter(4, 0)]), "emptied");

    letters.append(&[letter(5, 0)]).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.lines().next().unwrap()).unwrap();
    letters.append(&[letter(6, 0)]).unwrap();
    let listed = list(&path).unwrap();
    assert_eq!((listed.letters, listed.unreadable), (vec![letter(6, 0)], 0), "a line without its end is none");

    fs::remove_file(&path).unwrap();
    assert_eq!(letters.discard(0, |_| true).unwrap(), 0, "nothing is left to be thrown away");
    assert_eq!(letters.count(), 0);
}

/// Needs the right to mount; elsewhere the test with `/dev/full` has to do.
#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_line_leaves_no_part_of_it() {
    let Some(disk) = SmallDisk::mounted() else { return };
    let path = disk.0.path().join(DeadLetters::FILE_NAME);
    let mut letters = open(&path);
    letters.append(&[letter(1, 0)]).unwrap();
    let large = DeadLetter { error: "x".repeat(100_000), ..letter(2, 0) };
    let error = letters.append(&[large]).unwrap_err();
    let after_error = fs::read(&path).unwrap();
    letters.append(&[letter(3, 0)]).unwrap();
    let listed = list(&path).unwrap();

    assert_eq!(error.kind(), Kind::Transient { retry_after: None }, "{error}");
    assert_eq!(after_error.iter().filter(|&&byte| byte == b'\n').count(), 1);
    assert!(after_error.ends_with(b"\n"), "a part of the large letter stayed");
    assert_eq!((listed.letters, listed.unreadable), (vec![letter(1, 0), letter(3, 0)], 0));
}

#[test]
fn what_is_no_file_or_cannot_be_one_is_said_by_name() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    fs::create_dir_all(directory.path().join("taken").join(DeadLetters::FILE_NAME)).unwrap();
    for place in ["file", "missing", "taken"] {
        let path = directory.path().join(place).join(DeadLetters::FILE_NAME);
        let error = reopen(&path, |_| false).unwrap_err();
        assert!(error.to_string().contains(&format!("`{}`", path.display())), "{error}");
    }
    assert_eq!(list(&directory.path().join("missing.jsonl")).unwrap_err().kind(), Kind::Permanent);
}

#[test]
fn a_rewrite_that_cannot_be_written_leaves_the_old_file_as_it_was() {
    let (directory, path) = place();
    open(&path).append(&[letter(1, 0), letter(2, 0)]).unwrap();
    let before = fs::read(&path).unwrap();
    fs::create_dir(directory.path().join("dead-letters.jsonl.new")).unwrap();
    let error = reopen(&path, |at| at.offset >= 2).unwrap_err();
    assert!(error.to_string().contains("cannot rewrite"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// A disk of four pages.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mounted() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16k", "none"]).arg(place.path()).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(place))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, since after a failed assertion the file may still be open.
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DeadLetters::FILE_NAME);
    (directory, path)
}

fn open(path: &Path) -> DeadLetters {
    reopen(path, |_| false).unwrap().0
}

fn reopen(path: &Path, comes_again: impl Fn(SpoolPosition) -> bool) -> Result<(DeadLetters, Recovered)> {
    DeadLetters::open(Arc::new(RealDisk::at(path.parent().unwrap())), comes_again)
}

fn letter(offset: u64, sub: u32) -> DeadLetter {
    let row = json!({ "price": 1.5 }).as_object().unwrap().clone();
    DeadLetter {
        sink: "sqlite".into(),
        boot: BOOT,
        offset,
        sub,
        from: String::new(),
        source: "deribit".into(),
        table: "trades".into(),
        symbol: "ETH".into(),
        listing: String::new(),
        ts_event: Timestamp(1),
        row,
        error: "value too long for column `side`".into(),
        when: Timestamp(2),
        redrive_of: None,
        redriven: None,
    }
}
