//! A socket that ends no poll by itself, and a message that never ends.
//!
//! The WebSocket library reads within one poll until a message is whole. So a peer that sends pieces without an end, and
//! each of them may be empty, would keep a thread of the runtime for itself, with its timers and all that it should do
//! besides; and no limit of a message's size would ever be met.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, error::Error as WsError},
};

/// How much may be read.
#[derive(Debug)]
struct Allowance {
    /// Before the poll has to end.
    of_poll: AtomicUsize,
    /// Before a message has to be whole.
    of_message: AtomicUsize,
}

/// A socket that reads no more than it may.
#[derive(Debug)]
pub(super) struct Metered<S> {
    socket: S,
    allowance: Arc<Allowance>,
}

/// A connection whose messages have an end, and whose polls have one, too.
#[derive(Debug)]
pub(super) struct Line<S> {
    socket: WebSocketStream<MaybeTlsStream<Metered<S>>>,
    allowance: Arc<Allowance>,
    longest: usize,
}

/// Counts what is read of one connection, whose messages have so many bytes at most.
#[derive(Debug)]
pub(super) struct Meter {
    allowance: Arc<Allowance>,
    longest: usize,
}

impl Meter {
    pub(super) fn new(max_message: usize) -> Self {
        let longest = max_message.saturating_add(AROUND);
        let allowance = Allowance { of_poll: AtomicUsize::new(A_POLL), of_message: AtomicUsize::new(longest) };
        Self { allowance: Arc::new(allowance), longest }
    }

    /// Counts what this socket reads.
    pub(super) fn socket<S>(&self, socket: S) -> Metered<S> {
        Metered { socket, allowance: Arc::clone(&self.allowance) }
    }

    /// Returns the connection that was made over it.
    pub(super) fn line<S>(self, socket: WebSocketStream<MaybeTlsStream<Metered<S>>>) -> Line<S> {
        Line { socket, allowance: self.allowance, longest: self.longest }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.allowance.of_message.load(Relaxed) == 0 {
            return Poll::Ready(Err(io::Error::other(
                "a message came in pieces, longer altogether than `max_message`",
            )));
        }
        if self.allowance.of_poll.load(Relaxed) == 0 {
            self.allowance.of_poll.store(A_POLL, Relaxed);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        for left in [&self.allowance.of_poll, &self.allowance.of_message] {
            left.store(left.load(Relaxed).saturating_sub(read), Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Line<S> {
    type Item = Result<Message, WsError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.allowance.of_poll.store(A_POLL, Relaxed);
        let message = ready!(Pin::new(&mut self.socket).poll_next(cx));
        if let Some(Ok(message)) = &message {
            let left = self.allowance.of_message.load(Relaxed);
            let left = match message {
                Message::Text(_) | Message::Binary(_) => self.longest,
                // They may come between the pieces of another one, which is no reason to allow that more.
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
                    left.saturating_add(HEADER + message.len()).min(self.longest)
                }
            };
            self.allowance.of_message.store(left, Relaxed);
        }
        Poll::Ready(message)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for Line<S> {
    type Error = WsError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        Pin::new(&mut self.socket).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), WsError> {
        Pin::new(&mut self.socket).start_send(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

/// What is read within one poll. A message that is longer takes several.
const A_POLL: usize = 256 << 10;
/// What may be read of a message beside its text: the headers of its pieces, and what is read ahead of the next one.
const AROUND: usize = 1 << 20;
/// The longest header of a frame from a server (RFC 6455, 5.2).
const HEADER: usize = 10;

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

    use super::*;

    async fn line(max_message: usize) -> (Line<DuplexStream>, DuplexStream) {
        let (ours, venues) = duplex(1 << 20);
        let meter = Meter::new(max_message);
        let socket = MaybeTlsStream::Plain(meter.socket(ours));
        let config = WebSocketConfig::default().max_message_size(Some(max_message)).max_frame_size(Some(max_message));
        (meter.line(WebSocketStream::from_raw_socket(socket, Role::Client, Some(config)).await), venues)
    }

    /// Sends a text's first piece and then empty ones, for ever.
    async fn flood(mut venue: DuplexStream) {
        let mut bytes = vec![0x01, 0x01, b'a'];
        loop {
            if venue.write_all(&bytes).await.is_err() {
                return;
            }
            bytes = [0x00, 0x00].repeat(32 << 10);
        }
    }

    #[tokio::test]
    async fn pieces_without_an_end_let_others_run_and_end_the_connection() {
        let (mut line, venue) = line(64 << 10).await;
        let flood = tokio::spawn(flood(venue));
        let mut polls = 0;
        let ended = std::future::poll_fn(|cx| {
            polls += 1;
            line.poll_next_unpin(cx)
        });
        let error = ended.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("longer altogether than `max_message`"), "{error}");
        assert!(polls > 3, "one poll has read it all");
        drop(line);
        flood.await.unwrap();
    }

    #[tokio::test]
    async fn messages_of_any_number_come_whole_and_so_do_those_in_pieces() {
        let (mut line, mut venue) = line(64 << 10).await;
        let sent = tokio::spawn(async move {
            for _ in 0..100 {
                venue.write_all(&[0x81, 126, 0xf0, 0x00]).await.unwrap();
                venue.write_all(&vec![b'a'; 0xf000]).await.unwrap();
                // In pieces, with a pong in between.
                venue.write_all(b"\x01\x01a\x8a\x00\x00\x00\x80\x01b").await.unwrap();
            }
            venue
        });
        for _ in 0..100 {
            assert_eq!(line.next().await.unwrap().unwrap().len(), 0xf000);
            assert!(line.next().await.unwrap().unwrap().is_pong());
            assert_eq!(line.next().await.unwrap().unwrap(), Message::text("ab"));
        }
        drop(sent.await);
    }
}
