//! What a store holds, read by SQL of its own.

use std::{collections::HashMap, path::Path};

use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions, sqlite::SqliteRow};
use tidegate_sources::deribit::simulator::{
    BookKey,
    comparison::{Stored, StoredTrade},
};

use super::PATIENCE;

/// Reads what a database holds of trades, tickers, quotes and books; nothing where there is none yet, or no such table.
pub async fn stored(database: &Path) -> Stored {
    let mut stored = Stored::default();
    let options = SqliteConnectOptions::new().filename(database).read_only(true).busy_timeout(PATIENCE);
    let Ok(mut db) = SqliteConnection::connect_with(&options).await else { return stored };
    let trades =
        "SELECT symbol, id, price, size, side, ts_event / 1000000 AS ms, origin = 'backfill' AS late FROM trades";
    for row in rows(&mut db, trades).await {
        let trade = StoredTrade {
            id: row.get("id"),
            price: row.get("price"),
            size: row.get("size"),
            side: row.get("side"),
            ts_event_ms: row.get("ms"),
            backfilled: row.get("late"),
        };
        add(&mut stored.trades, &row, trade);
    }
    for row in rows(&mut db, "SELECT symbol, volume_24h FROM tickers").await {
        match row.get("volume_24h") {
            Some(volume) => add(&mut stored.tickers, &row, volume),
            None => stored.unknown_tickers += 1,
        }
    }
    for row in rows(&mut db, "SELECT symbol, ts_event / 1000000 AS ms FROM quotes").await {
        add(&mut stored.quotes, &row, row.get("ms"));
    }
    for row in rows(&mut db, "SELECT symbol, seq, snapshot FROM book_changes").await {
        let change_id = row.get::<i64, _>("seq") as u64;
        add(&mut stored.books, &row, BookKey { change_id, snapshot: row.get("snapshot") });
    }
    stored
}

async fn rows(db: &mut SqliteConnection, query: &'static str) -> Vec<SqliteRow> {
    sqlx::query(query).fetch_all(db).await.unwrap_or_default()
}

fn add<T>(lists: &mut HashMap<String, Vec<T>>, row: &SqliteRow, value: T) {
    lists.entry(row.get("symbol")).or_default().push(value);
}

/// Returns the bits of numbers, which can be looked up.
pub fn bits(values: &HashMap<String, Vec<f64>>) -> HashMap<String, Vec<u64>> {
    let bits =
        |(symbol, values): (&String, &Vec<f64>)| (symbol.clone(), values.iter().map(|value| value.to_bits()).collect());
    values.iter().map(bits).collect()
}
