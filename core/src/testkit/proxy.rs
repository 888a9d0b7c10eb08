//! A TCP proxy between a sink and its store, for tests: cuts, freezes, delays, counts what passes, and speaks TLS for a server
//! that does not.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use super::certificates;

/// A proxy on a port of its own. It lets everything pass until it is told otherwise, and ends with its value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What the client sends.
    ToServer,
    /// What the server answers.
    ToClient,
}

struct Shared {
    /// With which it speaks TLS to clients.
    tls: Option<TlsAcceptor>,
    rules: watch::Sender<Rules>,
    passed: [AtomicU64; 2],
}

#[derive(Debug, Clone, Default)]
struct Rules {
    /// Connections that were made under an earlier number have ended.
    cuts: u64,
    is_frozen: bool,
    is_down: bool,
    delay: Duration,
    /// How many bytes still pass in each direction before everything is cut.
    left: [Option<u64>; 2],
}

impl Proxy {
    /// Starts a proxy in front of `server`, such as `127.0.0.1:5432`. To be called within a runtime.
    ///
    /// # Errors
    ///
    /// When there is no port to listen on.
    pub async fn to(server: impl Into<String>) -> io::Result<Self> {
        Self::start(server.into(), None).await
    }

    /// As [`to`](Self::to), speaking TLS to clients: with this certificate and its key, both PEM. What it cuts and counts are the
    /// bytes inside.
    ///
    /// # Errors
    ///
    /// Also when the files hold nothing of the kind.
    pub async fn with_tls(server: impl Into<String>, certificate: &Path, key: &Path) -> io::Result<Self> {
        let tls = certificates::server(certificate, key)?;
        Self::start(server.into(), Some(TlsAcceptor::from(Arc::new(tls)))).await
    }

    async fn start(server: String, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (rules, _) = watch::channel(Rules::default());
        let shared = Arc::new(Shared { tls, rules, passed: Default::default() });
        let accepting = tokio::spawn(accept(listener, server, shared.clone()));
        Ok(Self { address, shared, accepting })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections now; what is under way in them is lost. New ones may be made at once.
    pub fn cut(&self) {
        self.shared.rules.send_modify(Rules::cut);
    }

    /// Ends all connections as soon as so many more bytes have passed in one direction, whatever connection they pass in; with 0
    /// the next byte is the one that does not arrive. Once only: connections that are made afterwards last.
    pub fn cut_after(&self, way: Way, bytes: u64) {
        self.shared.rules.send_modify(|rules| rules.left[way as usize] = Some(bytes));
    }

    /// Ends all connections, and every new one as soon as it is made, until [`heal`](Self::heal).
    pub fn take_down(&self) {
        self.shared.rules.send_modify(|rules| {
            rules.is_down = true;
            rules.cut();
        });
    }

    /// Lets nothing pass and ends nothing, until [`heal`](Self::heal): then what came meanwhile goes on its way.
    pub fn freeze(&self) {
        self.shared.rules.send_modify(|rules| rules.is_frozen = true);
    }

    /// Lets every byte arrive so much later, in each direction: a round trip takes twice that. What is sent together stays
    /// together.
    pub fn delay(&self, by: Duration) {
        self.shared.rules.send_modify(|rules| rules.delay = by);
    }

    /// Lets everything pass again at once, and forgets about cuts that were to come.
    pub fn heal(&self) {
        self.shared.rules.send_modify(|rules| *rules = Rules { cuts: rules.cuts, ..Rules::default() });
    }

    /// Returns how many bytes have passed in one direction since the start.
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.passed[way as usize].load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("passed", &self.passed).finish_non_exhaustive()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Rules {
    fn cut(&mut self) {
        self.cuts += 1;
        self.left = [None; 2];
    }
}

impl Shared {
    /// Returns how many of `bytes` may pass now; fewer than there are, and everything is cut behind them.
    fn admit(&self, way: Way, bytes: usize) -> usize {
        let mut admitted = bytes;
        self.rules.send_if_modified(|rules| {
            let Some(left) = &mut rules.left[way as usize] else { return false };
            admitted = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes);
            *left -= admitted as u64;
            admitted < bytes
        });
        self.passed[way as usize].fetch_add(admitted as u64, Ordering::Relaxed);
        admitted
    }
}

/// Owns the connections: they end with it.
async fn accept(listener: TcpListener, server: String, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(connect(client, server.clone(), shared.clone()));
    }
}

/// Carries one connection, until one of its ends or a cut ends it.
async fn connect(client: TcpStream, server: String, shared: Arc<Shared>) {
    let mut rules = shared.rules.subscribe();
    let (made_under, is_down) = {
        let rules = rules.borrow_and_update();
        (rules.cuts, rules.is_down)
    };
    if is_down {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let carried = async {
        match &shared.tls {
            Some(tls) => carry(tokio::io::split(tls.accept(client).await?), server, &shared).await,
            None => carry(client.into_split(), server, &shared).await,
        }
    };
    tokio::select! {
        // An error of one end is the end of both.
        _ = carried => {}
        _ = rules.wait_for(|rules| rules.cuts != made_under) => {}
    }
}

/// Moves bytes in both directions until neither end has more.
async fn carry(
    (from_client, to_client): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    server: TcpStream,
    shared: &Shared,
) -> io::Result<()> {
    let (from_server, to_server) = server.into_split();
    let there = pump(from_client, to_server, Way::ToServer, shared);
    let back = pump(from_server, to_client, Way::ToClient, shared);
    tokio::try_join!(there, back).map(drop)
}

/// Moves bytes in one direction until its sender has no more.
async fn pump(from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin, way: Way, shared: &Shared) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    tokio::try_join!(read(from, sender, shared), write(receiver, to, way, shared)).map(drop)
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    sender: mpsc::Sender<(Instant, Vec<u8>)>,
    shared: &Shared,
) -> io::Result<()> {
    loop {
        let mut bytes = Vec::with_capacity(AT_ONCE);
        if from.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let due = Instant::now() + shared.rules.borrow().delay;
        sender.send((due, bytes)).await.map_err(io::Error::other)?;
    }
}

async fn write(
    mut receiver: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    shared: &Shared,
) -> io::Result<()> {
    let mut rules = shared.rules.subscribe();
    while let Some((due, bytes)) = receiver.recv().await {
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        rules.wait_for(|rules| !rules.is_frozen).await.map_err(io::Error::other)?;
        let admitted = shared.admit(way, bytes.len());
        to.write_all(&bytes[..admitted]).await?;
        to.flush().await?;
        if admitted < bytes.len() {
            // Only now: what was admitted has to arrive.
            shared.rules.send_modify(Rules::cut);
        }
    }
    to.shutdown().await
}

/// What is read at once, in bytes.
const AT_ONCE: usize = 64 * 1024;

/// How many of these may be under way in one direction: enough for a delayed link to be as fast as one without.
const IN_FLIGHT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_passes_and_is_counted() {
        let (proxy, mut client) = (proxy().await, None);
        assert_eq!(ask(&proxy, &mut client, b"hello").await.unwrap(), b"hello");
        assert_eq!((proxy.passed(Way::ToServer), proxy.passed(Way::ToClient)), (5, 5));
    }

    #[tokio::test]
    async fn a_cut_ends_what_there_is_and_not_what_comes_later() {
        let (proxy, mut client) = (proxy().await, None);
        ask(&proxy, &mut client, b"hello").await.unwrap();
        proxy.cut();
        assert!(ask(&proxy, &mut client, b"hello").await.is_err());
        client = None;
        assert_eq!(ask(&proxy, &mut client, b"again").await.unwrap(), b"again");
    }

    #[tokio::test]
    async fn a_cut_after_so_many_bytes_lets_exactly_these_arrive() {
        for (way, bytes, arrived) in [(Way::ToServer, 2, 0), (Way::ToClient, 2, 2), (Way::ToClient, 0, 0)] {
            let (proxy, mut client) = (proxy().await, None);
            proxy.cut_after(way, bytes);
            ask(&proxy, &mut client, b"hello").await.unwrap_err();
            assert_eq!(proxy.passed(way), bytes);
            assert_eq!(proxy.passed(Way::ToServer), if way == Way::ToServer { bytes } else { 5 });
            let mut rest = Vec::new();
            let read = client.take().unwrap().read_to_end(&mut rest).await;
            assert!(rest.len() <= arrived, "{read:?}: {rest:?}");
            assert!(ask(&proxy, &mut client, b"again").await.is_ok(), "once only");
        }
    }

    #[tokio::test]
    async fn what_is_frozen_goes_on_when_it_is_healed() {
        let (proxy, mut client) = (proxy().await, None);
        ask(&proxy, &mut client, b"hello").await.unwrap();
        proxy.freeze();
        let mut asked = Box::pin(ask(&proxy, &mut client, b"late"));
        let waited = tokio::time::timeout(Duration::from_millis(50), &mut asked).await;
        assert!(waited.is_err(), "nothing passes");
        proxy.heal();
        assert_eq!(asked.await.unwrap(), b"late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_is_one_of_each_direction() {
        let (proxy, mut client) = (proxy().await, None);
        proxy.delay(Duration::from_millis(10));
        let begun = Instant::now();
        ask(&proxy, &mut client, &[7; 300_000]).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(20), "{:?} by a clock that only timers move", begun.elapsed());
    }

    #[tokio::test]
    async fn a_server_that_is_down_ends_connections_until_it_is_healed() {
        let (proxy, mut client) = (proxy().await, None);
        proxy.take_down();
        assert!(ask(&proxy, &mut client, b"hello").await.is_err());
        proxy.heal();
        client = None;
        assert!(ask(&proxy, &mut client, b"hello").await.is_ok());
    }

    /// Returns a proxy in front of a server that says everything again.
    async fn proxy() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    tokio::io::copy(&mut from, &mut to).await.map(drop)
                });
            }
        });
        Proxy::to(server.to_string()).await.unwrap()
    }

    async fn ask(proxy: &Proxy, client: &mut Option<TcpStream>, text: &[u8]) -> io::Result<Vec<u8>> {
        if client.is_none() {
            *client = Some(TcpStream::connect(proxy.address()).await?);
        }
        let Some(stream) = client else { return Err(io::Error::other("just made")) };
        let (mut from, mut to) = stream.split();
        let mut answer = vec![0; text.len()];
        let (sent, read) = tokio::join!(to.write_all(text), from.read_exact(&mut answer));
        sent?;
        read?;
        Ok(answer)
    }
}
