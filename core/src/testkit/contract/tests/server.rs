//! A store in this process, behind a real socket: it can be cut off, frozen and restarted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::super::StoredRow;
use crate::{
    Error, Result,
    spool::{Cause, SpoolPosition},
};

/// What the store has.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) tables: BTreeMap<String, Rows>,
    pub(super) positions: BTreeMap<(String, String), Held>,
}

/// A table.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    pub(super) columns: BTreeSet<String>,
    pub(super) rows: Vec<(Cause, StoredRow)>,
}

/// Who owns a position.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) spool: u64,
    pub(super) host: String,
    /// The sink that took it last, and how often it was taken.
    pub(super) by: (u64, u64),
    pub(super) at: SpoolPosition,
    pub(super) tables: BTreeSet<String>,
}

type Call = Box<dyn FnOnce(&mut Disk) + Send>;

/// What server and clients share: a request names a call by its number, and counts only when it has arrived whole.
#[derive(Default)]
struct Shared {
    disk: Mutex<Disk>,
    /// What the disk was before the last call that changed it.
    before: Mutex<Disk>,
    calls: Mutex<HashMap<u64, Call>>,
    last: AtomicU64,
}

/// The server.
pub(super) struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    is_frozen: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

/// One connection.
pub(super) struct Client {
    shared: Arc<Shared>,
    stream: BufReader<TcpStream>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::<Shared>::default());
        let (is_frozen, seen) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, shared.clone(), seen));
        Self { shared, address, is_frozen, serving }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        locked(&self.shared.disk)
    }

    pub(super) fn connector(&self, address: SocketAddr) -> Connector {
        Connector { shared: self.shared.clone(), address }
    }

    pub(super) fn freeze(&self, is_frozen: bool) {
        self.is_frozen.send_replace(is_frozen);
    }

    /// Dies and comes back; a forgetful one without its last change.
    pub(super) async fn restart(&mut self, forgets: bool) {
        self.serving.abort();
        (&mut self.serving).await.unwrap_err();
        locked(&self.shared.calls).clear();
        if forgets {
            let before = locked(&self.shared.before).clone();
            *self.disk() = before;
        }
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.serving = tokio::spawn(serve(listener, self.shared.clone(), self.is_frozen.subscribe()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Connector {
    /// Returns a number that was never returned before.
    pub(super) fn number(&self) -> u64 {
        self.shared.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) async fn connect(&self) -> Result<Client> {
        let stream = TcpStream::connect(self.address).await.map_err(unreachable)?;
        Ok(Client { shared: self.shared.clone(), stream: BufReader::new(stream) })
    }
}

impl Client {
    /// Does something to the disk, at once and as a whole, if the request arrives. It is so many bytes long.
    pub(super) async fn ask<T: Send + 'static>(
        &mut self,
        bytes: usize,
        what: impl FnOnce(&mut Disk) -> T + Send + 'static,
    ) -> Result<T> {
        let number = self.shared.last.fetch_add(1, Ordering::Relaxed) + 1;
        let answer = Arc::new(Mutex::new(None));
        let given = answer.clone();
        let call = Box::new(move |disk: &mut Disk| *locked(&given) = Some(what(disk)));
        locked(&self.shared.calls).insert(number, call);
        let request = format!("{number} {}\n", "x".repeat(bytes));
        self.stream.write_all(request.as_bytes()).await.map_err(unreachable)?;
        let mut line = String::new();
        self.stream.read_line(&mut line).await.map_err(unreachable)?;
        let answered = locked(&answer).take().filter(|_| line.ends_with('\n'));
        answered.ok_or_else(|| Error::transient("the connection broke"))
    }
}

fn unreachable(error: io::Error) -> Error {
    Error::transient("the store cannot be reached").because(error)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, is_frozen: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(answer(stream, shared.clone(), is_frozen.clone()));
    }
}

async fn answer(stream: TcpStream, shared: Arc<Shared>, mut is_frozen: watch::Receiver<bool>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if !line.ends_with('\n') {
            return Ok(());
        }
        is_frozen.wait_for(|is_frozen| !is_frozen).await.map_err(io::Error::other)?;
        let number = line.split(' ').next().and_then(|number| number.parse().ok()).unwrap();
        let call = locked(&shared.calls).remove(&number);
        if let Some(call) = call {
            let mut disk = locked(&shared.disk);
            *locked(&shared.before) = disk.clone();
            call(&mut disk);
        }
        stream.write_all(format!("{number}\n").as_bytes()).await?;
    }
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
