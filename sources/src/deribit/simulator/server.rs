//! The one listener, and the clock that makes events.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    select,
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tracing::debug;

use super::{rest, session, shared::Shared};

/// The WebSocket's path.
pub(super) const WEBSOCKET_PATH: &str = "/ws/api/v2";

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// Events are made in batches this far apart.
const TICK: Duration = Duration::from_millis(5);

/// Events of a batch: meanwhile the venue answers nobody. A machine that makes fewer than are asked for makes what it can.
const BATCH: f64 = 2_000.0;

const WEB_PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 24\r\nconnection: close\r\n\r\n<html>maintenance</html>";
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const TOO_MANY: &str =
    "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";

/// Accepts connections until the venue stops.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let Ok(address) = listener.local_addr() else { return };
    let (rest_connections, received) = mpsc::channel(64);
    shared.tasks.spawn(rest::serve(Arc::clone(&shared), received, address));
    loop {
        select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let connection = connect(Arc::clone(&shared), stream, rest_connections.clone());
                    shared.tasks.spawn(connection);
                }
                // Out of file descriptors, mostly: others may close meanwhile.
                Err(_) => sleep(Duration::from_millis(20)).await,
            },
        }
    }
}

/// Finds out what a connection wants and gives it to who serves that. Errors are the client's going away.
async fn connect(shared: Arc<Shared>, mut stream: TcpStream, rest_connections: mpsc::Sender<rest::Connection>) {
    let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
        return answer(&shared, stream, TOO_MANY).await;
    };
    // Without it small frames wait for acknowledgements. It fails where the client has gone already.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let never_speaks = {
        let venue = shared.venue();
        venue.conditions.never_speaks(venue.now().instant)
    };
    if never_speaks {
        return session::hold(&shared, &mut stream).await;
    }
    let Some(path) = wanted_path(&shared, &stream).await else { return };
    if !path.starts_with("/ws") {
        if rest_connections.send(rest::Connection { stream, shared, _permit: permit }).await.is_err() {
            debug!("a connection came while the simulated venue stopped");
        }
        return;
    }

    let plain_http = {
        let venue = shared.venue();
        venue.conditions.speaks_plain_http(venue.now().instant)
    };
    if plain_http {
        return answer(&shared, stream, WEB_PAGE).await;
    }
    if path != WEBSOCKET_PATH {
        return answer(&shared, stream, NOT_FOUND).await;
    }
    if let Ok(Ok(socket)) = timeout(PATIENCE, tokio_tungstenite::accept_async(stream)).await {
        session::serve(shared, socket).await;
    }
}

/// Looks at the request line without taking it.
async fn wanted_path(shared: &Shared, stream: &TcpStream) -> Option<String> {
    let looking = async {
        let mut seen = [0; 4096];
        loop {
            let length = stream.peek(&mut seen).await.ok().filter(|length| *length > 0)?;
            let line = seen[..length].split(|byte| *byte == b'\n').next()?;
            if line.len() < length || length == seen.len() {
                let line = String::from_utf8_lossy(line);
                let target = line.split(' ').nth(1)?;
                return Some(target.split('?').next()?.to_owned());
            }
            // Half a line: `peek` would return it again at once.
            sleep(Duration::from_millis(2)).await;
        }
    };
    select! {
        path = timeout(PATIENCE, looking) => path.ok()?,
        () = shared.stop.cancelled() => None,
    }
}

/// Writes a fixed answer and waits for the client to go, so that no reset overtakes it.
async fn answer(shared: &Shared, mut stream: TcpStream, text: &str) {
    let said = async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        session::hold(shared, &mut stream).await;
        io::Result::Ok(())
    };
    if !matches!(timeout(PATIENCE, said).await, Ok(Ok(()))) {
        debug!("a client did not wait for its answer");
    }
}

/// Makes events at `rate` a second, and the faults of the schedule, until the venue stops.
pub(super) async fn make_events(shared: Arc<Shared>, rate: f64) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    let mut owed = 0.0;
    let mut count = 0_u64;
    loop {
        select! {
            () = shared.stop.cancelled() => return,
            now = ticks.tick() => {
                let step = now.saturating_duration_since(last);
                last = now;
                count += 1;
                let mut venue = shared.venue();
                if venue.frozen {
                    continue;
                }
                // A machine that stood still for long does not get a flood afterwards.
                owed = (owed + rate * step.as_secs_f64()).min(rate.max(1.0));
                let whole = owed.floor().min(BATCH);
                owed -= whole;
                if venue.recording.is_some() {
                    venue.play(step);
                } else {
                    venue.make_events(whole as usize);
                }
                for fault in venue.faults_due(step) {
                    venue.strike(fault);
                }
                if count.is_multiple_of(50) {
                    venue.publish_index();
                    venue.expire_due();
                }
            }
        }
    }
}
