//! What a venue says: frames, replies, and the simulator's own list.

use std::fs;

use tidegate::{
    catalog::Component,
    protocol::{Frame, Outbox, Protocol, Remedy, Reply},
    row::{Origin, StreamKey, Timestamp},
    testkit::gap,
};
use tidegate_sources::deribit::{
    Channel, Choice, DeribitConfig,
    simulator::{Oracle, Simulator, SimulatorConfig},
};

use crate::{files_of, tried};

const NOW: Timestamp = Timestamp(1_790_165_113_700_000_000);

#[test]
fn any_frame_is_answered() {
    let mut corpus = Vec::new();
    for file in files_of("sources/src/deribit/fixtures", "jsonl") {
        corpus.extend(file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
    }
    let (mut protocol, mut outbox) = listening();
    tried("frame", &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for frame in [Frame::Text(&text), Frame::Binary(bytes)] {
            outbox.begin(NOW, Origin::Live);
            drop(outbox.frame(&mut *protocol, frame, NOW));
            outbox.take_commands().for_each(drop);
            outbox.forget_records(0);
        }
    });
}

#[test]
fn any_reply_of_the_history_is_answered() {
    let option = "ETH-25DEC26-9000-C";
    let corpus = replies(&[
        "get_last_trades_by_currency?currency=ETH&kind=option&count=50",
        "get_last_trades_by_instrument?instrument_name=ETH-PERPETUAL&count=50",
        "get_last_trades_by_instrument?instrument_name=NONE&count=50",
    ]);
    let edge = |number| Some((number, Timestamp(NOW.0 - 1_000_000_000)));
    tried("history", &corpus, |bytes| {
        let (mut protocol, mut outbox) = listening();
        for stream in ["ETH-PERPETUAL", option] {
            let gaps = [
                gap(1, StreamKey::new("trades", stream), edge(40), None),
                gap(2, StreamKey::new("trades", stream), None, edge(9)),
            ];
            let Remedy::Fetch { request, .. } = protocol.on_gap(&gaps) else { panic!("trades are fetched") };
            for status in [200, 400] {
                outbox.begin(NOW, Origin::Backfill);
                drop(protocol.on_reply(&Reply { request: &request, status, body: bytes }, &gaps, &mut outbox));
                outbox.take_commands().for_each(drop);
                outbox.forget_records(0);
            }
        }
    });
}

#[test]
fn any_reply_of_the_discovery_is_answered() {
    let corpus = replies(&[
        "get_instruments?currency=ETH&kind=option&expired=false",
        "get_book_summary_by_currency?currency=ETH&kind=option",
    ]);
    let chosen: Choice =
        serde_json::from_str(r#"{"currency":"ETH","kind":"option","top":5,"by":"open_interest"}"#).unwrap();
    tried("discovery", &corpus, |bytes| {
        let (mut protocol, mut outbox) = protocol(vec![chosen.clone()]);
        outbox.begin(NOW, Origin::Live);
        let mut asked = protocol.discover(None, &mut outbox);
        // Each request is answered with the same.
        for _ in 0..4 {
            let Ok(tidegate::protocol::Discovery::Fetch(request)) = asked else { break };
            asked = protocol.discover(Some(&Reply { request: &request, status: 200, body: bytes }), &mut outbox);
            outbox.take_commands().for_each(drop);
            outbox.forget_records(0);
        }
    });
}

#[test]
fn any_list_of_a_simulator_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let sent = dir.path().join("sent.jsonl");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config =
            SimulatorConfig { sent: Some(sent.clone()), rate: 2_000.0, instruments: 5, ..SimulatorConfig::default() };
        let venue = Simulator::start(config).await.unwrap();
        while venue.read(|oracle| oracle.trades_made) < 30 {
            tokio::task::yield_now().await;
        }
        venue.stop().await.unwrap();
    });
    let corpus = [fs::read(&sent).unwrap()];
    tried("list", &corpus, |bytes| {
        fs::write(&sent, bytes).unwrap();
        drop(Oracle::load(&sent));
    });
}

/// Asks a simulator, and returns what it says.
fn replies(requests: &[&str]) -> Vec<Vec<u8>> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let venue = Simulator::start(SimulatorConfig { rate: 2_000.0, ..SimulatorConfig::default() }).await.unwrap();
        while venue.read(|oracle| oracle.trades_made) < 100 {
            tokio::task::yield_now().await;
        }
        let mut replies = Vec::new();
        for request in requests {
            let url = format!("{}/public/{request}", venue.http_url());
            replies.push(get(&url).await);
        }
        replies
    })
}

async fn get(url: &str) -> Vec<u8> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut socket = tokio::net::TcpStream::connect(host).await.unwrap();
    socket.write_all(format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    answer.split_off(head + 4)
}

/// Returns a protocol that has subscribed to everything.
fn listening() -> (Box<dyn Protocol>, Outbox) {
    let (mut protocol, mut outbox) = protocol(vec![Choice::Name("ETH-PERPETUAL".to_owned())]);
    let channels = [
        "trades.ETH-PERPETUAL.100ms",
        "ticker.ETH-PERPETUAL.100ms",
        "quote.ETH-PERPETUAL",
        "book.ETH-PERPETUAL.100ms",
        "deribit_price_index.eth_usd",
        "instrument.state.option.ETH",
    ];
    outbox.begin(NOW, Origin::Live);
    protocol.on_open(&mut outbox).unwrap();
    protocol.subscribe(&channels, &mut outbox).unwrap();
    channels.iter().for_each(|channel| outbox.watch(channel, true));
    outbox.take_commands().for_each(drop);
    (protocol, outbox)
}

fn protocol(instruments: Vec<Choice>) -> (Box<dyn Protocol>, Outbox) {
    use Channel::{BookChanges, BookTops, IndexPrices, InstrumentStatus, Quotes, Tickers, Trades};

    let channels = vec![Trades, Tickers, Quotes, BookChanges, BookTops, IndexPrices, InstrumentStatus];
    let protocol = DeribitConfig { channels, instruments, ..DeribitConfig::default() }.build().unwrap();
    let outbox = Outbox::new(protocol.tables());
    (protocol, outbox)
}
