//! Stretches of time, held against each other.

use crate::{intake::Span, row::Timestamp};

/// Returns stretches that cover the same, in order, without touching each other.
pub(super) fn union(stretches: &[Span]) -> Vec<Span> {
    let mut sorted: Vec<Span> = stretches.iter().copied().filter(|(from, to)| from < to).collect();
    sorted.sort_unstable();
    sorted.dedup_by(|(from, to), before| {
        let touches = *from <= before.1;
        before.1 = if touches { before.1.max(*to) } else { before.1 };
        touches
    });
    sorted
}

/// Returns those of a [`union`] that have something of a stretch. A stream may have a thousand gaps, and each that closes
/// looks at all that is open.
pub(super) fn touching(union: &[Span], (from, to): Span) -> &[Span] {
    let first = union.partition_point(|(_, last)| *last <= from);
    let behind = union.partition_point(|(first, _)| *first < to);
    &union[first..behind.max(first)]
}

/// Cuts a stretch at the borders of others.
pub(super) fn pieces<'a>((from, to): Span, at: impl Iterator<Item = &'a Span>) -> Vec<Span> {
    let mut borders: Vec<Timestamp> = at.flat_map(|&(first, last)| [first, last]).collect();
    borders.retain(|border| from < *border && *border < to);
    borders.extend([from, to]);
    borders.sort_unstable();
    borders.dedup();
    borders.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// Returns whether a piece that was cut at all their borders lies in one of the stretches.
pub(super) fn lies_in(piece: Span, stretches: &[Span]) -> bool {
    stretches.iter().any(|&(from, to)| from <= piece.0 && piece.1 <= to)
}

/// What is open at the right ends here.
pub(super) const END: Timestamp = Timestamp(i64::MAX);
pub(super) const EVER: Span = (Timestamp(i64::MIN), END);
