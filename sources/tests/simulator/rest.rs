//! Both REST hosts.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_sources::deribit::simulator::SimulatorConfig;

use crate::client::{Client, PERPETUAL, busy_options, error, get, http, result, start, still_venue};

#[tokio::test]
async fn instruments_are_listed_with_their_terms_and_expired_ones_apart() {
    let venue = still_venue().await;
    let base = venue.http_url();
    let options = result(&base, "public/get_instruments?currency=ETH&kind=option").await;
    assert_eq!(options.as_array().unwrap().len(), 60);
    for row in options.as_array().unwrap() {
        let name = row["instrument_name"].as_str().unwrap();
        let parts: Vec<&str> = name.split('-').collect();
        assert_eq!(row["strike"].as_f64().unwrap(), parts[2].parse::<f64>().unwrap());
        assert_eq!(row["option_type"], if parts[3] == "C" { "call" } else { "put" });
        assert_eq!(row["expiration_timestamp"].as_i64().unwrap() % 86_400_000, 8 * 3_600_000, "08:00 UTC");
        assert_eq!(result(&base, &format!("public/get_instrument?instrument_name={name}")).await, *row);
    }
    let name = options[3]["instrument_name"].as_str().unwrap();
    assert!(venue.expire(name));

    let expired = result(&base, "public/get_instruments?currency=any&expired=true").await;
    assert_eq!((expired.as_array().unwrap().len(), expired[0]["instrument_name"].as_str()), (1, Some(name)));
    assert_eq!(result(&base, "public/get_instruments?currency=ETH").await.as_array().unwrap().len(), 60);
    assert_eq!(result(&base, "public/get_instruments?currency=BTC").await.as_array().unwrap().len(), 0);
    assert_eq!(error(&base, &format!("public/ticker?instrument_name={name}")).await["code"], -32602);
}

#[tokio::test]
async fn the_summary_ranks_and_has_null_where_nothing_is() {
    let venue = still_venue().await;
    let rows = result(&venue.http_url(), "public/get_book_summary_by_currency?currency=ETH&kind=option").await;
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 60);
    let interests: Vec<f64> = rows.iter().map(|row| row["open_interest"].as_f64().unwrap()).collect();
    assert!(interests.iter().any(|interest| *interest > 1000.0) && interests.iter().any(|interest| *interest < 10.0));
    assert!(rows.iter().any(|row| row["bid_price"].is_null()) && rows.iter().any(|row| row["bid_price"].is_f64()));
}

#[tokio::test]
async fn a_range_of_sequence_numbers_is_given_page_by_page_in_order() {
    let venue = still_venue().await;
    let option = busy_options(&venue).await.remove(0);
    (0..25).for_each(|_| assert!(venue.make_trade(&option)));
    let last = venue.oracle().mark(&option).seq;
    let base = venue.http_url();
    let ask = |from: u64| {
        format!(
            "public/get_last_trades_by_instrument?instrument_name={option}&start_seq={from}&end_seq={last}&count=10&sorting=asc"
        )
    };

    let mut collected = Vec::new();
    let mut pages = 0;
    loop {
        let page = result(&base, &ask(collected.last().map_or(last - 22, |seq| seq + 1))).await;
        collected.extend(seqs(&page));
        pages += 1;
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(collected, (last - 22..=last).collect::<Vec<_>>());
    assert_eq!(pages, 3);

    let latest =
        result(&base, &format!("public/get_last_trades_by_instrument?instrument_name={option}&count=3&sorting=desc"))
            .await;
    assert_eq!((seqs(&latest), &latest["has_more"]), (vec![last, last - 1, last - 2], &Value::Bool(true)));
    let beyond = result(&base, &ask(last + 1)).await;
    assert_eq!((seqs(&beyond), &beyond["has_more"]), (vec![], &Value::Bool(false)));
}

#[tokio::test]
async fn without_a_sorting_the_newest_rows_come_unsorted() {
    let venue = still_venue().await;
    (0..30).for_each(|_| assert!(venue.make_trade(PERPETUAL)));
    let last = venue.oracle().mark(PERPETUAL).seq;
    let page = result(
        &venue.http_url(),
        &format!("public/get_last_trades_by_instrument?instrument_name={PERPETUAL}&count=20"),
    )
    .await;
    let mut got = seqs(&page);
    assert!(!got.is_sorted() && !got.iter().rev().is_sorted(), "{got:?}");
    got.sort_unstable();
    assert_eq!(got, (last - 19..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn trades_of_a_currency_are_found_by_time_and_by_id() {
    let venue = still_venue().await;
    let option = busy_options(&venue).await.remove(0);
    let names = [PERPETUAL, &option, PERPETUAL, &option];
    names.iter().for_each(|name| assert!(venue.make_trade(name)));
    let mut made: Vec<_> = venue.oracle().trades.into_values().flatten().collect();
    made.sort_by_key(|trade| trade.id);
    let made = &made[made.len() - 4..];
    let base = venue.http_url();

    let (first, last) = (made[0].timestamp, made[3].timestamp);
    let by_time = format!(
        "public/get_last_trades_by_currency_and_time?currency=ETH&start_timestamp={first}&end_timestamp={last}&count=1000&sorting=asc"
    );
    let by_id = format!(
        "public/get_last_trades_by_currency?currency=ETH&start_id={}&end_id={}&count=1000&sorting=asc",
        made[0].trade_id(),
        made[3].trade_id()
    );
    let options = format!("{by_id}&kind=option");

    let ids = |page: Value| {
        page["trades"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["trade_id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let expected: Vec<String> = made.iter().map(|trade| trade.trade_id()).collect();
    assert_eq!(ids(result(&base, &by_time).await), expected);
    assert_eq!(ids(result(&base, &by_id).await), expected);
    assert_eq!(ids(result(&base, &options).await), [expected[1].clone(), expected[3].clone()]);
    assert_eq!(ids(result(&base, "public/get_last_trades_by_currency?currency=BTC").await), Vec::<String>::new());
}

#[tokio::test]
async fn the_main_host_forgets_without_a_word_and_the_history_host_does_not() {
    let config = SimulatorConfig { paused: true, history: Duration::ZERO, ..SimulatorConfig::default() };
    let venue = start(config).await;
    (0..20).for_each(|_| assert!(venue.make_trade(PERPETUAL)));
    let oracle = venue.oracle();
    let (last, made) = (oracle.mark(PERPETUAL).seq, oracle.trades[PERPETUAL].len());
    let newest = oracle.trades[PERPETUAL][made - 1].timestamp;
    crate::client::until("a millisecond passes", || now_ms() > newest).await;
    let query = format!(
        "public/get_last_trades_by_instrument?instrument_name={PERPETUAL}&start_seq={}&count=10000&sorting=asc",
        last - 19
    );

    let forgotten = result(&venue.http_url(), &query.replace("10000", "1000")).await;
    assert_eq!((seqs(&forgotten), &forgotten["has_more"]), (vec![], &Value::Bool(false)));

    let remembered = result(&venue.history_url(), &query).await;
    let mut got = seqs(&remembered);
    assert!(!got.is_sorted(), "rows of a page are in no order");
    got.sort_unstable();
    assert!(got.ends_with(&(last - 19..=last).collect::<Vec<_>>()), "{got:?}");
    assert!(remembered["trades"].as_array().unwrap().iter().all(|row| row.get("starbase_match_id").is_none()));
}

#[tokio::test]
async fn the_history_host_widens_a_range_to_its_milliseconds_and_says_more_on_a_full_page() {
    let venue = still_venue().await;
    (0..200).for_each(|_| assert!(venue.make_trade(PERPETUAL)));
    let trades = venue.oracle().trades[PERPETUAL].clone();
    let neighbours =
        trades.windows(2).find(|pair| pair[0].timestamp == pair[1].timestamp).expect("200 trades share milliseconds");
    let (seq, ms) = (neighbours[0].seq, neighbours[0].timestamp);
    let query =
        format!("public/get_last_trades_by_instrument?instrument_name={PERPETUAL}&start_seq={seq}&end_seq={seq}");

    assert_eq!(seqs(&result(&venue.http_url(), &query).await), [seq]);

    let same_ms = trades.iter().filter(|trade| trade.timestamp == ms).count();
    let widened = result(&venue.history_url(), &format!("{query}&count={same_ms}")).await;
    assert_eq!(seqs(&widened).len(), same_ms);
    assert_eq!(widened["has_more"], true, "the page is full, though nothing follows");
}

#[tokio::test]
async fn wrong_requests_are_refused_with_400_and_the_code_of_the_venue() {
    let venue = still_venue().await;
    let base = venue.http_url();
    for (query, code) in [
        ("public/get_last_trades_by_instrument?instrument_name=ETH-PERPETUAL&count=1001", -32602),
        ("public/get_last_trades_by_instrument?instrument_name=ETH-PERPETUAL&count=x", -32602),
        ("public/get_last_trades_by_instrument?instrument_name=ETH-PERPETUAL&sorting=up", -32602),
        ("public/get_last_trades_by_currency_and_time?currency=ETH", -32602),
        ("public/get_last_trades_by_instrument?instrument_name=ETH-1JAN20-1-C", -32602),
        ("public/get_last_trades_by_instrument", -32602),
        ("public/get_instruments?currency=ETH&kind=stone", -32602),
        ("public/get_instrument?instrument_name=ETH-1JAN20-1-C", 13020),
        ("public/subscribe", 10030),
        ("public/set_heartbeat", 10030),
        ("public/nothing", -32601),
    ] {
        assert_eq!(error(&base, query).await["code"], code, "{query}");
    }
    assert_eq!(get(&format!("http://{}/elsewhere", venue.addr())).await.0, 404);
}

#[tokio::test]
async fn the_other_methods_answer_by_rest_too_and_a_request_may_be_posted() {
    let venue = still_venue().await;
    let base = venue.http_url();
    assert!(result(&base, "public/get_time").await.as_i64().unwrap() / 10_000 >= now_ms() / 10_000 - 1);
    assert_eq!(result(&base, "public/test").await["version"], "1.2.26");
    assert!(result(&base, "public/get_index_price?index_name=eth_usd").await["index_price"].is_f64());
    let book = result(&base, &format!("public/get_order_book?instrument_name={PERPETUAL}&depth=2")).await;
    assert!(book["change_id"].is_u64() && book["bids"].as_array().unwrap().len() <= 2);
    assert_eq!(book["bids"][0][0], book["best_bid_price"]);
    let ticker = result(&base, &format!("public/ticker?instrument_name={PERPETUAL}")).await;
    assert_eq!(ticker["best_ask_price"], book["best_ask_price"]);

    let body = r#"{"jsonrpc":"2.0","id":9,"method":"public/get_index_price","params":{"index_name":"eth_usd"}}"#;
    let reply = http().post(&base).body(body).send().await.unwrap().text().await.unwrap();
    assert!(reply.contains("\"id\":9,\"result\":{\"index_price\""), "{reply}");
}

#[tokio::test]
async fn a_client_that_asks_too_often_gets_429_with_a_pause() {
    let venue = still_venue().await;
    let client = http();
    let url = format!("{}/public/test", venue.http_url());
    let mut allowed = 0;
    let refused = loop {
        let response = client.get(&url).send().await.unwrap();
        if response.status() != 200 {
            break response;
        }
        allowed += 1;
    };
    assert!(allowed >= 100, "a burst of 100 is documented: {allowed}");
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    assert!(refused.text().await.unwrap().contains("\"code\":10028"));
}

#[tokio::test]
async fn some_instruments_have_a_past_some_an_old_one_and_some_none() {
    let venue =
        start(SimulatorConfig { paused: true, instruments: 150, credits: 10.0, ..SimulatorConfig::default() }).await;
    let mut client = Client::connect(&venue).await;
    let (mut recent, mut old, mut none) = (0, 0, 0);
    for (name, trades) in venue.oracle().trades {
        let params = json!({ "instrument_name": name, "count": 1 });
        let page = client.request("public/get_last_trades_by_instrument", params).await;
        match (seqs(&page["result"]).is_empty(), trades.is_empty()) {
            (true, true) => none += 1,
            (true, false) => old += 1,
            (false, _) => recent += 1,
        }
    }
    assert!(recent > 50 && old > 5 && none > 5, "{recent} {old} {none}");
    assert_eq!(venue.oracle().trades_made, 0, "the past was not made by this venue");
}

fn seqs(page: &Value) -> Vec<u64> {
    page["trades"].as_array().unwrap().iter().map(|row| row["trade_seq"].as_u64().unwrap()).collect()
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
