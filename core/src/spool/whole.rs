//! Reads a segment by itself, whether it is part of a spool or not: the bench of histories looks at what was dropped.

use super::{
    Boot, Item, Items,
    disk::Disk,
    entry::seed,
    files::{segment_first, segment_name},
    head::{FoundHead, read_head},
    scan::{Found, Scanner},
};

/// Shows all items of the segments of a disk that hold offsets of a range, each with the offset before it.
///
/// # Errors
///
/// When a file cannot be read.
pub(crate) fn all_items<E: From<crate::Error>>(
    disk: &dyn Disk,
    (from, to): (u64, u64),
    mut visit: impl FnMut(u64, u64, Boot, Item<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let failed = |error| crate::Error::transient("cannot read a segment").because(error);
    let mut names = disk.list().map_err(failed)?;
    names.sort_unstable();
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| segment_first(name)).collect();
    firsts.retain(|first| *first <= to);
    let begins = firsts.iter().rfind(|first| **first <= from).copied().unwrap_or(0);
    for first in firsts.into_iter().filter(|first| *first >= begins) {
        let name = segment_name(first);
        let file = disk.open(&name).map_err(failed)?;
        let Some(FoundHead { head, entries_at }) = read_head(disk, &name, &*file)? else { continue };
        let len = file.len().map_err(failed)?;
        let mut scanner = Scanner::new(file, seed(head.segment), head.boot, entries_at);
        scanner.read_around();
        let mut behind = head.previous_end;
        loop {
            match scanner.next(len).map_err(failed)? {
                Found::Entry(header) => {
                    for (offset, item) in Items::of(&header, scanner.entry()) {
                        visit(behind, offset, header.boot, item)?;
                        behind = offset;
                    }
                }
                Found::Bad { .. } => {}
                Found::End => break,
            }
        }
    }
    Ok(())
}
