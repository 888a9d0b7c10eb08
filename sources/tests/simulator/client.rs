//! A client of the tests: a WebSocket session, and REST.

use std::{collections::VecDeque, sync::Once, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tidegate_sources::deribit::simulator::{Simulator, SimulatorConfig};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message},
};

/// Longer than anything here takes, even on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const PERPETUAL: &str = "ETH-PERPETUAL";

/// A venue that makes nothing by itself.
pub(crate) async fn still_venue() -> Simulator {
    start(SimulatorConfig { paused: true, ..SimulatorConfig::default() }).await
}

pub(crate) async fn start(config: SimulatorConfig) -> Simulator {
    Simulator::start(config).await.unwrap()
}

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    id: u64,
    notifications: VecDeque<Value>,
}

impl Client {
    pub(crate) async fn connect(venue: &Simulator) -> Self {
        let (socket, _) = timeout(DEADLINE, connect_async(venue.ws_url())).await.unwrap().unwrap();
        Self { socket, id: 0, notifications: VecDeque::new() }
    }

    /// Connects and subscribes; every channel must be accepted.
    pub(crate) async fn subscribed(venue: &Simulator, channels: &[&str]) -> Self {
        let mut client = Self::connect(venue).await;
        let accepted = client.subscribe(channels).await;
        assert_eq!(accepted.len(), channels.len(), "accepted only {accepted:?}");
        client
    }

    pub(crate) async fn subscribe(&mut self, channels: &[&str]) -> Vec<String> {
        let reply = self.request("public/subscribe", json!({ "channels": channels })).await;
        serde_json::from_value(reply["result"].clone()).unwrap_or_else(|_| panic!("no list in {reply}"))
    }

    /// Sends a request and returns its whole reply; what comes before it is kept for `notification`.
    pub(crate) async fn request(&mut self, method: &str, params: Value) -> Value {
        self.id += 1;
        let id = self.id;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()).await;
        loop {
            let frame = self.json().await;
            if frame["id"] == id {
                return frame;
            }
            self.notifications.push_back(frame);
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Returns the next notification, kept or new.
    pub(crate) async fn notification(&mut self) -> Value {
        match self.notifications.pop_front() {
            Some(kept) => kept,
            None => self.json().await,
        }
    }

    /// Returns the data of the next message of a channel; others are passed over.
    pub(crate) async fn data(&mut self, channel: &str) -> Value {
        loop {
            let mut frame = self.notification().await;
            if frame["params"]["channel"] == channel {
                return frame["params"]["data"].take();
            }
        }
    }

    /// Returns everything that comes before the answer to a question asked now.
    pub(crate) async fn everything_so_far(&mut self) -> Vec<Value> {
        self.request("public/test", json!({})).await;
        std::mem::take(&mut self.notifications).into()
    }

    pub(crate) async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.message().await {
            Some(Ok(Message::Text(text))) => text.to_string(),
            other => panic!("a text frame was expected, not {other:?}"),
        }
    }

    pub(crate) async fn message(&mut self) -> Option<Result<Message, tungstenite::Error>> {
        timeout(DEADLINE, self.socket.next()).await.expect("the venue says something in time")
    }

    /// Reads until the connection ends and returns the last thing seen: a close frame, an error, or nothing.
    pub(crate) async fn end(mut self) -> Option<Result<Message, tungstenite::Error>> {
        loop {
            match self.message().await {
                Some(Ok(Message::Close(frame))) => return Some(Ok(Message::Close(frame))),
                Some(Ok(_)) => {}
                other => return other,
            }
        }
    }

    /// Ends the session as a client should.
    pub(crate) async fn close(mut self) {
        self.socket.close(None).await.unwrap();
        while let Some(Ok(_)) = self.message().await {}
    }
}

/// Asks a REST host, and returns status, `Retry-After` and body.
pub(crate) async fn get(url: &str) -> (u16, Option<String>, String) {
    let response = http().get(url).send().await.unwrap();
    let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), retry_after, response.text().await.unwrap())
}

/// Asks a REST host for something that it has.
pub(crate) async fn result(base: &str, method_and_query: &str) -> Value {
    let (status, _, body) = get(&format!("{base}/{method_and_query}")).await;
    assert_eq!(status, 200, "{body}");
    let mut reply: Value = serde_json::from_str(&body).unwrap();
    reply["result"].take()
}

/// Asks a REST host for something that it refuses, and returns the error.
pub(crate) async fn error(base: &str, method_and_query: &str) -> Value {
    let (status, _, body) = get(&format!("{base}/{method_and_query}")).await;
    assert_eq!(status, 400, "{body}");
    let mut reply: Value = serde_json::from_str(&body).unwrap();
    reply["error"].take()
}

pub(crate) fn http() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    reqwest::Client::builder().timeout(DEADLINE).build().unwrap()
}

/// Waits until `done`, which something else will bring about soon.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Names of options that quote by themselves, which far ones do not.
pub(crate) async fn busy_options(venue: &Simulator) -> Vec<String> {
    let rows = result(&venue.http_url(), "public/get_book_summary_by_currency?currency=ETH&kind=option").await;
    let quoted = rows.as_array().unwrap().iter().filter(|row| !row["bid_price"].is_null() && !row["last"].is_null());
    quoted.map(|row| row["instrument_name"].as_str().unwrap().to_owned()).collect()
}
