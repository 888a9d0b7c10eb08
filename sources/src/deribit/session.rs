//! The requests of one session that are not answered yet, and when the handshake is over.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use tidegate_core::protocol::Outbox;

use super::channel::Channel;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// A part of the handshake: who we are, how often to send heartbeats.
    Greeting,
    /// A login, for the handshake or before the last one runs out.
    Login,
    /// The answer to a test of the line.
    Test,
    /// To subscribe to these channels.
    Subscribe(Vec<String>),
    /// To end these channels.
    Unsubscribe(Vec<String>),
}

/// Numbers the requests of a session and remembers what they were.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Goes on through all sessions, so that a late reply is never taken for another one's.
    last_id: u64,
    asked: HashMap<u64, Asked>,
    /// What is carried by the channels that were asked for in this session: of others no frame is expected. Of those that
    /// were left the last ones may still be on their way.
    channels: HashMap<String, Channel, FixedState>,
    is_ready: bool,
}

impl Session {
    /// Forgets the last session.
    pub(super) fn open(&mut self) {
        self.asked.clear();
        self.channels.clear();
        self.is_ready = false;
    }

    /// Sends a request.
    pub(super) fn ask(&mut self, asked: Asked, method: &str, params: &serde_json::Value, out: &mut Outbox) {
        let request = self.request(asked, method, params);
        out.send(request);
    }

    /// Sends a request that holds a key.
    pub(super) fn ask_with(&mut self, key: &str, method: &str, params: &serde_json::Value, out: &mut Outbox) {
        let request = self.request(Asked::Login, method, params);
        out.send_secret(request, key);
    }

    fn request(&mut self, asked: Asked, method: &str, params: &serde_json::Value) -> String {
        if asked == Asked::Test {
            // One a heartbeat; the reply tells nothing, so the last one may be missing.
            self.asked.retain(|_, asked| *asked != Asked::Test);
        }
        self.last_id += 1;
        let id = self.last_id;
        self.asked.insert(id, asked);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
    }

    /// Notes that messages of this channel may come from here on.
    pub(super) fn expect(&mut self, name: &str, channel: Channel) {
        self.channels.insert(name.to_owned(), channel);
    }

    /// Returns what a channel carries of which messages may come.
    #[inline]
    pub(super) fn expected(&self, name: &str) -> Option<Channel> {
        self.channels.get(name).copied()
    }

    /// Returns what the request was.
    pub(super) fn answered(&mut self, id: u64) -> Option<Asked> {
        self.asked.remove(&id)
    }

    /// Returns the channels of the only subscription that waits for its reply, if there is one and no other: an error
    /// without an id can only be about that.
    pub(super) fn only_subscription(&mut self) -> Option<Vec<String>> {
        let mut waiting = self.asked.iter().filter(|(_, asked)| matches!(asked, Asked::Subscribe(_)));
        let (&id, _) = waiting.next()?;
        if waiting.next().is_some() {
            return None;
        }
        match self.asked.remove(&id) {
            Some(Asked::Subscribe(channels)) => Some(channels),
            _ => None,
        }
    }

    /// Says that the handshake is done when nothing of it is missing any more.
    pub(super) fn ready_when_greeted(&mut self, out: &mut Outbox) {
        let is_greeting = |asked: &Asked| matches!(asked, Asked::Greeting | Asked::Login);
        if !self.is_ready && !self.asked.values().any(is_greeting) {
            self.is_ready = true;
            out.ready();
        }
    }
}
