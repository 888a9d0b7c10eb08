//! The protocol against the simulated venue over real sockets: every frame is read, and what a cut cost is found again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Once,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tidegate_core::{
    Kind, Result,
    config::Secret,
    protocol::{Command, Edge, Gap, Remedy},
    testkit::{Stored, gap},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::*;
use crate::deribit::{
    Interval,
    simulator::{Credentials, Fault, Oracle, Simulator, SimulatorConfig},
};

const DEADLINE: Duration = Duration::from_secs(30);

/// A connection whose protocol is driven by the test.
struct Line {
    script: Script<Deribit>,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    malformed: usize,
}

impl Line {
    /// Opens a session and subscribes to all channels, each of which must be accepted.
    async fn open(venue: &Simulator, mut script: Script<Deribit>, channels: &[String]) -> Self {
        let (socket, _) = timeout(DEADLINE, connect_async(venue.ws_url())).await.unwrap().unwrap();
        script.commands.clear();
        script.at(Timestamp::now()).open().unwrap();
        let mut line = Self { script, socket, malformed: 0 };
        line.until(|script| script.asked_for(&Command::Ready)).await;
        let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
        line.script.subscribe(&channels).unwrap();
        line.until(|script| script.confirmed().len() == channels.len()).await;
        assert_eq!(line.script.refused(), [("", ""); 0]);
        line
    }

    /// Reads frames, and sends what the protocol answers, until something is there.
    async fn until(&mut self, done: impl Fn(&Script<Deribit>) -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while tokio::time::Instant::now() < deadline {
            for text in std::mem::take(&mut self.script.sent) {
                self.socket.send(Message::text(text)).await.unwrap();
            }
            if done(&self.script) {
                return;
            }
            let message = timeout(DEADLINE, self.socket.next()).await.expect("the venue says something in time");
            self.script.at(Timestamp::now());
            let outcome = match message.unwrap().unwrap() {
                Message::Text(text) => self.script.frame(&text),
                Message::Binary(bytes) => self.script.binary(&bytes),
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Ok(()),
            };
            self.count(outcome);
        }
        let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
        self.script.stored.iter().for_each(|row| *rows.entry(&row.stream.table).or_default() += 1);
        panic!("it never came: {rows:?}");
    }

    fn count(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            assert_eq!(error.kind(), Kind::Malformed, "{error}");
            self.malformed += 1;
        }
    }

    /// Reads everything that was sent so far: the end of a channel comes behind it.
    async fn everything_so_far(&mut self, channel: &str) {
        self.script.unsubscribe(&[channel]).unwrap();
        let ended = Command::Unsubscribed(channel.to_owned());
        self.until(|script| script.asked_for(&ended)).await;
    }
}

async fn get(url: &str) -> (u16, String) {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    let response = reqwest::Client::builder().timeout(DEADLINE).build().unwrap().get(url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Runs a discovery; each turn learns one more reply.
async fn discover(script: &mut Script<Deribit>) -> Vec<String> {
    let mut replies: HashMap<String, String> = HashMap::new();
    loop {
        let mut unknown = None;
        let outcome = script.discover(|request| {
            replies.get(&request.url).cloned().unwrap_or_else(|| {
                unknown = Some(request.url.clone());
                String::new()
            })
        });
        let Some(url) = unknown else { return outcome.unwrap().1 };
        let (status, body) = get(&url).await;
        assert_eq!(status, 200, "{body}");
        replies.insert(url, body);
    }
}

/// Asks for gaps until each is answered; returns the rows and how many requests it took.
async fn heal(script: &mut Script<Deribit>, mut gaps: Vec<Gap>) -> (Vec<Stored>, usize) {
    script.stored.clear();
    let mut requests = 0;
    while !gaps.is_empty() {
        assert!(requests < 500, "it asks for ever: {gaps:?}");
        let Remedy::Fetch { request, gaps: ids } = script.on_gap(&gaps) else {
            panic!("nothing can be done: {gaps:?}")
        };
        let (status, body) = get(&request.url).await;
        requests += 1;
        let asked: Vec<Gap> = gaps.iter().filter(|gap| ids.contains(&gap.id)).cloned().collect();
        let answered = script.at(Timestamp::now()).reply(&request, status, &body, &asked).unwrap();
        gaps.retain(|gap| !answered.contains(&gap.id));
    }
    (std::mem::take(&mut script.stored), requests)
}

fn trades(rows: &[Stored]) -> BTreeMap<String, BTreeMap<u64, Edge>> {
    let mut trades: BTreeMap<String, BTreeMap<u64, Edge>> = BTreeMap::new();
    for row in rows.iter().filter(|row| &*row.stream.table == "trades") {
        let edge = Edge { position: row.head.position, ts_event: row.head.ts_event };
        trades.entry(row.stream.symbol.to_string()).or_default().insert(edge.position.number().unwrap(), edge);
    }
    trades
}

/// Returns the instruments whose trades are subscribed to.
fn followed(channels: &[String]) -> BTreeSet<String> {
    let trades = channels.iter().filter_map(|channel| channel.strip_prefix("trades."));
    trades.map(|name| name.trim_end_matches(".100ms").to_owned()).collect()
}

/// Compares what was found with what the venue made.
fn compare(oracle: &Oracle, found: &BTreeMap<String, BTreeMap<u64, Edge>>) {
    for (symbol, owed) in oracle.owed() {
        let found = found.get(symbol).cloned().unwrap_or_default();
        for trade in owed {
            assert!(found.contains_key(&trade.seq), "{symbol} {} was made and not found", trade.seq);
        }
        let made: BTreeSet<u64> = oracle.trades[symbol].iter().map(|trade| trade.seq).collect();
        assert!(found.keys().all(|seq| made.contains(seq)), "{symbol}: nothing was invented");
    }
}

#[tokio::test]
async fn every_frame_of_a_simulated_venue_is_read_and_what_a_cut_cost_is_found_again() {
    let venue = Simulator::start(SimulatorConfig { rate: 1000.0, ..SimulatorConfig::default() }).await.unwrap();
    let endpoint = Endpoint::Own(Hosts {
        ws: venue.ws_url(),
        http: venue.http_url(),
        history: Some(venue.history_url()),
        testnet: Some(true),
    });
    let selectors = r#"["ETH-PERPETUAL", { "currency": "ETH", "kind": "option", "top": 30, "leave_at": 40 }]"#;
    let config = DeribitConfig { endpoint, instruments: serde_json::from_str(selectors).unwrap(), ..everything() };
    let mut script = Script::new(Deribit::new(config), Timestamp::now());
    let channels = discover(&mut script).await;
    let followed = followed(&channels);
    assert_eq!(followed.len(), 31);

    let mut line = Line::open(&venue, script, &channels).await;
    let since = line.script.confirmed()[0].1;
    venue.inject(Fault::Malformed);
    venue.inject(Fault::Truncated);
    venue.inject(Fault::Binary);
    let seen =
        |script: &Script<Deribit>, table: &str| script.stored.iter().filter(|row| &*row.stream.table == table).count();
    line.until(|script| {
        ["tickers", "quotes", "book_changes", "book_tops", "index_prices"].iter().all(|table| seen(script, table) > 0)
            && seen(script, "trades") > 100
    })
    .await;
    line.everything_so_far("instrument.state.option.ETH").await;
    assert_eq!(line.malformed, 3, "only those frames that were broken on purpose");
    assert_eq!((line.script.ignored().len(), line.script.rejected().len()), (0, 0), "{:?}", line.script.ignored());
    let Line { mut script, socket, .. } = line;
    drop(socket);
    let mut live = trades(&std::mem::take(&mut script.stored));
    let last: BTreeMap<String, Edge> =
        live.iter().map(|(symbol, trades)| (symbol.clone(), *trades.last_key_value().unwrap().1)).collect();

    let missed = followed.iter().filter(|symbol| venue.make_trade(symbol)).count();
    assert!(missed > 20, "{missed}");
    let mut line = Line::open(&venue, script, &channels).await;
    venue.freeze();
    venue.settle().await;
    line.everything_so_far("deribit_price_index.eth_usd").await;
    for (symbol, trades) in trades(&std::mem::take(&mut line.script.stored)) {
        live.entry(symbol).or_default().extend(trades);
    }

    let open = |(id, symbol): (usize, &String)| {
        let stream = tidegate_core::row::StreamKey::new("trades", symbol);
        let gap = gap(id as u64, stream, None, None);
        match last.get(symbol) {
            Some(last) => Gap { after: Some(*last), since: last.ts_event, ..gap },
            None => Gap { since, ..gap },
        }
    };
    let gaps: Vec<Gap> = followed.iter().enumerate().map(open).collect();
    let (rows, requests) = heal(&mut line.script, gaps).await;
    assert!(requests < followed.len(), "{requests}: some were asked for together");
    for (symbol, trades) in trades(&rows) {
        live.entry(symbol).or_default().extend(trades);
    }
    compare(&venue.oracle(), &live);
    venue.stop().await.unwrap();
}

#[tokio::test]
async fn a_login_is_renewed_before_it_runs_out_on_the_line_that_goes_on() {
    let credentials = Credentials { client_id: "an-id".into(), client_secret: "a-secret".into() };
    let config = SimulatorConfig { credentials: Some(credentials), paused: true, ..SimulatorConfig::default() };
    let venue = Simulator::start(config).await.unwrap();
    let endpoint =
        Endpoint::Own(Hosts { ws: venue.ws_url(), http: venue.http_url(), history: None, testnet: Some(true) });
    let config = DeribitConfig {
        endpoint,
        interval: Interval::Raw,
        client_id: Some("an-id".into()),
        client_secret: Some(Secret::new("a-secret")),
        channels: vec![Channel::Trades],
        ..everything()
    };
    let channels = ["trades.ETH-PERPETUAL.raw".to_owned()];
    let mut line = Line::open(&venue, Script::new(Deribit::new(config), Timestamp::now()), &channels).await;
    let a_year = Duration::from_secs(31_536_000) * 4 / 5;
    let wakes =
        |script: &Script<Deribit>| script.commands.iter().filter(|one| **one == Command::WakeAfter(a_year)).count();
    assert_eq!(wakes(&line.script), 1, "{:?}", line.script.commands);
    let due = Timestamp(Timestamp::now().0 + a_year.as_nanos() as i64 + 1);
    line.script.at(due).wake().unwrap();
    line.until(|script| wakes(script) == 2).await;
    assert!(venue.make_trade("ETH-PERPETUAL"));
    line.until(|script| !script.stored.is_empty()).await;
    venue.stop().await.unwrap();
}
