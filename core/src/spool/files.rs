//! The names of a spool's files, and random numbers for what must never be the same twice.

/// A segment that has no name of its own yet.
pub(super) const NEXT: &str = "next.tmp";

/// What a segment is called whose head cannot be read: it is kept for a person to look at.
pub(super) const BAD: &str = "bad";

const SUFFIX: &str = ".seg";
const DIGITS: usize = 20;

/// Returns the name of the segment that begins with an offset.
pub(super) fn segment_name(first: u64) -> String {
    format!("{first:0DIGITS$}{SUFFIX}")
}

/// Returns the offset with which the segment of this name begins.
pub(super) fn segment_first(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|&first| plain && first > 0)
}

/// Draws a number that is not 0.
pub(super) fn random() -> u64 {
    crate::outside::draw().max(1)
}
