//! Places in a spool.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A random number drawn at each opening of a spool, so that two histories that share offsets (deleted, restored,
/// copied) are never taken for one. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Boot(pub u64);

/// A place in a spool: everything up to and including `offset` lies before it.
///
/// Offsets are counted from 1 and never used twice; `boot` is the one under which `offset` was written. A position of
/// another boot at that offset belongs to another history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SpoolPosition {
    /// The opening of the spool that wrote the offset.
    pub boot: Boot,
    /// The last offset before this place; 0 is the beginning.
    pub offset: u64,
}

impl SpoolPosition {
    /// The beginning of every spool.
    pub const START: Self = Self { boot: Boot(0), offset: 0 };
}

impl fmt::Display for SpoolPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (boot {:016x})", self.offset, self.boot.0)
    }
}

/// What made an output row: the offset of its entry, and its number among the rows that this offset made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cause {
    /// The opening of the spool that wrote the offset.
    pub boot: Boot,
    /// The offset.
    pub offset: u64,
    /// The number among the rows that the offset made.
    pub sub: u32,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}.{}", self.boot.0, self.offset, self.sub)
    }
}

impl FromStr for Cause {
    type Err = &'static str;

    /// Reads what [`Display`](fmt::Display) has written.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (boot, rest) = text.split_once('.')?;
            let (offset, sub) = rest.split_once('.')?;
            let boot = u64::from_str_radix(boot, 16).ok().map(Boot)?;
            Some(Self { boot, offset: offset.parse().ok()?, sub: sub.parse().ok()? })
        };
        read().ok_or("a key has the form BOOT.OFFSET.NUMBER")
    }
}
