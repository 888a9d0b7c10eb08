//! The outside world of a driver under test: connections, calls and intake, with a script and paused time.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Sink, Stream};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;

use super::{super::Driver, toy::Toy};
use crate::{
    Result,
    catalog::Factory,
    config::{ConnectionConfig, ReplayConfig},
    connection::{
        ReplaySource,
        transport::{NotConnected, Transport},
    },
    health::{Registry, StageId},
    http::{Answer, HttpClient, NoAnswer, Turn},
    intake::{Ask, Handover, Step},
    protocol::{Endpoint, Protocol, Request},
    row::{StreamKey, Timestamp},
    source::{Lines, Source, SourceContext, SourceParts},
    spool::disk::Disk,
};

/// A row with all that it is: its line in the log, when it came, and its bytes.
pub(super) type WholeRow = (String, Timestamp, Vec<u8>);

/// A running driver, and everything around it.
pub(super) struct World {
    pub(super) registry: Registry,
    pub(super) stop: CancellationToken,
    http: HttpClient,
    pub(super) asks: watch::Sender<Arc<[Ask]>>,
    pub(super) log: Arc<Mutex<Vec<String>>>,
    pub(super) rows: Arc<Mutex<Vec<WholeRow>>>,
    /// Until when sessions have said that frames still came.
    pub(super) alive: Arc<Mutex<Vec<Timestamp>>>,
    /// While it is false, intake takes nothing.
    pub(super) takes: watch::Sender<bool>,
    /// Whether the spool takes rows.
    pub(super) room: watch::Sender<bool>,
    dials: mpsc::UnboundedReceiver<Dialled>,
    calls: mpsc::UnboundedReceiver<Called>,
    driver: JoinHandle<Result<()>>,
    /// How long a condition may take: paused time costs nothing.
    patience: Duration,
    /// Everything that is written is durable.
    _synced: watch::Sender<u64>,
    pub(super) folder: Arc<tempfile::TempDir>,
}

/// What is written down.
struct Seen {
    log: Arc<Mutex<Vec<String>>>,
    rows: Arc<Mutex<Vec<WholeRow>>>,
    alive: Arc<Mutex<Vec<Timestamp>>>,
}

pub(super) struct Dialled {
    pub(super) at: Instant,
    answer: oneshot::Sender<Result<FakeLine, NotConnected>>,
}

pub(super) struct Called {
    pub(super) request: Request,
    pub(super) at: Instant,
    answer: oneshot::Sender<Result<Answer, NoAnswer>>,
}

/// The venue's end of a connection. Dropped, it hangs up.
pub(super) struct Peer {
    to_driver: mpsc::UnboundedSender<Result<Message, WsError>>,
    /// Pings are not answered: the test does it, or nobody.
    pub(super) is_deaf: Arc<AtomicBool>,
    pub(super) sent: mpsc::UnboundedReceiver<Message>,
}

pub(super) struct FakeLine {
    incoming: mpsc::UnboundedReceiver<Result<Message, WsError>>,
    sent: mpsc::UnboundedSender<Message>,
    /// Where pings are answered, as every venue does by itself.
    answers: mpsc::WeakUnboundedSender<Result<Message, WsError>>,
    is_deaf: Arc<AtomicBool>,
}

struct Scripted {
    dials: mpsc::UnboundedSender<Dialled>,
    calls: mpsc::UnboundedSender<Called>,
    start: Instant,
}

impl World {
    pub(super) fn start(toy: Toy) -> Self {
        Self::with(toy, |_| {})
    }

    pub(super) fn with(toy: Toy, configure: impl FnOnce(&mut ConnectionConfig)) -> Self {
        let mut world = Self::scripted(toy, None, HttpClient::new(), configure);
        world.patience = Duration::from_secs(3_600);
        world
    }

    /// Starts a driver that records to a disk, in real time.
    pub(super) fn recording(toy: Toy, disk: Arc<dyn Disk>, configure: impl FnOnce(&mut ConnectionConfig)) -> Self {
        Self::scripted(toy, Some(disk), HttpClient::new(), configure)
    }

    /// Starts another driver in the same process.
    pub(super) fn beside(&self, toy: Toy) -> Self {
        let mut world = Self::scripted(toy, None, self.http.clone(), |_| {});
        world.patience = self.patience;
        world
    }

    fn scripted(
        toy: Toy,
        disk: Option<Arc<dyn Disk>>,
        http: HttpClient,
        configure: impl FnOnce(&mut ConnectionConfig),
    ) -> Self {
        let (dials_in, dials) = mpsc::unbounded_channel();
        let (calls_in, calls) = mpsc::unbounded_channel();
        let transport = Scripted { dials: dials_in, calls: calls_in, start: Instant::now() };
        let mut world = Self::driving(transport, toy, disk, http, configure);
        (world.dials, world.calls) = (dials, calls);
        world
    }

    /// Starts a driver over another transport, in real time.
    pub(super) fn over(
        transport: impl Transport,
        toy: Toy,
        disk: Option<Arc<dyn Disk>>,
        configure: impl FnOnce(&mut ConnectionConfig),
    ) -> Self {
        Self::driving(transport, toy, disk, HttpClient::new(), configure)
    }

    fn driving(
        transport: impl Transport,
        toy: Toy,
        disk: Option<Arc<dyn Disk>>,
        http: HttpClient,
        configure: impl FnOnce(&mut ConnectionConfig),
    ) -> Self {
        let mut config = ConnectionConfig::default();
        configure(&mut config);
        Self::around(toy.factory(), http, |factory, cx| {
            let mut driver = Driver::new(transport, factory, config, cx).unwrap();
            if let Some(disk) = disk {
                driver.record(Ok(disk), "toy");
            }
            tokio::spawn(driver.run())
        })
    }

    /// Starts a replay of a capture.
    pub(super) fn replaying(toy: Toy, config: ReplayConfig, asks: Vec<Ask>) -> Self {
        Self::around(toy.factory(), HttpClient::new(), |factory, mut cx| {
            let replay = ReplaySource::new(factory, config).unwrap();
            cx.asks = watch::channel(asks.into()).1;
            tokio::spawn(Box::new(replay).run(cx))
        })
    }

    fn around(
        factory: Factory<Box<dyn Protocol>>,
        http: HttpClient,
        start: impl FnOnce(Factory<Box<dyn Protocol>>, SourceContext) -> JoinHandle<Result<()>>,
    ) -> Self {
        let registry = Registry::new();
        let health = registry.stage(StageId::source("test", "toy"));
        let (asks, shown) = watch::channel(Arc::from([]));
        let (queue, handovers) = mpsc::channel(2);
        let (takes, may_take) = watch::channel(true);
        let stop = CancellationToken::new();
        let (synced, synced_seen) = watch::channel(u64::MAX);
        let (room, room_seen) = watch::channel(true);
        let folder = tempfile::tempdir().unwrap();
        let lines = Lines::new(0, factory().unwrap().tables(), queue);
        let cx = SourceContext::new(SourceParts {
            name: "toy".into(),
            folder: folder.path().join("replay/sources/toy"),
            lines,
            asks: shown,
            synced: synced_seen,
            room: room_seen,
            stop: stop.clone(),
            health,
            http: http.clone(),
        });
        let (log, rows, alive) = (Arc::default(), Arc::default(), Arc::default());
        let seen = Seen { log: Arc::clone(&log), rows: Arc::clone(&rows), alive: Arc::clone(&alive) };
        tokio::spawn(intake(handovers, may_take, seen));
        let (dials, calls) = (mpsc::unbounded_channel().1, mpsc::unbounded_channel().1);
        let (driver, patience) = (start(factory, cx), Duration::from_secs(20));
        let (_synced, folder) = (synced, Arc::new(folder));
        Self {
            registry,
            stop,
            http,
            asks,
            log,
            rows,
            alive,
            takes,
            room,
            dials,
            calls,
            driver,
            patience,
            _synced,
            folder,
        }
    }

    /// Waits for the next attempt to connect.
    pub(super) async fn dial(&mut self) -> Dialled {
        let dialled = tokio::time::timeout(self.patience, self.dials.recv()).await;
        dialled.unwrap_or_else(|_| panic!("no dial, {}", self.reason())).expect("the driver runs")
    }

    pub(super) fn try_dial(&mut self) -> Option<Dialled> {
        self.dials.try_recv().ok()
    }

    /// Waits for the next attempt, and lets it succeed.
    pub(super) async fn connect(&mut self) -> Peer {
        self.dial().await.accept()
    }

    /// Connects, greets and confirms everything.
    pub(super) async fn subscribe(&mut self, channels: &str) -> Peer {
        let mut peer = self.connect().await;
        peer.say("welcome");
        assert_eq!(peer.heard().await, "hello");
        assert_eq!(peer.heard().await, format!("sub {channels}"));
        peer.say(&format!("ok {channels}"));
        self.logged(&format!("confirmed {} at 7", channels.replace('+', ","))).await;
        peer
    }

    /// Waits for the next HTTP call.
    pub(super) async fn called(&mut self) -> Called {
        let called = tokio::time::timeout(self.patience, self.calls.recv()).await;
        called.unwrap_or_else(|_| panic!("no call, {}", self.reason())).expect("the driver runs")
    }

    pub(super) fn try_called(&mut self) -> Option<Called> {
        self.calls.try_recv().ok()
    }

    /// Waits until the log has this line, and takes it with all in front of it.
    pub(super) async fn logged(&self, line: &str) -> Vec<String> {
        let place = self.seen(line).await;
        self.log.lock().unwrap().drain(..=place).collect()
    }

    /// Waits until the log has an answer, takes it, and returns which gap it is of.
    pub(super) async fn answered(&self) -> u64 {
        let deadline = Instant::now() + self.patience;
        loop {
            {
                let mut log = self.log.lock().unwrap();
                if let Some(place) = log.iter().position(|line| line.starts_with("answered ")) {
                    let line = log.remove(place);
                    return line.split(' ').nth(1).and_then(|gap| gap.parse().ok()).unwrap();
                }
                assert!(Instant::now() < deadline, "nothing was answered, but {log:#?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the log has this line, and returns its place.
    pub(super) async fn seen(&self, line: &str) -> usize {
        let deadline = Instant::now() + self.patience;
        loop {
            {
                let log = self.log.lock().unwrap();
                if let Some(place) = log.iter().position(|entry| entry == line) {
                    return place;
                }
                assert!(Instant::now() < deadline, "`{line}` was not logged, but {log:#?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the reason of the source's state holds this text.
    pub(super) async fn told(&self, text: &str) -> String {
        let deadline = Instant::now() + self.patience;
        loop {
            let reason = self.reason();
            if reason.contains(text) {
                return reason;
            }
            assert!(Instant::now() < deadline, "`{text}` was not told, but `{reason}`");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns the source's state and reason, as the report shows them.
    pub(super) fn reason(&self) -> String {
        let report = serde_json::to_value(self.registry.report()).unwrap();
        let check = &report["checks"]["test/source.toy"];
        format!("{} {}", check["status"].as_str().unwrap(), check["reason"].as_str().unwrap_or_default())
    }

    /// Lets the driver do what it can do without time passing by.
    pub(super) async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    pub(super) async fn ended(self) -> Result<()> {
        self.driver.await.unwrap()
    }

    pub(super) fn is_running(&self) -> bool {
        !self.driver.is_finished()
    }

    /// Shows what is open, as intake does.
    pub(super) fn show(&self, asks: Vec<Ask>) {
        self.registry.stage(StageId::source("test", "toy")).gaps_open(asks.len() as u64);
        self.asks.send_replace(asks.into());
    }
}

impl Dialled {
    pub(super) fn accept(self) -> Peer {
        let (to_driver, incoming) = mpsc::unbounded_channel();
        let (sent, from_driver) = mpsc::unbounded_channel();
        let (answers, is_deaf) = (to_driver.downgrade(), Arc::<AtomicBool>::default());
        let line = FakeLine { incoming, sent, answers, is_deaf: Arc::clone(&is_deaf) };
        assert!(self.answer.send(Ok(line)).is_ok(), "the driver waits for it");
        Peer { to_driver, is_deaf, sent: from_driver }
    }

    pub(super) fn refuse(self, why: &str) {
        drop(self.answer.send(Err(NotConnected::Failed(why.to_owned()))));
    }

    pub(super) fn answer(self, status: u16, body: &str) {
        drop(self.answer.send(Err(NotConnected::Answered { status, body: body.to_owned() })));
    }
}

impl Called {
    pub(super) fn reply(self, body: &str) {
        self.status(200, None, body);
    }

    pub(super) fn status(self, status: u16, retry_after: Option<Duration>, body: &str) {
        drop(self.answer.send(Ok(Answer { status, retry_after, body: body.into() })));
    }

    pub(super) fn fail(self) {
        drop(self.answer.send(Err(NoAnswer::Unreachable("connection refused".to_owned()))));
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.answer.is_closed()
    }
}

impl Peer {
    pub(super) fn say(&self, text: &str) {
        self.send(Message::text(text.to_owned()));
    }

    pub(super) fn send(&self, message: Message) {
        assert!(self.to_driver.send(Ok(message)).is_ok(), "the driver has let the connection go");
    }

    pub(super) fn fail(&self, error: WsError) {
        assert!(self.to_driver.send(Err(error)).is_ok(), "the driver has let the connection go");
    }

    /// Says something each second, as long as the connection is held.
    pub(super) fn chatter(&self, text: &'static str) {
        let to_driver = self.to_driver.clone();
        tokio::spawn(async move {
            while to_driver.send(Ok(Message::text(text))).is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// Waits for the next text that the driver sends; its pings are passed over.
    pub(super) async fn heard(&mut self) -> String {
        loop {
            if let Message::Text(text) = self.sent.recv().await.expect("the driver holds the connection") {
                return text.to_string();
            }
        }
    }

    /// Waits until the driver lets the connection go.
    pub(super) async fn gone(&self) {
        self.to_driver.closed().await;
    }

    pub(super) fn is_gone(&self) -> bool {
        self.to_driver.is_closed()
    }
}

impl Transport for Scripted {
    type Line = FakeLine;

    fn connect(&self, endpoint: Endpoint) -> impl Future<Output = Result<FakeLine, NotConnected>> + Send + 'static {
        assert_eq!(endpoint.shown(), "ws://venue/feed");
        let (answer, outcome) = oneshot::channel();
        drop(self.dials.send(Dialled { at: Instant::now(), answer }));
        async move { outcome.await.unwrap_or_else(|_| Err(NotConnected::Failed("connection refused".to_owned()))) }
    }

    fn call(
        &self,
        turn: Turn,
        request: Request,
        timeout: Duration,
    ) -> impl Future<Output = Result<Answer, NoAnswer>> + Send + 'static {
        let (answer, outcome) = oneshot::channel();
        drop(self.calls.send(Called { request, at: Instant::now(), answer }));
        async move {
            let _turn = turn;
            let unreachable = || NoAnswer::Unreachable("connection refused".to_owned());
            match tokio::time::timeout(timeout, outcome).await {
                Ok(outcome) => outcome.unwrap_or_else(|_| Err(unreachable())),
                Err(_) => Err(NoAnswer::TimedOut(timeout)),
            }
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp(1_000_000_000 + self.start.elapsed().as_nanos() as i64)
    }
}

impl Stream for FakeLine {
    type Item = Result<Message, WsError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.incoming.poll_recv(cx)
    }
}

impl Sink<Message> for FakeLine {
    type Error = WsError;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), WsError> {
        if let (Message::Ping(payload), Some(answers)) = (&message, self.answers.upgrade())
            && !self.is_deaf.load(Ordering::Relaxed)
        {
            drop(answers.send(Ok(Message::Pong(payload.clone()))));
        }
        drop(self.sent.send(message));
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        drop(self.sent.send(Message::Close(None)));
        Poll::Ready(Ok(()))
    }
}

/// Writes down what is handed over, in the order in which it happened.
async fn intake(mut handovers: mpsc::Receiver<Handover>, mut takes: watch::Receiver<bool>, seen: Seen) {
    let Seen { log, rows, alive } = seen;
    let mut streams = Vec::new();
    while let Some(handover) = handovers.recv().await {
        if takes.wait_for(|takes| *takes).await.is_err() {
            return;
        }
        if handover.is_anew {
            streams.clear();
        }
        streams.extend_from_slice(handover.records.new_streams());
        let (lines, whole) = written(&handover, &streams);
        rows.lock().unwrap().extend(whole);
        let heard = |(_, step): &(usize, Step)| if let Step::Alive { at } = step { Some(*at) } else { None };
        alive.lock().unwrap().extend(handover.steps.iter().filter_map(heard));
        log.lock().unwrap().extend(lines);
        handover.done(1);
    }
}

fn written(handover: &Handover, streams: &[StreamKey]) -> (Vec<String>, Vec<WholeRow>) {
    let (mut lines, mut rows) = (Vec::new(), Vec::new());
    // Of a replay; all else is as it was live.
    let is_time = |(_, step): &&(usize, Step)| matches!(step, Step::Recorded { .. });
    let mut steps = handover.steps.iter().filter(|step| !is_time(step)).peekable();
    for (number, (head, bytes)) in handover.records.iter().enumerate() {
        while let Some((_, step)) = steps.next_if(|(place, _)| *place <= number) {
            lines.push(worded(step));
        }
        let symbol = &streams[head.stream as usize].symbol;
        let origin = crate::row::Origin::NAMES[head.origin as usize];
        let line = format!("row {symbol} {} {origin}", head.position.number().unwrap_or_default());
        rows.push((line.clone(), head.ts_recv, bytes.to_vec()));
        lines.push(line);
    }
    lines.extend(steps.map(|(_, step)| worded(step)));
    (lines, rows)
}

fn worded(step: &Step) -> String {
    match step {
        Step::Recorded { at } => format!("recorded at {}", at.0),
        Step::Opened => "opened".to_owned(),
        Step::Confirmed { streams, at } => {
            let symbols: Vec<&str> = streams.iter().map(|stream| &*stream.key.symbol).collect();
            format!("confirmed {} at {}", symbols.join(","), at.0)
        }
        Step::Left { streams, .. } => {
            let symbols: Vec<&str> = streams.iter().map(|key| &*key.symbol).collect();
            format!("unsubscribed {}", symbols.join(","))
        }
        Step::Alive { .. } => "alive".to_owned(),
        Step::Ended { why } => format!("ended: {why}"),
        Step::Restart(key) => format!("restart {}", key.symbol),
        Step::Malformed { raw, error } => {
            format!("malformed {} `{}`: {error}", raw.len(), String::from_utf8_lossy(&raw[..raw.len().min(40)]))
        }
        Step::Answered { gap, ask } => format!("answered {} ask {ask}", gap.0),
        Step::Asked { gap } => format!("asked {}", gap.0),
        Step::Redrive(redrive) => format!("redrive {}", redrive.letter),
        Step::Lost { gap, why } => format!("lost {}: {why}", gap.0),
    }
}
