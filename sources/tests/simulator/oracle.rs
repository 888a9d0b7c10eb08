//! What the venue says it made, against what a client got, and over restarts.

use std::{collections::BTreeMap, fs, io::Write, path::Path, time::Instant};

use serde_json::{Value, json};
use tidegate_sources::deribit::simulator::{BookKey, Fault, Handed, Mark, Oracle, Simulator, SimulatorConfig, Trade};

use crate::client::{Client, DEADLINE, PERPETUAL, busy_options, result, start, still_venue, until};

#[tokio::test]
async fn what_a_client_received_is_what_the_oracle_says_was_made_and_sent() {
    let venue = start(SimulatorConfig { paused: true, rate: 5_000.0, ..SimulatorConfig::default() }).await;
    let option = busy_options(&venue).await.remove(0);
    let channels: Vec<String> = [PERPETUAL, &option]
        .iter()
        .flat_map(|name| [format!("ticker.{name}.100ms"), format!("quote.{name}"), format!("book.{name}.100ms")])
        .chain(["trades.any.any.100ms".to_owned()])
        .collect();
    let mut client = Client::subscribed(&venue, &channels.iter().map(String::as_str).collect::<Vec<_>>()).await;

    venue.resume();
    until("1000 trades are made", || venue.read(|oracle| oracle.trades_made >= 1000)).await;
    venue.freeze();
    venue.settle().await;
    let frames = client.everything_so_far().await;

    let oracle = venue.oracle();
    let received = Received::of(&frames);
    let owed: BTreeMap<&str, Vec<Mark>> = oracle
        .owed()
        .into_iter()
        .filter(|(_, trades)| !trades.is_empty())
        .map(|(name, trades)| (name, trades.iter().map(|trade| trade.mark()).collect()))
        .collect();
    assert_eq!(
        received.trades.iter().map(|(name, marks)| (name.as_str(), marks.clone())).collect::<BTreeMap<_, _>>(),
        owed
    );
    let session = &oracle.sessions[0];
    assert_eq!(received.tickers, keys(&session.tickers));
    assert_eq!(received.quotes, keys(&session.quotes));
    assert_eq!(received.books, keys(&session.books));
    assert!(session.tickers[PERPETUAL].windows(2).all(|pair| pair[0].key < pair[1].key), "volumes only grow");
    assert!(session.quotes[PERPETUAL].windows(2).all(|pair| pair[0].key < pair[1].key), "times of quotes only grow");

    let totals = oracle.totals();
    assert_eq!(totals.trades_made, oracle.trades_made);
    assert_eq!(totals.tickers_sent as usize, received.tickers.values().map(Vec::len).sum::<usize>());
    assert_eq!(totals.sessions, 1);
}

#[tokio::test]
async fn trades_between_two_sessions_are_owed_and_those_of_a_wanted_absence_are_not() {
    let venue = still_venue().await;
    let channel = format!("trades.{PERPETUAL}.100ms");
    let make = |count| (0..count).for_each(|_| assert!(venue.make_trade(PERPETUAL)));
    let owed = || venue.oracle().owed().get(PERPETUAL).map_or(0, Vec::len);
    make(3);
    assert_eq!(owed(), 0, "nobody asked yet");

    let client = Client::subscribed(&venue, &[&channel]).await;
    make(2);
    venue.inject(Fault::Cut);
    assert!(!matches!(client.end().await, Some(Ok(_))));
    make(4);
    assert_eq!(owed(), 2, "who never comes back is owed no more");
    assert!(venue.oracle().owed_since(2).is_empty(), "who knows nothing of the session is owed nothing");

    let mut client = Client::subscribed(&venue, &[&channel]).await;
    make(1);
    assert_eq!(owed(), 7);
    assert_eq!(venue.oracle().owed_since(2)[PERPETUAL].len(), 1);
    client.request("public/unsubscribe", json!({ "channels": [channel] })).await;
    make(10);
    assert_eq!(owed(), 7);

    client.subscribe(&[&channel]).await;
    make(1);
    assert_eq!(owed(), 8);
    client.close().await;
    until("the venue has seen the close", || venue.oracle().sessions[1].ended_ms.is_some()).await;
    make(5);
    assert_eq!(owed(), 8);
    assert_eq!(venue.oracle().sessions[1].why.as_deref(), Some("closed by the client"));
}

#[tokio::test]
async fn two_lines_with_the_same_channel_are_one_claim() {
    let venue = still_venue().await;
    let channel = format!("trades.{PERPETUAL}.100ms");
    let first = Client::subscribed(&venue, &[&channel]).await;
    assert!(venue.make_trade(PERPETUAL));
    let _second = Client::subscribed(&venue, &[&channel]).await;
    assert!(venue.make_trade(PERPETUAL));
    first.close().await;
    until("the first line is closed", || venue.oracle().sessions[0].ended_ms.is_some()).await;
    assert!(venue.make_trade(PERPETUAL));
    assert_eq!(venue.oracle().owed()[PERPETUAL].len(), 3);
}

#[tokio::test]
async fn whatever_a_client_receives_is_in_the_file_already() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/sent.jsonl");
    let venue = start(with_file(&path)).await;
    let (trades, ticker) = (format!("trades.{PERPETUAL}.100ms"), format!("ticker.{PERPETUAL}.100ms"));
    let mut client = Client::subscribed(&venue, &[&trades, &ticker]).await;
    let volume = client.data(&ticker).await["stats"]["volume"].as_f64().unwrap();
    assert_eq!(keys(&Oracle::load(&path).unwrap().sessions[0].tickers)[PERPETUAL], [volume]);

    for _ in 0..20 {
        assert!(venue.make_trade(PERPETUAL));
        let seq = client.data(&trades).await[0]["trade_seq"].as_u64().unwrap();
        let written = Oracle::load(&path).unwrap();
        assert_eq!(written.mark(PERPETUAL).seq, seq);
        assert_eq!(written, venue.oracle(), "the file says what the venue says");
    }
}

#[tokio::test]
async fn a_venue_started_again_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sent.jsonl");
    let venue = start(with_file(&path)).await;
    let expired = venue.oracle().instruments[5].instrument.name.clone();
    assert!(venue.expire(&expired));
    assert!(venue.restart_sequence(PERPETUAL));
    let channels =
        [format!("ticker.{PERPETUAL}.100ms"), format!("book.{PERPETUAL}.100ms"), format!("trades.{PERPETUAL}.100ms")];
    let channels = channels.each_ref().map(String::as_str);
    let client = Client::subscribed(&venue, &channels).await;
    for _ in 0..50 {
        assert!(venue.make_trade(PERPETUAL) && venue.update_book(PERPETUAL));
    }
    venue.settle().await;
    venue.stop().await.unwrap();
    drop(client);
    let before = Oracle::load(&path).unwrap();
    assert_eq!(before.sessions[0].why.as_deref(), Some("the venue stopped"));

    let venue = start(with_file(&path)).await;
    assert_eq!(venue.oracle(), before, "nothing is made by starting");
    let mut client = Client::subscribed(&venue, &channels).await;
    assert!(venue.make_trade(PERPETUAL));

    let volume = client.data(channels[0]).await["stats"]["volume"].as_f64().unwrap();
    assert!(volume > before.sessions[0].tickers[PERPETUAL].last().unwrap().key);
    let change_id = client.data(channels[1]).await["change_id"].as_u64().unwrap();
    assert!(change_id > before.sessions[0].books[PERPETUAL].last().unwrap().key.change_id);
    let trade = client.data(channels[2]).await;
    let last = before.trades[PERPETUAL].last().unwrap();
    assert_eq!(trade[0]["trade_seq"], last.seq + 1);
    assert_eq!(trade[0]["trade_id"], json!(format!("ETH-{}", last.id + 1)));

    let query =
        format!("public/get_last_trades_by_instrument?instrument_name={PERPETUAL}&start_seq=1&count=1000&sorting=asc");
    assert_eq!(result(&venue.http_url(), &query).await["trades"].as_array().unwrap().len(), 52);
    assert!(!venue.make_trade(&expired), "expired it stays");
    assert_eq!(venue.oracle().owed()[PERPETUAL].len(), 51, "both runs are one claim");
}

#[tokio::test]
async fn a_killed_venue_loses_only_the_line_it_was_writing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sent.jsonl");
    let venue = start(with_file(&path)).await;
    let _client = Client::subscribed(&venue, &[&format!("trades.{PERPETUAL}.100ms")]).await;
    assert!(venue.make_trade(PERPETUAL));
    // What a kill leaves: the file as it is now, perhaps with half a line.
    let left = folder.path().join("left.jsonl");
    fs::copy(&path, &left).unwrap();
    fs::OpenOptions::new().append(true).open(&left).unwrap().write_all(br#"{"at_ms":1,"event":{"tra"#).unwrap();

    let again = start(with_file(&left)).await;
    assert!(again.make_trade(PERPETUAL));

    assert_eq!(again.oracle().mark(PERPETUAL).seq, venue.oracle().mark(PERPETUAL).seq + 1);
    assert_eq!(again.oracle().sessions[0].why.as_deref(), Some("the venue stopped"));
    assert_eq!(Oracle::load(&left).unwrap(), again.oracle());
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sent.jsonl");
    start(with_file(&path)).await.stop().await.unwrap();
    let whole = fs::read_to_string(&path).unwrap();

    fs::write(&path, whole.replacen("{\"at_ms\"", "{at_ms", 3).replacen("{at_ms", "{\"at_ms\"", 2)).unwrap();
    let error = Simulator::start(with_file(&path)).await.unwrap_err().to_string();
    assert!(error.contains("line 3"), "{error}");

    fs::write(&path, whole.replacen("\"version\":1", "\"version\":99", 1)).unwrap();
    let error = Oracle::load(&path).unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains("version 99"), "{error}");
    assert!(Simulator::start(with_file(folder.path())).await.is_err(), "a folder is no file");
}

#[tokio::test]
async fn the_same_seed_makes_the_same_market_and_another_seed_another() {
    let trades = async |seed| {
        let venue = start(SimulatorConfig { seed, rate: 10_000.0, ..SimulatorConfig::default() }).await;
        until("200 trades are made", || venue.read(|oracle| oracle.trades_made >= 200)).await;
        let mut made: Vec<(String, Trade)> = venue
            .oracle()
            .trades
            .into_iter()
            .flat_map(|(name, trades)| {
                trades.into_iter().map(move |trade| (name.clone(), Trade { timestamp: 0, ..trade }))
            })
            .collect();
        made.sort_by_key(|(_, trade)| trade.id);
        made.truncate(200);
        made
    };
    assert_eq!(trades(3).await, trades(3).await);
    assert_ne!(trades(3).await, trades(4).await);
}

#[tokio::test]
async fn events_come_at_the_rate_that_was_asked_for() {
    let began = Instant::now();
    let venue = start(SimulatorConfig { rate: 2_000.0, ..SimulatorConfig::default() }).await;
    until("100 trades are made", || venue.read(|oracle| oracle.trades_made >= 100)).await;
    let seconds = began.elapsed().as_secs_f64();
    assert!((0.25..DEADLINE.as_secs_f64()).contains(&seconds), "about 1000 events at 2000 a second took {seconds} s");

    venue.freeze();
    let made = venue.oracle().trades_made;
    let mut client = Client::connect(&venue).await;
    for _ in 0..50 {
        client.everything_so_far().await;
    }
    assert_eq!(venue.oracle().trades_made, made, "a frozen venue serves and makes nothing");
}

#[tokio::test]
async fn a_stopped_venue_says_goodbye_and_listens_no_more() {
    let venue = still_venue().await;
    let client = Client::connect(&venue).await;
    let url = venue.ws_url();
    let (stopped, goodbye) = tokio::join!(venue.stop(), client.end());
    stopped.unwrap();
    assert!(matches!(goodbye, Some(Ok(_))), "{goodbye:?}");
    assert!(tokio_tungstenite::connect_async(url).await.is_err());
}

/// Returns what makes recognisable what was sent.
fn keys<K: Copy>(sent: &BTreeMap<String, Vec<Handed<K>>>) -> BTreeMap<String, Vec<K>> {
    let keys = |(name, sent): (&String, &Vec<Handed<K>>)| (name.clone(), sent.iter().map(|one| one.key).collect());
    sent.iter().map(keys).collect()
}

/// What came, sorted by what it was.
#[derive(Default)]
struct Received {
    trades: BTreeMap<String, Vec<Mark>>,
    tickers: BTreeMap<String, Vec<f64>>,
    quotes: BTreeMap<String, Vec<i64>>,
    books: BTreeMap<String, Vec<BookKey>>,
}

impl Received {
    fn of(frames: &[Value]) -> Self {
        let mut received = Self::default();
        for frame in frames {
            let (channel, data) = (frame["params"]["channel"].as_str().unwrap(), &frame["params"]["data"]);
            let name = |data: &Value| data["instrument_name"].as_str().unwrap().to_owned();
            match channel.split('.').next().unwrap() {
                "trades" => data.as_array().unwrap().iter().for_each(|trade| {
                    let mark = Mark { epoch: 0, seq: trade["trade_seq"].as_u64().unwrap() };
                    received.trades.entry(name(trade)).or_default().push(mark);
                }),
                "ticker" => {
                    received.tickers.entry(name(data)).or_default().push(data["stats"]["volume"].as_f64().unwrap())
                }
                "quote" => received.quotes.entry(name(data)).or_default().push(data["timestamp"].as_i64().unwrap()),
                _ => {
                    let key = BookKey {
                        change_id: data["change_id"].as_u64().unwrap(),
                        snapshot: data["type"] == "snapshot",
                    };
                    received.books.entry(name(data)).or_default().push(key);
                }
            }
        }
        received
    }
}

fn with_file(path: &Path) -> SimulatorConfig {
    SimulatorConfig { paused: true, sent: Some(path.to_owned()), ..SimulatorConfig::default() }
}
