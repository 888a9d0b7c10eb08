//! What may go wrong at the venue.

use std::{borrow::Cow, time::Duration};

use super::conditions::Condition;

/// One thing that goes wrong.
///
/// Frames of a fault come in addition to the good ones, so the [`Oracle`](super::Oracle)'s list of what was sent stays exact.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The connection is reset, and what was on its way may be lost.
    Cut,
    /// The connection is reset in the middle of a frame.
    Torn,
    /// The venue says goodbye.
    Close {
        /// The WebSocket close code.
        code: u16,
    },
    /// The socket stays open, and nothing is sent or answered any more.
    HalfOpen,
    /// A frame that is no JSON.
    Malformed,
    /// A frame whose JSON ends in the middle.
    Truncated,
    /// A frame larger than a client should take.
    Oversized {
        /// Its length.
        bytes: usize,
    },
    /// A binary frame.
    Binary,
    /// A frame of the caller's own.
    Frame(String),
    /// A trade comes twice.
    Duplicate,
    /// Two trades of an instrument come in the wrong order.
    Reorder,
    /// A trade is made and not sent; the next one is.
    Skip,
    /// A change of a book is made and not sent; the next one is.
    SkipBook,
    /// An instrument's trades are numbered from 1 again.
    Restart,
    /// An option expires before its time.
    Expire,
    /// An option is listed.
    List,
    /// Something is wrong for a while.
    Lasting(Condition, Duration),
}

impl Fault {
    /// Returns whether it needs a market that makes things, which a replay has not.
    pub(super) fn is_of_market(&self) -> bool {
        match self {
            Self::Duplicate
            | Self::Reorder
            | Self::Skip
            | Self::SkipBook
            | Self::Restart
            | Self::Expire
            | Self::List => true,
            Self::Cut | Self::Torn | Self::Close { .. } | Self::HalfOpen | Self::Lasting(..) => false,
            Self::Malformed | Self::Truncated | Self::Oversized { .. } | Self::Binary | Self::Frame(_) => false,
        }
    }

    /// Returns the name by which `--faults` knows it; those that only a test can give are not in its list.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Torn => "torn",
            Self::Close { .. } => "close",
            Self::HalfOpen => "silence",
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
            Self::Oversized { .. } => "oversized",
            Self::Binary => "binary",
            Self::Frame(_) => "frame",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Skip => "skip",
            Self::SkipBook => "skip_book",
            Self::Restart => "restart",
            Self::Expire => "expire",
            Self::List => "list",
            Self::Lasting(condition, _) => match condition {
                Condition::Slow { .. } => "slow",
                Condition::Http429 { .. } => "http_429",
                Condition::Http5xx => "http_5xx",
                Condition::RestDown => "rest_down",
                Condition::RestLag { .. } => "rest_lag",
                Condition::Refuse { .. } => "refuse",
                Condition::Unauthorised => "unauthorised",
                Condition::Skew { .. } => "skew",
                Condition::NeverSpeak => "never_speak",
                Condition::PlainHttp => "plain_http",
                Condition::WrongTestnet => "wrong_testnet",
                Condition::PutOff { .. } => "put_off",
            },
        }
    }

    /// Returns it as `--faults` has it: its name, and the code of a goodbye where it is not the usual one.
    pub(super) fn shown(&self) -> Cow<'static, str> {
        if let Self::Close { code } = self
            && *code != GOING_AWAY
        {
            return format!("{}:{code}", self.name()).into();
        }
        self.name().into()
    }

    /// Returns the fault of a name, with the values that `--faults` gives it.
    pub(super) fn named(name: &str) -> Option<Self> {
        let lasting = |condition| Self::Lasting(condition, Duration::from_secs(2));
        Some(match name {
            "cut" => Self::Cut,
            "torn" => Self::Torn,
            "close" => Self::Close { code: GOING_AWAY },
            "silence" => Self::HalfOpen,
            "malformed" => Self::Malformed,
            "truncated" => Self::Truncated,
            "oversized" => Self::Oversized { bytes: 17 << 20 },
            "binary" => Self::Binary,
            "duplicate" => Self::Duplicate,
            "reorder" => Self::Reorder,
            "skip" => Self::Skip,
            "skip_book" => Self::SkipBook,
            "restart" => Self::Restart,
            "expire" => Self::Expire,
            "list" => Self::List,
            "slow" => lasting(Condition::Slow { by: Duration::from_millis(800) }),
            "http_429" => lasting(Condition::Http429 { retry_after: Duration::from_secs(1) }),
            "http_5xx" => lasting(Condition::Http5xx),
            "rest_down" => lasting(Condition::RestDown),
            "rest_lag" => lasting(Condition::RestLag { by: Duration::from_millis(500) }),
            "refuse" => lasting(Condition::Refuse { containing: "-C.".to_owned() }),
            "unauthorised" => lasting(Condition::Unauthorised),
            "skew" => lasting(Condition::Skew { by_ms: -1_500 }),
            "never_speak" => lasting(Condition::NeverSpeak),
            "plain_http" => lasting(Condition::PlainHttp),
            "wrong_testnet" => lasting(Condition::WrongTestnet),
            _ => return None,
        })
    }
}

/// The code with which a server closes that is about to go away: what `close` is where no code is named.
const GOING_AWAY: u16 = 1001;
