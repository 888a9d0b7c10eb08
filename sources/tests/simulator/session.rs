//! Requests of a session: subscribing, logging in, heartbeats, limits.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use tidegate_sources::deribit::simulator::{Credentials, SimulatorConfig};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{self, Message},
};

use crate::client::{Client, PERPETUAL, start, still_venue};

#[tokio::test]
async fn a_reply_echoes_the_id_as_it_was_sent_and_says_when_and_who() {
    let venue = still_venue().await;
    let mut client = Client::connect(&venue).await;
    for id in ["17", "\"seventeen\""] {
        client.send(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"public/hello","params":{{}}}}"#)).await;
        let text = client.text().await;
        assert!(text.contains(&format!("\"id\":{id},")), "{text}");
        let reply: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(reply["result"]["version"], "1.2.26");
        assert_eq!(reply["testnet"], true);
        assert_eq!(
            reply["usOut"].as_i64().unwrap() - reply["usIn"].as_i64().unwrap(),
            reply["usDiff"].as_i64().unwrap()
        );
    }
}

#[tokio::test]
async fn unknown_and_expired_channels_are_left_out_without_a_word_and_the_rest_comes_in_another_order() {
    let venue = still_venue().await;
    let expired = venue.oracle().instruments[1].instrument.name.clone();
    assert!(venue.expire(&expired));
    let wanted =
        [format!("quote.{PERPETUAL}"), format!("ticker.{PERPETUAL}.100ms"), format!("trades.{PERPETUAL}.100ms")];
    let mut asked: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let of_expired = format!("ticker.{expired}.100ms");
    asked.extend(["bogus.channel", "ticker.ETH-1JAN20-1-C.100ms", &of_expired, "ticker.ETH-PERPETUAL.7ms"]);

    let accepted = Client::connect(&venue).await.subscribe(&asked).await;

    assert_eq!(accepted.iter().collect::<BTreeSet<_>>(), wanted.iter().collect());
    assert_ne!(accepted, wanted);
}

#[tokio::test]
async fn one_raw_channel_without_a_login_fails_the_whole_request() {
    let credentials = Credentials { client_id: "id".into(), client_secret: "secret".into() };
    let config = SimulatorConfig { paused: true, credentials: Some(credentials), ..SimulatorConfig::default() };
    assert!(!format!("{config:?}").contains("secret"), "the secret is hidden");
    let venue = start(config).await;
    let mut client = Client::connect(&venue).await;
    let channels = json!({ "channels": ["ticker.ETH-PERPETUAL.raw", "ticker.ETH-PERPETUAL.100ms"] });
    let auth = |secret| json!({ "grant_type": "client_credentials", "client_id": "id", "client_secret": secret });

    let refused = client.request("public/subscribe", channels.clone()).await;
    assert_eq!(refused["error"]["code"], 13778);
    assert!(client.everything_so_far().await.is_empty(), "nothing was subscribed");
    assert_eq!(client.request("public/auth", auth("wrong")).await["error"]["code"], 13004);

    assert_eq!(client.request("public/auth", auth("secret")).await["result"]["token_type"], "bearer");
    assert_eq!(client.request("public/subscribe", channels).await["result"].as_array().unwrap().len(), 2);
    assert_eq!(client.request("private/logout", json!({})).await["result"], "ok");
    assert!(matches!(client.end().await, Some(Ok(Message::Close(Some(_))))));
}

#[tokio::test]
async fn a_request_that_is_too_long_is_refused_without_an_id_and_the_session_goes_on() {
    let venue = still_venue().await;
    let mut client = Client::connect(&venue).await;
    let channels: Vec<String> = (0..900).map(|n| format!("ticker.ETH-26SEP26-{n}00000-C.100ms")).collect();
    client
        .send(&json!({ "id": 5, "method": "public/subscribe", "params": { "channels": channels } }).to_string())
        .await;

    let reply = client.json().await;

    assert_eq!((reply.get("id"), &reply["error"]["code"]), (None, &json!(-32600)));
    assert!(client.request("public/get_time", json!({})).await["result"].is_i64());
}

#[tokio::test]
async fn wrong_requests_are_answered_with_the_errors_of_the_venue() {
    let venue = still_venue().await;
    let mut client = Client::connect(&venue).await;
    let many: Vec<String> = (0..501).map(|n| format!("quote.{n}")).collect();
    for (method, params, code) in [
        ("public/subscribe", json!({ "channels": "quote.X" }), -32602),
        ("public/subscribe", json!({ "channels": many }), -32602),
        ("public/set_heartbeat", json!({ "interval": 9 }), -32602),
        ("public/nothing", json!({}), -32601),
        ("private/get_positions", json!({}), 13009),
        ("public/ticker", json!({ "instrument_name": "ETH-1JAN20-1-C" }), 13020),
    ] {
        assert_eq!(client.request(method, params).await["error"]["code"], code, "{method}");
    }
    client.send("{ this is no JSON").await;
    assert_eq!(client.json().await["error"]["code"], -32700);
}

#[tokio::test]
async fn unsubscribing_ends_the_messages_of_a_channel() {
    let venue = still_venue().await;
    let (ticker, quote) = (format!("ticker.{PERPETUAL}.100ms"), format!("quote.{PERPETUAL}"));
    let mut client = Client::subscribed(&venue, &[&ticker, &quote]).await;
    assert_eq!(client.everything_so_far().await.len(), 2);

    let left = client.request("public/unsubscribe", json!({ "channels": [ticker, "bogus"] })).await;
    assert_eq!(left["result"], json!([ticker]));
    venue.update_book(PERPETUAL);
    let channels: Vec<Value> =
        client.everything_so_far().await.iter().map(|frame| frame["params"]["channel"].clone()).collect();
    assert_eq!(channels, [json!(quote)]);

    assert_eq!(client.request("public/unsubscribe_all", json!({})).await["result"], "ok");
    venue.update_book(PERPETUAL);
    assert!(client.everything_so_far().await.is_empty());
}

#[tokio::test]
async fn a_heartbeat_that_is_answered_keeps_the_session_and_one_that_is_not_ends_it() {
    let second = Duration::from_millis(10);
    let venue = start(SimulatorConfig { paused: true, heartbeat_second: second, ..SimulatorConfig::default() }).await;
    let mut client = Client::connect(&venue).await;
    assert_eq!(client.request("public/set_heartbeat", json!({ "interval": 10 })).await["result"], "ok");

    for _ in 0..3 {
        assert_eq!(client.notification().await["params"]["type"], "heartbeat");
        assert_eq!(client.notification().await["params"]["type"], "test_request");
        assert!(client.request("public/test", json!({})).await["result"].is_object());
    }
    assert_eq!(venue.oracle().sessions[0].ended_ms, None);

    assert!(matches!(client.end().await, Some(Ok(Message::Close(Some(_))))));
    assert_eq!(venue.oracle().sessions[0].why.as_deref(), Some("no answer to a test request"));
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_so_and_loses_its_session() {
    let venue = still_venue().await;
    let mut client = Client::connect(&venue).await;
    for _ in 0..10 {
        assert!(client.subscribe(&["platform_state"]).await.len() == 1, "ten at once are allowed");
    }
    let mut refused = Value::Null;
    while refused["error"].is_null() {
        refused = client.request("public/subscribe", json!({ "channels": ["platform_state"] })).await;
    }
    assert_eq!(refused["error"]["code"], 10028);
    assert!(matches!(client.end().await, Some(Ok(Message::Close(Some(_))))));
    assert_eq!(venue.oracle().sessions[0].why.as_deref(), Some("too many requests"));
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_answered_with_429() {
    let venue = start(SimulatorConfig { paused: true, connections: 2, ..SimulatorConfig::default() }).await;
    let (_first, _second) = (Client::connect(&venue).await, Client::connect(&venue).await);

    let refused = connect_async(venue.ws_url()).await.unwrap_err();

    assert!(matches!(refused, tungstenite::Error::Http(response) if response.status() == 429));
}

#[tokio::test]
async fn a_websocket_on_another_path_is_not_found() {
    let venue = still_venue().await;
    let refused = connect_async(format!("ws://{}/ws/api/v3", venue.addr())).await.unwrap_err();
    assert!(matches!(refused, tungstenite::Error::Http(response) if response.status() == 404));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let venue = start(SimulatorConfig { paused: true, backlog: 40, ..SimulatorConfig::default() }).await;
    let client = Client::subscribed(&venue, &[&format!("ticker.{PERPETUAL}.100ms")]).await;

    crate::client::until("the session of a slow client ends", || {
        venue.update_book(PERPETUAL);
        venue.read(|oracle| oracle.sessions[0].ended_ms.is_some())
    })
    .await;

    assert_eq!(venue.oracle().sessions[0].why.as_deref(), Some("connection too slow"));
    drop(client);
}
