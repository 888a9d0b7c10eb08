//! A way to the server that can be cut around a commit, or at any byte.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Where the next connection that commits, or sends so much, is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Never,
    /// The server never hears of the commit.
    BeforeCommit,
    /// The server gets it, and nobody waits for what it says.
    AtCommit,
    /// The server has committed, and its word is lost.
    AfterCommit,
    /// So many bytes of the client's pass.
    Behind(usize),
}

/// A proxy; ends when dropped.
pub(super) struct Proxy {
    address: SocketAddr,
    cut: Arc<std::sync::Mutex<Cut>>,
    cuts: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn to(server: &str) -> Self {
        let (_, rest) = server.split_once('@').unwrap();
        let server: SocketAddr = rest.split_once('/').unwrap().0.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(std::sync::Mutex::new(Cut::Never));
        let cuts = Arc::new(AtomicUsize::new(0));
        let accepting = tokio::spawn({
            let (cut, cuts) = (cut.clone(), cuts.clone());
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (cut, cuts) = (cut.clone(), cuts.clone());
                    tokio::spawn(async move {
                        if let Ok(server) = TcpStream::connect(server).await {
                            pass(client, server, &cut, &cuts).await;
                        }
                    });
                }
            }
        });
        Self { address, cut, cuts, accepting }
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address)
    }

    /// Says where to cut next. Once.
    pub(super) fn cut(&self, cut: Cut) {
        *self.cut.lock().unwrap() = cut;
    }

    pub(super) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, cut: &std::sync::Mutex<Cut>, cuts: &AtomicUsize) {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut sent = 0;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                let now = *cut.lock().unwrap();
                let commits = up[..count].windows(COMMIT.len()).any(|bytes| bytes == COMMIT);
                let has_come = match now {
                    Cut::Never => false,
                    Cut::BeforeCommit | Cut::AtCommit | Cut::AfterCommit => commits,
                    Cut::Behind(bytes) => sent + count >= bytes,
                };
                if has_come {
                    *cut.lock().unwrap() = Cut::Never;
                    cuts.fetch_add(1, Ordering::SeqCst);
                }
                let passes = match now {
                    Cut::BeforeCommit if has_come => 0,
                    Cut::Behind(bytes) if has_come => bytes.saturating_sub(sent).min(count),
                    Cut::Never | Cut::BeforeCommit | Cut::AtCommit | Cut::AfterCommit | Cut::Behind(_) => count,
                };
                if server.write_all(&up[..passes]).await.is_err() {
                    return;
                }
                sent += passes;
                if has_come {
                    if now == Cut::AfterCommit {
                        // Its word has come, so it is done.
                        drop(tokio::time::timeout(Duration::from_secs(20), server.read(&mut down)).await);
                    }
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The simple query, with its length.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
