//! What is done to columns: Arrow's kernels where their answer is ours, our own where it is not.

pub(super) mod casts;
pub(super) mod compare;
pub(super) mod numbers;
pub(super) mod sets;
pub(super) mod texts;
pub(super) mod truth;

use std::fmt;

/// Why a row has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    DivisionByZero,
    /// The result does not fit into 64 bits.
    Overflow,
    /// The result is no finite number.
    NotFinite,
    /// A value that cannot be cast.
    Cast(String),
    /// An argument that a function does not take.
    Argument(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DivisionByZero => f.write_str("division by zero"),
            Self::Overflow => f.write_str("the result does not fit into 64 bits"),
            Self::NotFinite => f.write_str("the result is no finite number"),
            Self::Cast(why) | Self::Argument(why) => f.write_str(why),
        }
    }
}
