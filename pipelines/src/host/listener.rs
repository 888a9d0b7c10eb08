//! The health server's connections: few, and none for long. Somebody who opens hundreds and says nothing takes no file and
//! no socket from the pipelines.

use std::{
    fs::File,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tidegate_core::health::{Registry, StageHealth, StageId, Status};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};

use super::descriptors;

/// How many connections there are at once. Who comes later waits in the system's queue, which costs no descriptor.
pub(super) const SEATS: usize = 64;
/// How long a connection may take, from its beginning to the end of the one answer that it gets.
const LIFETIME: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// Takes connections, as many as there are seats.
pub(super) struct Limited {
    listener: TcpListener,
    seats: Arc<Semaphore>,
    /// Given up for a connection when the process has no other descriptor: whoever asks then learns why.
    spare: Option<File>,
    registry: Registry,
    /// There once descriptors have run out.
    health: Option<StageHealth>,
}

impl Limited {
    pub(super) fn new(listener: TcpListener, registry: Registry) -> Self {
        Self { listener, seats: Arc::new(Semaphore::new(SEATS)), spare: spare(), registry, health: None }
    }

    async fn next(&mut self) -> (Connection, SocketAddr) {
        let seat = loop {
            // Nobody closes it.
            if let Ok(seat) = self.seats.clone().acquire_owned().await {
                break seat;
            }
        };
        loop {
            self.spare = self.spare.take().or_else(spare);
            match self.listener.accept().await {
                Ok((socket, peer)) => {
                    if self.spare.is_some() {
                        self.has_room();
                    }
                    return (Connection { socket, end: Box::pin(sleep(LIFETIME)), _seat: seat }, peer);
                }
                // Of that connection alone.
                Err(error) if is_of_peer(&error) => {}
                Err(error) => {
                    self.has_no_room(&error);
                    if self.spare.take().is_none() {
                        sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    fn has_no_room(&mut self, error: &io::Error) {
        let health = self.health.get_or_insert_with(|| self.registry.stage(StageId::host("descriptors")));
        let (limit, remedy) = (descriptors::limit(), descriptors::REMEDY);
        health.degraded(format!(
            "no more files and connections: {error}; the process may have {limit}, and what it cannot open is tried again; \
             {remedy}"
        ));
    }

    fn has_room(&self) {
        if let Some(health) = self.health.as_ref().filter(|health| health.status() != Status::Healthy) {
            health.healthy("files and connections can be opened again");
        }
    }
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when its time is over, whatever its peer does.
pub(super) struct Connection {
    socket: TcpStream,
    end: Pin<Box<Sleep>>,
    _seat: OwnedSemaphorePermit,
}

impl Connection {
    /// Returns the socket as long as there is time.
    fn socket(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(Pin::new(&mut self.socket)),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.socket(cx)?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.socket(cx)?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket(cx)?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Opens a file for the sake of its descriptor.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}
