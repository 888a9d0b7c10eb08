//! Everything that can go wrong, seen from the client.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde_json::{Value, json};
use tidegate_sources::deribit::simulator::{Condition, FAULT_NAMES, Fault, Faults, Simulator, SimulatorConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{self, Message, protocol::frame::coding::CloseCode},
};

use crate::client::{Client, PERPETUAL, error, get, http, result, start, still_venue, until};

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_cut_resets_every_session_and_says_so_in_the_oracle() {
    let venue = still_venue().await;
    let (one, other) = (Client::connect(&venue).await, Client::connect(&venue).await);
    one_more_session_is_known(&venue, 2).await;

    assert_eq!(venue.inject(Fault::Cut), 2);

    for client in [one, other] {
        assert!(matches!(client.end().await, Some(Err(_)) | None), "no close frame");
    }
    assert!(venue.oracle().sessions.iter().all(|session| session.why.as_deref() == Some("cut")));
}

#[tokio::test]
async fn a_cut_ends_the_tcp_connection_with_a_reset() {
    let venue = still_venue().await;
    let mut stream = TcpStream::connect(venue.addr()).await.unwrap();
    let handshake = "GET /ws/api/v2 HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut buffer = [0; 1024];
    assert!(stream.read(&mut buffer).await.unwrap() > 0);
    one_more_session_is_known(&venue, 1).await;

    venue.inject(Fault::Cut);

    let ended = loop {
        match stream.read(&mut buffer).await {
            Ok(0) => panic!("ended in an orderly way"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_torn_frame_promises_more_than_comes() {
    let venue = still_venue().await;
    let client = Client::connect(&venue).await;
    one_more_session_is_known(&venue, 1).await;
    venue.inject(Fault::Torn);
    assert!(matches!(client.end().await, Some(Err(_)) | None));
    assert_eq!(venue.oracle().sessions[0].why.as_deref(), Some("cut in the middle of a frame"));
}

#[tokio::test]
async fn a_close_carries_its_code() {
    let venue = still_venue().await;
    let client = Client::connect(&venue).await;
    one_more_session_is_known(&venue, 1).await;
    venue.inject(Fault::Close { code: 1012 });
    let Some(Ok(Message::Close(Some(frame)))) = client.end().await else { panic!("no close frame") };
    assert_eq!(frame.code, CloseCode::Restart);
}

#[tokio::test]
async fn a_half_open_session_neither_sends_nor_answers_and_stays_connected() {
    let venue = still_venue().await;
    let channel = format!("trades.{PERPETUAL}.100ms");
    let mut silent = Client::subscribed(&venue, &[&channel]).await;
    venue.inject(Fault::HalfOpen);
    until("the session is half open", || venue.oracle().sessions[0].ended_ms.is_some()).await;

    silent.send(r#"{"id":9,"method":"public/test","params":{}}"#).await;
    let mut other = Client::subscribed(&venue, &[&channel]).await;
    venue.make_trade(PERPETUAL);
    other.data(&channel).await;

    assert!(silent.message().now_or_never().is_none(), "nothing came and the connection did not end");
    assert_eq!(venue.oracle().owed()[PERPETUAL].len(), 1, "the trade is owed all the same");
}

#[tokio::test]
async fn bad_frames_come_besides_the_good_ones() {
    let venue = still_venue().await;
    let channel = format!("ticker.{PERPETUAL}.100ms");
    let mut client = Client::subscribed(&venue, &[&channel]).await;
    client.everything_so_far().await;

    for fault in [Fault::Malformed, Fault::Truncated, Fault::Oversized { bytes: 1 << 20 }, Fault::Frame("[".into())] {
        venue.inject(fault.clone());
        assert!(serde_json::from_str::<Value>(&client.text().await).is_err(), "{fault:?}");
    }
    venue.inject(Fault::Binary);
    assert!(matches!(client.message().await, Some(Ok(Message::Binary(_)))));

    venue.update_book(PERPETUAL);
    let volume = client.data(&channel).await["stats"]["volume"].as_f64().unwrap();
    let sent = venue.oracle().sessions[0].tickers[PERPETUAL].clone();
    assert_eq!((sent.len(), sent[1].key), (2, volume));
}

#[tokio::test]
async fn trades_come_twice_in_the_wrong_order_or_not_at_all() {
    let venue = still_venue().await;
    let channel = format!("trades.{PERPETUAL}.100ms");
    let mut client = Client::subscribed(&venue, &[&channel]).await;
    let first = venue.oracle().mark(PERPETUAL).seq + 1;

    for act in [Simulator::duplicate_trade, Simulator::reorder_trades, Simulator::skip_trade] {
        assert!(act(&venue, PERPETUAL));
    }

    let mut seqs = Vec::new();
    for _ in 0..5 {
        seqs.push(client.data(&channel).await[0]["trade_seq"].as_u64().unwrap() - first);
    }
    assert_eq!(seqs, [0, 0, 2, 1, 4]);
    assert_eq!(venue.oracle().owed()[PERPETUAL].len(), 5, "each is made once");
    let page = result(
        &venue.http_url(),
        &format!(
            "public/get_last_trades_by_instrument?instrument_name={PERPETUAL}&start_seq={}&end_seq={}",
            first + 3,
            first + 3
        ),
    )
    .await;
    assert_eq!(page["trades"].as_array().unwrap().len(), 1, "REST has the one that was not sent");
}

#[tokio::test]
async fn a_skipped_book_change_breaks_the_link() {
    let venue = still_venue().await;
    let channel = format!("book.{PERPETUAL}.100ms");
    let mut client = Client::subscribed(&venue, &[&channel]).await;
    let snapshot = client.data(&channel).await;

    assert!(venue.skip_book_change(PERPETUAL));

    let change = client.data(&channel).await;
    assert!(change["prev_change_id"].as_u64() > snapshot["change_id"].as_u64());
}

#[tokio::test]
async fn a_restarted_sequence_counts_from_one_in_a_new_epoch() {
    let venue = still_venue().await;
    let channel = format!("trades.{PERPETUAL}.100ms");
    let mut client = Client::subscribed(&venue, &[&channel]).await;
    venue.make_trade(PERPETUAL);
    assert!(venue.restart_sequence(PERPETUAL));
    venue.make_trade(PERPETUAL);

    assert!(client.data(&channel).await[0]["trade_seq"].as_u64().unwrap() > 1000);
    assert_eq!(client.data(&channel).await[0]["trade_seq"], 1);
    assert_eq!(client.data(&channel).await[0]["trade_seq"], 2);
    let oracle = venue.oracle();
    assert_eq!(oracle.owed()[PERPETUAL].iter().map(|trade| trade.epoch).collect::<Vec<_>>(), [0, 1, 1]);
    let numbered = format!("public/get_last_trades_by_instrument?instrument_name={PERPETUAL}&start_seq=1&count=1000");
    assert_eq!(result(&venue.http_url(), &numbered).await["trades"].as_array().unwrap().len(), 2, "numbers are of now");
}

#[tokio::test]
async fn faults_without_an_instrument_hit_one_that_somebody_listens_to() {
    let venue = still_venue().await;
    assert_eq!(venue.inject(Fault::Skip), 0, "nobody listens");
    let (trades, book) = (format!("trades.{PERPETUAL}.100ms"), format!("book.{PERPETUAL}.100ms"));
    let mut client = Client::subscribed(&venue, &[&trades, &book, "instrument.state.any.any"]).await;

    for fault in [Fault::Skip, Fault::Reorder, Fault::Duplicate, Fault::Restart] {
        assert_eq!(venue.inject(fault), 1);
        assert_eq!(client.data(&trades).await[0]["instrument_name"], PERPETUAL);
    }
    assert_eq!(venue.inject(Fault::SkipBook), 1);
    assert_eq!(client.data(&book).await["type"], "change");
    assert_eq!(venue.inject(Fault::Expire) + venue.inject(Fault::List), 2);
    for state in ["settlement", "delivered", "open"] {
        assert_eq!(client.data("instrument.state.any.any").await["state"], state);
    }
}

#[tokio::test]
async fn slow_replies_come_after_the_messages_that_they_announce() {
    let venue = still_venue().await;
    let mut client = Client::connect(&venue).await;
    let by = Duration::from_millis(50);
    venue.inject(Fault::Lasting(Condition::Slow { by }, LONG));
    let asked = Instant::now();
    client
        .send(
            &json!({"id": 1, "method": "public/subscribe", "params": {"channels": ["quote.ETH-PERPETUAL"]}})
                .to_string(),
        )
        .await;

    assert_eq!(client.json().await["method"], "subscription");
    assert_eq!(client.json().await["result"], json!(["quote.ETH-PERPETUAL"]));
    assert!(asked.elapsed() >= by);

    let asked = Instant::now();
    result(&venue.http_url(), "public/get_time").await;
    assert!(asked.elapsed() >= by);
}

#[tokio::test]
async fn rest_answers_429_or_5xx_or_not_at_all_until_it_is_mended() {
    let venue = still_venue().await;
    let url = format!("{}/public/get_time", venue.http_url());

    venue.inject(Fault::Lasting(Condition::Http429 { retry_after: Duration::from_secs(7) }, LONG));
    let (status, retry_after, body) = get(&url).await;
    assert_eq!((status, retry_after.as_deref()), (429, Some("7")));
    assert!(body.contains("10028"));

    venue.mend();
    venue.inject(Fault::Lasting(Condition::Http5xx, LONG));
    let (status, _, body) = get(&url).await;
    assert_eq!(status, 503);
    assert!(serde_json::from_str::<Value>(&body).is_err(), "no JSON: {body}");

    venue.mend();
    let kept_alive = http();
    assert_eq!(kept_alive.get(&url).send().await.unwrap().status(), 200);
    venue.inject(Fault::Lasting(Condition::RestDown, LONG));
    assert!(kept_alive.get(&url).send().await.is_err(), "an open connection is reset too");
    assert!(http().get(&url).send().await.is_err());
    assert!(
        Client::connect(&venue).await.request("public/test", json!({})).await["result"].is_object(),
        "only REST is down"
    );

    venue.mend();
    assert_eq!(get(&url).await.0, 200);
}

#[tokio::test]
async fn a_rest_host_that_lags_does_not_know_the_newest_trades() {
    let venue = still_venue().await;
    let query = format!("public/get_last_trades_by_instrument?instrument_name={PERPETUAL}&count=1&sorting=desc");
    venue.inject(Fault::Lasting(Condition::RestLag { by: Duration::from_secs(60) }, LONG));
    let before = venue.oracle().mark(PERPETUAL).seq;
    assert!(venue.make_trade(PERPETUAL));

    assert_eq!(result(&venue.http_url(), &query).await["trades"][0]["trade_seq"], before);
    venue.mend();
    assert_eq!(result(&venue.http_url(), &query).await["trades"][0]["trade_seq"], before + 1);
}

#[tokio::test]
async fn a_condition_ends_by_itself() {
    let venue = still_venue().await;
    let url = format!("{}/public/get_time", venue.http_url());
    venue.inject(Fault::Lasting(Condition::Http5xx, Duration::ZERO));
    assert_eq!(get(&url).await.0, 200);
}

#[tokio::test]
async fn refused_channels_are_left_out_without_a_word() {
    let venue = still_venue().await;
    let mut client = Client::connect(&venue).await;
    venue.inject(Fault::Lasting(Condition::Refuse { containing: "quote.".into() }, LONG));
    let asked = ["quote.ETH-PERPETUAL", "ticker.ETH-PERPETUAL.100ms"];
    assert_eq!(client.subscribe(&asked).await, ["ticker.ETH-PERPETUAL.100ms"]);
    venue.mend();
    assert_eq!(client.subscribe(&asked).await.len(), 2);
}

#[tokio::test]
async fn an_unauthorised_session_gets_13009_for_everything() {
    let venue = still_venue().await;
    let mut client = Client::connect(&venue).await;
    venue.inject(Fault::Lasting(Condition::Unauthorised, LONG));
    for method in ["public/subscribe", "public/auth", "public/test"] {
        let refused = client.request(method, json!({})).await;
        assert_eq!(
            (&refused["error"]["code"], &refused["error"]["data"]["reason"]),
            (&json!(13009), &json!("invalid_token"))
        );
    }
}

#[tokio::test]
async fn a_skewed_clock_shows_in_every_time_of_the_venue() {
    let venue = still_venue().await;
    let mut client = Client::subscribed(&venue, &[&format!("trades.{PERPETUAL}.100ms")]).await;
    let before = client.request("public/get_time", json!({})).await["result"].as_i64().unwrap();

    venue.inject(Fault::Lasting(Condition::Skew { by_ms: 3_600_000 }, LONG));

    let reply = client.request("public/get_time", json!({})).await;
    venue.make_trade(PERPETUAL);
    let trade = client.data(&format!("trades.{PERPETUAL}.100ms")).await;
    for time in [&reply["result"], &json!(reply["usIn"].as_i64().unwrap() / 1000), &trade[0]["timestamp"]] {
        assert!((3_600_000..3_900_000).contains(&(time.as_i64().unwrap() - before)), "{time}");
    }
}

#[tokio::test]
async fn a_new_connection_may_never_be_spoken_to_or_get_a_web_page() {
    let venue = still_venue().await;
    let mut old = Client::connect(&venue).await;

    venue.inject(Fault::Lasting(Condition::NeverSpeak, LONG));
    let mut mute = Box::pin(connect_async(venue.ws_url()));
    assert!(mute.as_mut().now_or_never().is_none());
    assert!(old.request("public/test", json!({})).await["result"].is_object(), "old sessions go on");
    assert!(mute.as_mut().now_or_never().is_none());

    venue.mend();
    venue.inject(Fault::Lasting(Condition::PlainHttp, LONG));
    let refused = connect_async(venue.ws_url()).await.unwrap_err();
    assert!(matches!(refused, tungstenite::Error::Http(response) if response.status() == 200));
}

#[tokio::test]
async fn replies_may_say_the_wrong_testnet() {
    for testnet in [true, false] {
        let venue = start(SimulatorConfig { paused: true, testnet, ..SimulatorConfig::default() }).await;
        let mut client = Client::connect(&venue).await;
        assert_eq!(client.request("public/test", json!({})).await["testnet"], testnet);
        venue.inject(Fault::Lasting(Condition::WrongTestnet, LONG));
        assert_eq!(client.request("public/test", json!({})).await["testnet"], !testnet);
        assert!(
            get(&format!("{}/public/test", venue.http_url())).await.2.contains(&format!("\"testnet\":{}", !testnet))
        );
    }
}

#[tokio::test]
async fn scheduled_faults_strike_by_themselves_and_rest_while_frozen() {
    let faults: Faults = "cut=100/s".parse().unwrap();
    let venue = start(SimulatorConfig { faults, paused: true, ..SimulatorConfig::default() }).await;
    let mut client = Client::connect(&venue).await;
    for _ in 0..20 {
        assert!(client.request("public/test", json!({})).await["result"].is_object());
    }

    venue.resume();

    assert!(matches!(client.end().await, Some(Err(_)) | None));
    assert_eq!(venue.oracle().sessions[0].why.as_deref(), Some("cut"));
}

#[tokio::test]
async fn a_scripted_fault_strikes_at_its_time() {
    let faults = Faults::default().and_script("50ms:close").unwrap();
    let venue = start(SimulatorConfig { faults, paused: true, ..SimulatorConfig::default() }).await;
    let mut client = Client::connect(&venue).await;
    assert!(client.request("public/test", json!({})).await["result"].is_object());
    venue.resume();
    assert!(matches!(client.end().await, Some(Ok(_))));
    assert_eq!(venue.oracle().sessions[0].why.as_deref(), Some("closed by the venue"));
}

#[tokio::test]
async fn a_rate_that_nobody_can_make_is_refused() {
    for rate in [0.0, -5.0, f64::NAN, f64::INFINITY, 1e9] {
        let refused = Simulator::start(SimulatorConfig { rate, ..SimulatorConfig::default() }).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput, "{rate}: {refused}");
    }
}

#[tokio::test]
async fn every_fault_of_the_list_can_strike_and_the_venue_lives_on() {
    let list: Vec<String> = FAULT_NAMES.iter().map(|name| format!("{name}=20/s")).collect();
    let faults: Faults = list.join(",").parse().unwrap();
    let venue = start(SimulatorConfig { faults, rate: 1000.0, ..SimulatorConfig::default() }).await;
    for _ in 0..20 {
        // Whatever happens to it: the connection may be refused, cut, or left alone.
        if let Ok(Ok((socket, _))) =
            tokio::time::timeout(Duration::from_millis(50), connect_async(venue.ws_url())).await
        {
            drop(socket);
        }
    }
    venue.freeze();
    venue.mend();
    let mut client = Client::connect(&venue).await;
    assert!(client.request("public/test", json!({})).await["result"].is_object());
    assert_eq!(error(&venue.http_url(), "public/nothing").await["code"], -32601);
}

async fn one_more_session_is_known(venue: &Simulator, count: usize) {
    until("the session is open at the venue", || venue.read(|oracle| oracle.sessions.len() == count)).await;
}
