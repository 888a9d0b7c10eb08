//! Who is connected, what they subscribed to, and what waits to be handed to their sockets.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use super::{channel::Topic, oracle::BookKey};

/// What a session's task is given to do, in order.
#[derive(Debug)]
pub(super) enum Item {
    /// Send a message; the key goes into the oracle before.
    Send { message: Message, key: Option<Key> },
    /// Send a message later, and go on with others.
    SendLater { text: String, after: Duration },
    /// End the session.
    End(End),
}

/// What makes a sent message recognisable.
#[derive(Debug, Clone)]
pub(super) enum Key {
    Ticker(String, f64),
    Quote(String, i64),
    Book(String, BookKey),
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Cut,
    Torn,
    Close(u16),
    HalfOpen,
    /// The client asked for more than its credits.
    TooManyRequests,
    LoggedOut,
}

impl End {
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Torn => "cut in the middle of a frame",
            Self::Close(_) => "closed by the venue",
            Self::HalfOpen => "half open",
            Self::TooManyRequests => "too many requests",
            Self::LoggedOut => "logged out",
        }
    }
}

/// The session's half of a line.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) session: u64,
    pub(super) items: mpsc::Receiver<Item>,
    /// Given and not yet handed to the socket.
    pub(super) backlog: Arc<AtomicUsize>,
    /// The client is too slow, or the venue cannot go on.
    pub(super) kill: CancellationToken,
}

#[derive(Debug)]
struct Line {
    items: mpsc::Sender<Item>,
    backlog: Arc<AtomicUsize>,
    kill: CancellationToken,
    logged_in: bool,
}

/// One channel as clients named it, and the sessions that have it.
#[derive(Debug)]
struct Feed {
    channel: String,
    sessions: Vec<u64>,
}

/// All sessions and their channels.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: BTreeMap<u64, Line>,
    feeds: HashMap<Topic, Vec<Feed>>,
    /// Waits until the file has it.
    pending: Vec<(u64, Item)>,
}

impl Lines {
    pub(super) fn open(&mut self, session: u64, room: usize) -> Mailbox {
        let (sender, items) = mpsc::channel(room);
        let (backlog, kill) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let line = Line { items: sender, backlog: Arc::clone(&backlog), kill: kill.clone(), logged_in: false };
        self.lines.insert(session, line);
        Mailbox { session, items, backlog, kill }
    }

    /// Forgets a session; returns whether it was known.
    pub(super) fn close(&mut self, session: u64) -> bool {
        for feeds in self.feeds.values_mut() {
            feeds.retain_mut(|feed| {
                feed.sessions.retain(|one| *one != session);
                !feed.sessions.is_empty()
            });
        }
        self.feeds.retain(|_, feeds| !feeds.is_empty());
        self.lines.remove(&session).is_some()
    }

    /// Returns false if the session had the channel already.
    pub(super) fn subscribe(&mut self, session: u64, topic: &Topic, channel: &str) -> bool {
        let feeds = self.feeds.entry(topic.clone()).or_default();
        match feeds.iter_mut().find(|feed| feed.channel == channel) {
            Some(feed) if feed.sessions.contains(&session) => return false,
            Some(feed) => feed.sessions.push(session),
            None => feeds.push(Feed { channel: channel.to_owned(), sessions: vec![session] }),
        }
        true
    }

    /// Returns false if the session did not have the channel.
    pub(super) fn unsubscribe(&mut self, session: u64, topic: &Topic, channel: &str) -> bool {
        let feeds = self.feeds.get_mut(topic);
        let Some(feed) = feeds.and_then(|feeds| feeds.iter_mut().find(|feed| feed.channel == channel)) else {
            return false;
        };
        let before = feed.sessions.len();
        feed.sessions.retain(|one| *one != session);
        feed.sessions.len() < before
    }

    /// Returns every channel of a session.
    pub(super) fn channels(&self, session: u64) -> Vec<String> {
        let feeds = self.feeds.values().flatten().filter(|feed| feed.sessions.contains(&session));
        feeds.map(|feed| feed.channel.clone()).collect()
    }

    /// Returns every channel that somebody has.
    pub(super) fn topics(&self) -> Vec<Topic> {
        self.feeds.keys().filter(|topic| self.has(topic)).cloned().collect()
    }

    /// Returns whether anybody has the channel.
    pub(super) fn has(&self, topic: &Topic) -> bool {
        self.feeds.get(topic).is_some_and(|feeds| feeds.iter().any(|feed| !feed.sessions.is_empty()))
    }

    /// Sends a message of `topic` to everybody who has it; `message` is called once for each name of the channel.
    pub(super) fn publish(&mut self, topic: &Topic, mut message: impl FnMut(&str) -> (String, Option<Key>)) {
        for feed in self.feeds.get(topic).into_iter().flatten().filter(|feed| !feed.sessions.is_empty()) {
            let (text, key) = message(&feed.channel);
            let text = Utf8Bytes::from(text);
            for session in &feed.sessions {
                let item = Item::Send { message: Message::Text(text.clone()), key: key.clone() };
                self.pending.push((*session, item));
            }
        }
    }

    /// Sends a message to everybody who has the channel by this very name.
    pub(super) fn publish_as(&mut self, topic: &Topic, channel: &str, text: String, key: Option<&Key>) {
        let mut feeds = self.feeds.get(topic).into_iter().flatten();
        let Some(feed) = feeds.find(|feed| feed.channel == channel) else { return };
        let text = Utf8Bytes::from(text);
        for session in &feed.sessions {
            let item = Item::Send { message: Message::Text(text.clone()), key: key.cloned() };
            self.pending.push((*session, item));
        }
    }

    pub(super) fn queue(&mut self, session: u64, item: Item) {
        self.pending.push((session, item));
    }

    pub(super) fn queue_text(&mut self, session: u64, text: String, key: Option<Key>) {
        self.queue(session, Item::Send { message: Message::text(text), key });
    }

    /// Gives everything pending to the sessions, in order. One whose backlog is full is too slow and ends.
    pub(super) fn dispatch(&mut self) {
        for (session, item) in self.pending.drain(..) {
            let Some(line) = self.lines.get(&session) else { continue };
            // Counted before it is given, for the other side may have handed it on at once.
            line.backlog.fetch_add(1, Ordering::SeqCst);
            if line.items.try_send(item).is_err() {
                line.backlog.fetch_sub(1, Ordering::SeqCst);
                line.kill.cancel();
            }
        }
    }

    /// Drops what is pending and ends every session: the venue could not write down what it would have sent.
    pub(super) fn give_up(&mut self) {
        self.pending.clear();
        self.lines.values().for_each(|line| line.kill.cancel());
    }

    pub(super) fn sessions(&self) -> Vec<u64> {
        self.lines.keys().copied().collect()
    }

    /// Returns whether everything given has been handed to a socket.
    pub(super) fn is_settled(&self) -> bool {
        self.lines.values().all(|line| line.backlog.load(Ordering::SeqCst) == 0)
    }

    pub(super) fn is_logged_in(&self, session: u64) -> bool {
        self.lines.get(&session).is_some_and(|line| line.logged_in)
    }

    pub(super) fn log_in(&mut self, session: u64) {
        if let Some(line) = self.lines.get_mut(&session) {
            line.logged_in = true;
        }
    }
}
