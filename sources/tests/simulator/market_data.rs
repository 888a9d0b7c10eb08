//! What the channels carry.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tidegate_sources::deribit::simulator::SimulatorConfig;

use crate::client::{Client, PERPETUAL, busy_options, start, still_venue};

#[tokio::test]
async fn ticker_quote_and_book_begin_at_once_and_trades_with_the_next_one() {
    let venue = still_venue().await;
    let channels = ["ticker", "quote", "book", "trades"].map(|name| match name {
        "quote" => format!("quote.{PERPETUAL}"),
        _ => format!("{name}.{PERPETUAL}.100ms"),
    });
    let mut client = Client::subscribed(&venue, &channels.each_ref().map(String::as_str)).await;

    let first = client.everything_so_far().await;
    let began: BTreeSet<&str> = first.iter().map(|frame| frame["params"]["channel"].as_str().unwrap()).collect();
    assert_eq!(began, channels[..3].iter().map(String::as_str).collect());

    assert!(venue.make_trade(PERPETUAL));
    let frames = client.everything_so_far().await;
    assert_eq!(frames.len(), 1, "a trade moves nothing else by itself: {frames:?}");
    let trade = &frames[0]["params"]["data"][0];
    let made = venue.oracle().trades[PERPETUAL].last().unwrap().clone();
    assert_eq!(trade["trade_seq"], made.seq);
    assert_eq!(trade["trade_id"], json!(made.trade_id()));
    assert_eq!(trade["price"], made.price);
    assert_eq!(trade["amount"], made.amount);
    assert_eq!(trade["timestamp"], made.timestamp);
    assert_eq!(trade["direction"], json!(made.direction.name()));
    assert!(trade["starbase_match_id"].as_u64().unwrap() > 1 << 53);
    assert_eq!(trade["starbase_timestamp"].as_i64().unwrap() / 1_000_000, made.timestamp);
}

#[tokio::test]
async fn a_book_replayed_from_its_linked_changes_has_the_best_prices_of_the_last_ticker() {
    let venue = still_venue().await;
    let option = busy_options(&venue).await.remove(0);
    for instrument in [PERPETUAL, &option] {
        let (book, ticker) = (format!("book.{instrument}.100ms"), format!("ticker.{instrument}.100ms"));
        let mut client = Client::subscribed(&venue, &[&book, &ticker]).await;
        (0..300).for_each(|_| assert!(venue.update_book(instrument)));
        let frames = client.everything_so_far().await;
        let of = |channel: &str| -> Vec<&Value> {
            frames
                .iter()
                .filter(|frame| frame["params"]["channel"] == channel)
                .map(|frame| &frame["params"]["data"])
                .collect()
        };

        let (bids, asks) = replayed(&of(&book));

        let tickers = of(&ticker);
        assert_eq!(tickers.len(), 301);
        let last = tickers.last().unwrap();
        assert_eq!(bids.last_key_value().unwrap().0.parse::<f64>().unwrap(), last["best_bid_price"].as_f64().unwrap());
        assert_eq!(asks.first_key_value().unwrap().0.parse::<f64>().unwrap(), last["best_ask_price"].as_f64().unwrap());
    }
}

/// Applies messages to an empty book and checks the links. Prices are padded text, which sorts like numbers.
fn replayed(messages: &[&Value]) -> (BTreeMap<String, f64>, BTreeMap<String, f64>) {
    let (mut bids, mut asks) = (BTreeMap::new(), BTreeMap::new());
    assert_eq!(messages[0]["type"], "snapshot");
    assert_eq!(messages[0].get("prev_change_id"), None);
    let mut last = messages[0]["change_id"].clone();
    for message in messages {
        if message["type"] == "change" {
            assert_eq!(message["prev_change_id"], last);
            assert!(message["change_id"].as_u64() > last.as_u64());
            last = message["change_id"].clone();
        }
        for (side, levels) in [(&mut bids, &message["bids"]), (&mut asks, &message["asks"])] {
            for level in levels.as_array().unwrap() {
                let price = format!("{:012.4}", level[1].as_f64().unwrap());
                if level[0] == "delete" {
                    assert_eq!(level[2], 0.0);
                    assert!(side.remove(&price).is_some(), "{level}");
                } else {
                    side.insert(price, level[2].as_f64().unwrap());
                }
            }
        }
    }
    (bids, asks)
}

#[tokio::test]
async fn trades_of_a_kind_come_on_one_channel_with_a_dense_sequence_for_each_instrument() {
    let venue = start(SimulatorConfig { paused: true, rate: 5_000.0, ..SimulatorConfig::default() }).await;
    let channel = "trades.option.ETH.100ms";
    let mut client = Client::subscribed(&venue, &[channel]).await;
    let mut last: BTreeMap<String, u64> =
        venue.read(|oracle| oracle.trades.keys().map(|name| (name.clone(), oracle.mark(name).seq)).collect());
    venue.resume();

    let mut seen = 0;
    while seen < 300 {
        for trade in client.data(channel).await.as_array().unwrap() {
            let name = trade["instrument_name"].as_str().unwrap();
            assert_ne!(name, PERPETUAL);
            let last = last.get_mut(name).unwrap();
            *last += 1;
            assert_eq!(trade["trade_seq"], *last, "{name}");
            seen += 1;
        }
    }
}

#[tokio::test]
async fn numbers_are_written_with_exponents_where_that_is_shorter() {
    let venue = still_venue().await;
    let mut client = Client::subscribed(&venue, &[&format!("book.{PERPETUAL}.100ms")]).await;
    client.everything_so_far().await;
    (0..200).for_each(|_| assert!(venue.update_book(PERPETUAL)));
    let mut exponents = 0;
    for _ in 0..200 {
        exponents += usize::from(client.text().await.contains(".0e3"));
    }
    assert!(exponents > 0, "round thousands are frequent amounts");
}

#[tokio::test]
async fn an_absent_side_and_a_missing_last_price_come_in_the_forms_that_the_venue_has() {
    let venue = start(SimulatorConfig { paused: true, instruments: 300, ..SimulatorConfig::default() }).await;
    let names: Vec<String> = venue.oracle().instruments.iter().map(|one| one.instrument.name.clone()).collect();
    let channels: Vec<String> = names.iter().map(|name| format!("ticker.{name}.100ms")).collect();
    let mut client = Client::subscribed(&venue, &channels.iter().map(String::as_str).collect::<Vec<_>>()).await;

    let tickers = client.everything_so_far().await;

    assert_eq!(tickers.len(), names.len());
    let has = |test: &dyn Fn(&Value) -> bool| tickers.iter().any(|frame| test(&frame["params"]["data"]));
    assert!(has(&|ticker| ticker["best_bid_price"].is_null() && ticker["best_bid_amount"] == 0.0));
    assert!(has(&|ticker| ticker["best_bid_price"] == 0.0 && ticker["best_bid_amount"] == 0.0));
    assert!(has(&|ticker| ticker["last_price"] == "undefined"));
    assert!(has(&|ticker| ticker["last_price"].is_null()));
    assert!(has(&|ticker| ticker["open_interest"].is_i64()));
    assert!(has(&|ticker| ticker["greeks"]["delta"].as_f64().is_some_and(|delta| delta < -0.3)));
    assert!(has(&|ticker| ticker["mark_iv"].as_f64().is_some_and(|iv| iv > 10.0)));
    let underlyings: BTreeSet<&str> =
        tickers.iter().filter_map(|frame| frame["params"]["data"]["underlying_index"].as_str()).collect();
    assert!(
        underlyings.iter().any(|name| name.starts_with("SYN.ETH-"))
            && underlyings.iter().any(|name| name.starts_with("ETH-"))
    );
}

#[tokio::test]
async fn the_state_of_an_instrument_is_told_when_it_is_listed_and_when_it_expires() {
    let venue = still_venue().await;
    let mut client = Client::subscribed(&venue, &["instrument.state.option.ETH", "platform_state"]).await;
    let name = "ETH-25DEC99-9000-C";
    assert_eq!(client.data("platform_state").await["locked"], false);

    assert!(venue.list(name));
    assert!(!venue.list(name), "it is listed already");
    let state = client.data("instrument.state.option.ETH").await;
    assert_eq!((state["state"].as_str(), state["instrument_name"].as_str()), (Some("open"), Some(name)));
    assert_eq!(client.subscribe(&[&format!("ticker.{name}.100ms")]).await.len(), 1);

    assert!(venue.expire(name));
    assert_eq!(client.data("instrument.state.option.ETH").await["state"], "settlement");
    assert_eq!(client.data("instrument.state.option.ETH").await["state"], "delivered");
    assert!(!venue.make_trade(name), "it no longer trades");
    assert!(venue.oracle().listed(name).unwrap().expired_ms.is_some());
}

#[tokio::test]
async fn the_index_comes_at_once_and_again_while_the_venue_runs() {
    let venue = start(SimulatorConfig::default()).await;
    let mut client = Client::subscribed(&venue, &["deribit_price_index.eth_usd"]).await;
    for _ in 0..3 {
        let index = client.data("deribit_price_index.eth_usd").await;
        assert_eq!(index["index_name"], "eth_usd");
        assert!((200.0..20_000.0).contains(&index["price"].as_f64().unwrap()));
    }
}

#[tokio::test]
async fn an_instrument_that_is_listed_later_comes_on_the_channel_of_its_kind_and_is_owed() {
    let venue = still_venue().await;
    let mut client = Client::subscribed(&venue, &["trades.option.ETH.100ms"]).await;
    let name = "ETH-25DEC99-9000-C";
    assert!(venue.list(name));
    assert!(venue.make_trade(name));

    let trades = client.data("trades.option.ETH.100ms").await;

    assert_eq!((trades[0]["instrument_name"].as_str(), trades[0]["trade_seq"].as_u64()), (Some(name), Some(1)));
    assert_eq!(venue.oracle().owed()[name].len(), 1);
}

#[tokio::test]
async fn an_option_that_reaches_its_expiry_is_taken_off_and_another_is_listed() {
    let venue = still_venue().await;
    let listed = venue.oracle().instruments.len();
    let due = "ETH-1JAN20-1000-C";
    assert!(venue.list(due));

    venue.resume();

    crate::client::until("it expires by itself", || {
        venue.read(|oracle| oracle.listed(due).unwrap().expired_ms.is_some() && oracle.instruments.len() == listed + 2)
    })
    .await;
}
