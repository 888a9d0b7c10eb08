//! One line of a capture.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::redact;
use crate::{
    protocol::{Frame, Gap, Reply},
    row::Timestamp,
};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When it happened; for a frame, when it came.
    pub at: Timestamp,
    /// The session in which it happened; 0 before the first.
    pub session: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Event {
    /// The source began, with a new protocol.
    Start {
        /// The version of the format.
        version: u32,
        /// The source's name.
        source: String,
    },
    /// The protocol was made anew.
    Anew,
    /// Discovery began.
    Discover,
    /// A reply to a request of the discovery came.
    Discovered {
        /// The request.
        #[serde(flatten)]
        request: Asked,
        /// The HTTP status.
        status: u16,
        /// The body.
        #[serde(flatten)]
        body: Body,
    },
    /// A connection is up.
    Open {
        /// Where it leads.
        url: String,
    },
    /// The protocol was told to subscribe.
    Subscribe {
        /// To these.
        channels: Vec<String>,
    },
    /// The protocol was told to unsubscribe.
    Unsubscribe {
        /// These.
        channels: Vec<String>,
    },
    /// The venue has not said in time that these have ended: counted as ended.
    Unended {
        /// These.
        channels: Vec<String>,
    },
    /// A frame came.
    Frame {
        /// As it came.
        #[serde(flatten)]
        body: Body,
    },
    /// A frame was sent.
    Sent {
        /// As it was sent.
        text: String,
    },
    /// The protocol was woken.
    Wake,
    /// The venue closed or refused the connection.
    Closed {
        /// The close code, or the HTTP status.
        code: u16,
        /// The text beside it.
        reason: String,
    },
    /// The session is over.
    End {
        /// Why.
        why: String,
    },
    /// A reply to a request for gaps came.
    Reply {
        /// The request.
        #[serde(flatten)]
        request: Asked,
        /// The HTTP status.
        status: u16,
        /// The body.
        #[serde(flatten)]
        body: Body,
        /// The gaps as they were then.
        gaps: Vec<Gap>,
    },
    /// The protocol was asked what to do about gaps, until it had a remedy for each or had been asked often enough.
    Gaps {
        /// The gaps as they were then.
        gaps: Vec<Gap>,
        /// How often it was asked: each time about those that the answers before had not covered.
        calls: usize,
    },
    /// Lines are missing here.
    Dropped {
        /// So many.
        lines: u64,
    },
    /// What a reader finds: a file ends in the middle of a line, and whatever came after it is missing. Never written.
    #[serde(skip)]
    Cut {
        /// The file.
        file: PathBuf,
    },
}

/// A request, without what may be secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// `GET` or `POST`.
    pub method: String,
    /// The address.
    pub url: String,
}

/// What came, as text where it is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Text.
    Text(String),
    /// Bytes, two hexadecimal digits each.
    Hex(String),
}

impl Event {
    pub(in crate::connection) fn frame(frame: Frame<'_>) -> Self {
        let body = match frame {
            Frame::Text(text) => Body::Text(text.to_owned()),
            Frame::Binary(bytes) => Body::Hex(hex(bytes)),
        };
        Self::Frame { body }
    }

    pub(in crate::connection) fn discovered(reply: &Reply<'_>) -> Self {
        Self::Discovered { request: super::asked(reply.request), status: reply.status, body: Body::of(reply.body) }
    }

    pub(in crate::connection) fn reply(reply: &Reply<'_>, gaps: &[Gap]) -> Self {
        let request = super::asked(reply.request);
        Self::Reply { request, status: reply.status, body: Body::of(reply.body), gaps: gaps.to_vec() }
    }

    /// Returns about how much memory it takes.
    pub(super) fn size(&self) -> usize {
        let own = if let Self::Frame { body } | Self::Discovered { body, .. } = self {
            body.len()
        } else if let Self::Reply { body, gaps, .. } = self {
            body.len() + gaps.len() * size_of::<Gap>()
        } else if let Self::Gaps { gaps, .. } = self {
            gaps.len() * size_of::<Gap>()
        } else if let Self::Subscribe { channels } | Self::Unsubscribe { channels } | Self::Unended { channels } = self
        {
            channels.iter().map(String::len).sum()
        } else {
            0
        };
        own + size_of::<Line>()
    }

    /// Takes away what nobody may read.
    pub(super) fn redact(&mut self) {
        self.texts(redact::tokens);
    }

    /// Shows the text of the venue, or of ours, that is in it.
    pub(in super::super) fn texts(&mut self, change: impl FnOnce(&mut String)) {
        if let Self::Frame { body: Body::Text(text) }
        | Self::Discovered { body: Body::Text(text), .. }
        | Self::Reply { body: Body::Text(text), .. }
        | Self::Closed { reason: text, .. }
        | Self::End { why: text }
        | Self::Sent { text } = self
        {
            change(text);
        }
    }
}

impl Body {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(hex(bytes)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(text) | Self::Hex(text) => text.len(),
        }
    }

    /// Returns the bytes; those of hexadecimal digits that are none are left out.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Hex(digits) => digits
                .as_bytes()
                .chunks(2)
                .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
                .collect(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        text
    })
}
