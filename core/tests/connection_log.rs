//! The log lines of a connection, in a process of their own: what a subscriber sees is decided once per process.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

use std::{
    fmt,
    net::TcpListener,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc::RecvTimeoutError},
    time::{Duration, Instant},
};

use tidegate_core::{
    Result,
    config::{self, ConnectionConfig},
    connection::ConnectionSource,
    health::{Registry, StageId},
    http::HttpClient,
    protocol::{Discovery, Endpoint, Frame, Outbox, Protocol, Reply},
    row::{Table, Timestamp, kinds::Trade},
    source::{Lines, Source, SourceContext, SourceParts},
};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

#[tokio::test]
async fn each_change_of_a_connection_is_one_line_that_names_what_is_quiet_and_no_secret() {
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = std::sync::mpsc::channel();
    let venue = std::thread::spawn(move || serve(&listener, &told));
    let source = tokio::spawn(source(port));

    log.wait_for("never a message").await;
    tell.send("b").unwrap();
    log.wait_for("speaking").await;
    drop(tell);
    log.wait_for("trying again").await;
    source.abort();
    venue.join().unwrap();
    drop(guard);

    let lines = log.0.lock().unwrap();
    let connected = format!("INFO connected eth ws://127.0.0.1:{port}/feed in ");
    assert!(lines[0].starts_with(&connected), "{lines:#?}");
    assert_eq!(lines[1], "INFO chosen eth 4 instruments");
    assert_eq!(lines[2], "WARN refused eth `c`, `d`: no such channel; asked again in 1m");
    assert_eq!(lines[3], "INFO subscribed eth 2 of 4 channels");
    let degraded = "WARN degraded eth 2 of 4 channels subscribed, refused: `c`, `d`; the others are asked for again";
    assert_eq!(lines[4], degraded);
    assert_eq!(lines[5], "WARN quiet eth subscribed for 300ms, but never a message: `b`; it stays subscribed");
    assert_eq!(lines[6], "INFO speaking eth again, after no message for 300ms or more: `b`");
    // A ping that the venue has not read resets what it closes.
    let is_lost =
        lines[7].starts_with("WARN degraded eth connection lost: ") && lines[7].contains("; trying again in ");
    assert!(is_lost, "{lines:#?}");
    assert!(lines[7].ends_with(" (attempt 1)"), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("hidden")), "{lines:#?}");
}

/// Confirms `a` and `b`, refuses `c` and then `d`, and speaks on `a` and on what it is told to, until nobody tells it any more.
fn serve(listener: &TcpListener, told: &std::sync::mpsc::Receiver<&'static str>) {
    let mut line = tungstenite::accept(listener.accept().unwrap().0).unwrap();
    assert_eq!(line.read().unwrap(), Message::text("a,b,c,d"));
    line.send(Message::text("answer")).unwrap();
    line.send(Message::text("another answer")).unwrap();
    let mut speaking = vec!["a"];
    loop {
        match told.recv_timeout(Duration::from_millis(20)) {
            Ok(channel) => speaking.push(channel),
            Err(RecvTimeoutError::Timeout) => speaking.iter().for_each(|one| line.send(Message::text(*one)).unwrap()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

async fn source(port: u16) -> Result<()> {
    let quiet_after = config::Duration::from_millis(300);
    // A long first pause, so that nobody dials again before the test has ended.
    let reconnect = config::Reconnect { first: config::Duration::from_secs(60), ..config::Reconnect::default() };
    let start_every = config::Duration::from_secs(60);
    let config = ConnectionConfig { quiet_after, reconnect, start_every, ..ConnectionConfig::default() };
    let source = ConnectionSource::new(Arc::new(move || Ok(Box::new(Venue { port }))), config)?;
    let (queue, _handovers) = mpsc::channel(2);
    let (_asks, asks) = watch::channel(Arc::from([]));
    let cx = SourceContext::new(SourceParts {
        name: "venue".into(),
        folder: PathBuf::new(),
        lines: Lines::new(0, source.tables(), queue),
        asks,
        synced: watch::channel(0).1,
        room: watch::channel(true).1,
        stop: CancellationToken::new(),
        health: Registry::new().stage(StageId::source("eth", "venue")),
        http: HttpClient::new(),
    });
    Box::new(source).run(cx).await
}

struct Venue {
    port: u16,
}

impl Protocol for Venue {
    fn tables(&self) -> Vec<Table> {
        vec![Table::of::<Trade<'_>>()]
    }

    fn discover(&mut self, _: Option<&Reply<'_>>, _: &mut Outbox) -> Result<Discovery> {
        Ok(Discovery::Channels(["a", "b", "c", "d"].map(str::to_owned).to_vec()))
    }

    fn endpoint(&mut self, _: &str, _: Timestamp) -> Result<Endpoint> {
        Ok(Endpoint::new(format!("ws://127.0.0.1:{}/feed?key=hidden", self.port)))
    }

    fn subscribe(&mut self, channels: &[&str], out: &mut Outbox) -> Result<()> {
        out.send(channels.join(","));
        Ok(())
    }

    fn on_frame(&mut self, frame: Frame<'_>, out: &mut Outbox) -> Result<()> {
        let text = frame.text()?;
        if text == "answer" {
            out.confirm("a");
            out.confirm("b");
            out.tell("chosen", "4 instruments");
            out.refuse("c", "no such channel");
        } else if text == "another answer" {
            out.refuse("d", "no such channel");
        }
        out.heard(if text == "b" { "b" } else { "a" });
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    async fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.0.lock().unwrap().iter().any(|line| line.contains(text)) {
            assert!(Instant::now() < deadline, "`{text}` was not logged, but {:#?}", self.0.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("tidegate")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Words(format!("{} ", event.metadata().level()));
        event.record(&mut message);
        self.0.lock().unwrap().push(message.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 += &format!("{value:?}");
        }
    }
}
