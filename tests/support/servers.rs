//! What real servers hold, read by clients that the sinks have no part in.

use std::{collections::HashMap, time::Duration};

use serde_json::Value;
use tidegate::{http::HttpClient, protocol::Request, testkit::Server};
use tidegate_sources::deribit::simulator::comparison::{Stored, StoredTrade};
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};

use super::PATIENCE;

/// Starts a server of one's own.
pub async fn server(name: &'static str) -> Server {
    tokio::task::spawn_blocking(move || Server::start(name)).await.unwrap()
}

/// Does something to a server, which blocks.
pub async fn with_server(mut server: Server, act: impl FnOnce(&mut Server) + Send + 'static) -> Server {
    let done = tokio::task::spawn_blocking(move || {
        act(&mut server);
        server
    });
    done.await.unwrap()
}

/// Connects to a Postgres that may still be starting.
pub async fn postgres(url: &str) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Reads what a schema of Postgres holds of trades and tickers.
pub async fn stored_in_postgres(url: &str, schema: &str) -> Stored {
    let client = postgres(url).await;
    let mut stored = Stored::default();
    let trades = format!(
        "SELECT symbol, id, price, size, side, (extract(epoch FROM ts_event) * 1000)::bigint, origin = 'backfill'
         FROM {schema}.trades"
    );
    for row in client.query(&trades, &[]).await.unwrap() {
        stored.trades.entry(row.get(0)).or_default().push(StoredTrade {
            id: row.get(1),
            price: row.get(2),
            size: row.get(3),
            side: row.get(4),
            ts_event_ms: row.get(5),
            backfilled: row.get(6),
        });
    }
    for row in client.query(&format!("SELECT symbol, volume_24h FROM {schema}.tickers"), &[]).await.unwrap() {
        match row.get(1) {
            Some(volume) => stored.tickers.entry(row.get(0)).or_default().push(volume),
            None => stored.unknown_tickers += 1,
        }
    }
    stored
}

/// Reads what QuestDB holds of trades and tickers, in tables whose names begin so.
pub async fn stored_in_questdb(url: &str, begin: &str) -> Stored {
    let mut stored = Stored::default();
    let trades = format!(
        "SELECT symbol, id, price, size, side, cast(ts_event AS LONG) / 1000000, origin = 'backfill' FROM {begin}trades"
    );
    for row in questdb(url, &trades).await {
        let trade = StoredTrade {
            id: row[1].as_str().unwrap().to_owned(),
            price: row[2].as_f64().unwrap(),
            size: row[3].as_f64().unwrap(),
            side: row[4].as_str().unwrap().to_owned(),
            ts_event_ms: row[5].as_i64().unwrap(),
            backfilled: row[6].as_bool().unwrap(),
        };
        add(&mut stored.trades, &row[0], trade);
    }
    for row in questdb(url, &format!("SELECT symbol, volume_24h FROM {begin}tickers")).await {
        match row[1].as_f64() {
            Some(volume) => add(&mut stored.tickers, &row[0], volume),
            None => stored.unknown_tickers += 1,
        }
    }
    stored
}

fn add<T>(lists: &mut HashMap<String, Vec<T>>, symbol: &Value, value: T) {
    lists.entry(symbol.as_str().unwrap().to_owned()).or_default().push(value);
}

/// Runs a query of QuestDB, and returns its rows.
pub async fn questdb(url: &str, query: &str) -> Vec<Vec<Value>> {
    let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let request = Request::get(format!("{url}/exec?query={escaped}"));
    let answer = HttpClient::new().call(&request, PATIENCE).await.unwrap();
    let mut body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer.status, 200, "{query}: {body}");
    serde_json::from_value(body["dataset"].take()).unwrap_or_default()
}
