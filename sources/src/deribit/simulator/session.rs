//! One WebSocket session: hands what it is given to the socket in order, and keeps its own timers.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    select,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tracing::debug;

use super::{
    lines::{End, Item, Key, Mailbox},
    oracle::{NO_HEARTBEAT, TOO_SLOW},
    requests::Effect,
    shared::Shared,
};

/// Items handed over in one go.
const BATCH: usize = 256;

/// How long the venue waits for a client's half of a close.
const GOODBYE: Duration = Duration::from_secs(1);

const HEARTBEAT: &str = r#"{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"heartbeat"}}"#;
const TEST_REQUEST: &str = r#"{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}"#;

/// Serves a session to its end.
pub(super) async fn serve(shared: Arc<Shared>, socket: WebSocketStream<TcpStream>) {
    let mailbox = shared.venue().open_session();
    let number = mailbox.session;
    let mut session = Session { shared, socket, mailbox, later: Vec::new(), heartbeat: None };
    let over = session.run().await;
    session.shared.venue().end_session(number, over.why());
    session.shared.settled.notify_waiters();
    session.end(over).await;
}

struct Session {
    shared: Arc<Shared>,
    socket: WebSocketStream<TcpStream>,
    mailbox: Mailbox,
    /// Replies that are late.
    later: Vec<(Instant, String)>,
    heartbeat: Option<Heartbeat>,
}

#[derive(Debug)]
struct Heartbeat {
    every: Duration,
    next: Instant,
    /// The last `test_request` is not answered yet.
    unanswered: bool,
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    ByVenue(End),
    Stopped,
    TooSlow,
    NoHeartbeat,
    Left,
    Lost,
}

impl Over {
    fn why(self) -> &'static str {
        match self {
            Self::ByVenue(end) => end.why(),
            Self::Stopped => "the venue stopped",
            Self::TooSlow => TOO_SLOW,
            Self::NoHeartbeat => NO_HEARTBEAT,
            Self::Left => "closed by the client",
            Self::Lost => "connection lost",
        }
    }
}

impl Session {
    async fn run(&mut self) -> Over {
        let (stop, kill) = (self.shared.stop.clone(), self.mailbox.kill.clone());
        let mut items = Vec::with_capacity(BATCH);
        loop {
            let wake = self.next_timer();
            let step = select! {
                () = stop.cancelled() => Err(Over::Stopped),
                () = kill.cancelled() => Err(Over::TooSlow),
                _ = self.mailbox.items.recv_many(&mut items, BATCH) => select! {
                    over = self.hand_over(&mut items) => over,
                    () = kill.cancelled() => Err(Over::TooSlow),
                    () = stop.cancelled() => Err(Over::Stopped),
                },
                frame = self.socket.next() => self.on_frame(frame),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.on_timer().await,
            };
            if let Err(over) = step {
                return over;
            }
        }
    }

    /// Hands items to the socket, after the oracle has taken them down.
    async fn hand_over(&mut self, items: &mut Vec<Item>) -> Result<(), Over> {
        let (mut keys, mut messages) = (Vec::<Key>::new(), Vec::new());
        let mut end = None;
        for item in items.drain(..) {
            match item {
                Item::Send { message, key } => {
                    keys.extend(key);
                    messages.push(message);
                }
                Item::SendLater { text, after } => self.later.push((Instant::now() + after, text)),
                Item::End(over) => {
                    end = Some(over);
                    break;
                }
            }
        }
        let count = messages.len();
        if !self.shared.venue().handing_over(self.mailbox.session, keys) {
            return Err(Over::Stopped);
        }
        for message in messages {
            self.socket.feed(message).await.map_err(|_| Over::Lost)?;
        }
        self.socket.flush().await.map_err(|_| Over::Lost)?;
        self.handed_over(count);
        end.map_or(Ok(()), |end| Err(Over::ByVenue(end)))
    }

    fn handed_over(&self, count: usize) {
        self.mailbox.backlog.fetch_sub(count, Ordering::SeqCst);
        self.shared.settled.notify_waiters();
    }

    fn on_frame(&mut self, frame: Option<Result<Message, tungstenite::Error>>) -> Result<(), Over> {
        match frame {
            Some(Ok(Message::Text(text))) => match self.shared.venue().on_frame(self.mailbox.session, &text) {
                Effect::None => {}
                Effect::Tested => self.heartbeat.iter_mut().for_each(|heartbeat| heartbeat.unanswered = false),
                Effect::Heartbeat(every) => {
                    let start = |every| Heartbeat { every, next: Instant::now() + every, unanswered: false };
                    self.heartbeat = every.map(start);
                }
            },
            // The library answers pings itself, and the venue knows no binary requests.
            Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(_))) => return Err(Over::Left),
            Some(Err(_)) | None => return Err(Over::Lost),
        }
        Ok(())
    }

    fn next_timer(&self) -> Option<Instant> {
        let heartbeat = self.heartbeat.as_ref().map(|heartbeat| heartbeat.next);
        self.later.iter().map(|(due, _)| *due).chain(heartbeat).min()
    }

    async fn on_timer(&mut self) -> Result<(), Over> {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(due, _)| *due <= now);
        self.later = later;
        let due: Vec<(Instant, String)> = due;
        let count = due.len();
        for (_, text) in due {
            self.socket.send(Message::text(text)).await.map_err(|_| Over::Lost)?;
        }
        self.handed_over(count);

        let Some(heartbeat) = self.heartbeat.as_mut().filter(|heartbeat| heartbeat.next <= now) else { return Ok(()) };
        if heartbeat.unanswered {
            return Err(Over::NoHeartbeat);
        }
        heartbeat.unanswered = true;
        heartbeat.next = now + heartbeat.every;
        self.socket.feed(Message::text(HEARTBEAT)).await.map_err(|_| Over::Lost)?;
        self.socket.send(Message::text(TEST_REQUEST)).await.map_err(|_| Over::Lost)
    }

    /// Ends the connection in the way that belongs to the reason.
    async fn end(mut self, over: Over) {
        match over {
            Over::ByVenue(End::Cut) => reset(self.socket.get_ref()),
            Over::ByVenue(End::Torn) => {
                // A text frame that promises 1000 bytes and brings 40.
                let mut torn = vec![0x81, 126, 0x03, 0xE8];
                torn.extend_from_slice(&TEST_REQUEST.as_bytes()[..40]);
                if self.socket.get_mut().write_all(&torn).await.is_err() {
                    debug!("the client went before its frame was torn");
                }
            }
            Over::ByVenue(End::HalfOpen) => hold(&self.shared, self.socket.get_mut()).await,
            Over::ByVenue(End::Close(code)) => self.close(CloseCode::from(code)).await,
            Over::ByVenue(End::TooManyRequests) | Over::TooSlow => self.close(CloseCode::Policy).await,
            Over::ByVenue(End::LoggedOut) | Over::NoHeartbeat => self.close(CloseCode::Normal).await,
            Over::Stopped => self.close(CloseCode::Away).await,
            Over::Left | Over::Lost => {
                // Lets the answer to the client's close go out.
                if !matches!(timeout(GOODBYE, self.socket.flush()).await, Ok(Ok(()))) {
                    debug!("the client did not wait for the answer to its close");
                }
            }
        }
    }

    async fn close(&mut self, code: CloseCode) {
        let goodbye = async {
            if self.socket.close(Some(CloseFrame { code, reason: "".into() })).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        if timeout(GOODBYE, goodbye).await.is_err() {
            debug!("the client did not answer the venue's close");
        }
    }
}

/// Makes the connection end with a reset when it is dropped.
pub(super) fn reset(socket: &TcpStream) {
    if socket.set_zero_linger().is_err() {
        debug!("the connection had ended before its reset");
    }
}

/// Keeps a connection without a word until the client goes or the venue stops.
pub(super) async fn hold(shared: &Shared, socket: &mut TcpStream) {
    let mut ignored = [0; 4096];
    let silence = async { while matches!(socket.read(&mut ignored).await, Ok(1..)) {} };
    select! {
        () = silence => {}
        () = shared.stop.cancelled() => {}
    }
}
