//! What becomes of a partition's offsets: each row is stored once and in order, and what is lost is said with its number.

use tidegate_core::spool::{Boot, SpoolPosition};

use super::{
    super::window::ROWS,
    world::{Broker, Store, trades, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_were_never_rows_are_nobodys_loss() {
    let (broker, store) = (Broker::new(), Store::default());
    broker.trades(1..=3);
    // The end of a transaction, an aborted one, compacted messages.
    broker.skip(4);
    broker.trades([4]);
    broker.skip(1);
    broker.trades([5, 6]);
    broker.skip(2);
    let run = store.run(&broker, 100);
    store.until(6).await;
    let (outcome, _directory) = run.end().await;
    assert_eq!(store.numbers(), [1, 2, 3, 4, 5, 6]);
    let fates = outcome.balance.unwrap().fates;
    assert_eq!((fates.delivered, fates.missing, fates.refused, fates.control), (6, 0, 0, 0), "{outcome:?}");
    assert_eq!(outcome.failure, None);
    assert_eq!(store.kept().position, Some(at(11)), "behind the last row, in Kafka's offsets");
    assert!(store.kept().rows.iter().all(|(venue, ..)| venue == "deribit"), "the venue is that of the row");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_the_store_is_wherever_a_chunk_was_cut() {
    let (broker, store) = (Broker::new(), Store::default());
    broker.trades(1..=200);
    let mut random = tidegate_core::policy::Random::new(3);
    for life in 0..12 {
        let run = store.run(&broker, 7);
        broker.trades(200 + life * 20 + 1..=200 + (life + 1) * 20);
        let rows = store.kept().rows.len();
        let there = 200 + (life as usize + 1) * 20;
        let more = (random.below(60) as usize).min(there - rows);
        store.until(rows + more).await;
        if life % 2 == 0 { run.kill().await } else { drop(run.end().await) }
    }
    let run = store.run(&broker, 7);
    store.until(440).await;
    run.end().await;
    assert_eq!(store.numbers(), (1..=440).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_has_deleted_beneath_the_position_is_lost_with_its_number_and_the_rest_goes_on() {
    let (broker, store) = (Broker::new(), Store::default());
    broker.trades(1..=5);
    let run = store.run(&broker, 100);
    store.until(5).await;
    run.end().await;
    broker.trades(6..=20);
    broker.delete_before(12);
    let run = store.run(&broker, 100);
    store.until(13).await;
    let (outcome, _directory) = run.end().await;
    assert_eq!(store.numbers(), (1..=5).chain(13..=20).collect::<Vec<_>>());
    assert_eq!(outcome.balance.unwrap().fates.missing, 7, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_partition_is_stored_from_its_oldest_message_on() {
    let (broker, store) = (Broker::new(), Store::default());
    broker.trades(1..=20);
    broker.delete_before(5);
    let run = store.run(&broker, 100);
    store.until(15).await;
    let (outcome, _directory) = run.end().await;
    assert_eq!(outcome.balance.unwrap().fates.missing, 0, "it was never anybody's: {outcome:?}");
    assert_eq!(store.numbers(), (6..=20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_deleted_and_made_again_is_another_history_and_stops_its_delivery() {
    let (broker, store) = (Broker::new(), Store::default());
    broker.trades(1..=10);
    let run = store.run(&broker, 100);
    store.until(10).await;
    run.end().await;
    broker.make_again();
    // Longer than the old one: by offsets alone nobody could tell.
    broker.trades(101..=130);
    let run = store.run(&broker, 100);
    run.until_failed().await;
    let (outcome, directory) = run.end().await;
    let why = outcome.failure.unwrap();
    for part in ["another history", "`t/0`", "memory/t-0.json`", "row of pipeline `load`, sink `memory` and part `t/0`"]
    {
        assert!(why.contains(part), "`{part}` is not in: {why}");
    }
    assert!(why.contains(&directory.path().display().to_string()), "{why}");
    assert_eq!(store.numbers(), (1..=10).collect::<Vec<_>>(), "nothing of it was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_again_while_it_is_read_gives_no_row_of_the_new_one() {
    let (broker, store) = (Broker::new(), Store::default());
    broker.trades(1..=10);
    let run = store.run(&broker, 100);
    store.until(10).await;
    // The client goes on behind offset 9, as if nothing had happened.
    broker.make_again_with(101..=130);
    until("the window says so", || run.trouble().is_some_and(|why| why.contains("deleted and made again"))).await;
    let (outcome, _directory) = run.end().await;
    assert_eq!(broker.reads(), 10 + 1, "it was given to the window");
    assert_eq!(store.numbers(), (1..=10).collect::<Vec<_>>(), "and not to the store: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_has_lost_its_newest_messages_stops_its_delivery() {
    let (broker, store) = (Broker::new(), Store::default());
    broker.trades(1..=10);
    let run = store.run(&broker, 100);
    store.until(10).await;
    run.end().await;
    broker.cut(6);
    let run = store.run(&broker, 100);
    run.until_failed().await;
    let (outcome, _directory) = run.end().await;
    assert!(outcome.failure.as_deref().is_some_and(|why| why.contains("ahead of the log")), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_a_dead_letter_with_its_place_and_what_lies_behind_it_is_stored() {
    let (broker, store) = (Broker::new(), Store::default());
    broker.trades([1]);
    let (value, header) = trades([9]).remove(0);
    let text = String::from_utf8(value).unwrap();
    broker.add(b"not json".to_vec(), &header);
    broker.add(text.replace("\"price\":0.1", "\"price\":\"dear\"").into_bytes(), &header);
    broker.add(b"{}".to_vec(), "no table of ours");
    broker.trades([2]);
    let run = store.run(&broker, 100);
    store.until(2).await;
    let (outcome, directory) = run.end().await;
    assert_eq!(store.numbers(), [1, 2]);
    assert_eq!(outcome.balance.unwrap().fates.refused, 3, "{outcome:?}");
    let file = directory.path().join("memory/t-0").join(tidegate_core::deadletter::DeadLetters::FILE_NAME);
    let letters = tidegate_core::deadletter::list(&file).unwrap().letters;
    let told: Vec<_> = letters.iter().map(|letter| (letter.row["offset"].as_i64().unwrap(), &*letter.error)).collect();
    assert_eq!(told[0].0, 1);
    assert!(told[0].1.contains("no JSON object"), "{told:?}");
    assert_eq!(
        (told[1].0, told[1].1.contains("column `price` of table `trades` has to be a number")),
        (2, true),
        "{told:?}"
    );
    assert_eq!((told[2].0, told[2].1.contains("tg_schema")), (3, true), "{told:?}");
    assert_eq!(letters[0].row["value"], "not json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_store_refuses_is_a_dead_letter_and_its_neighbours_are_stored_once() {
    let (broker, store) = (Broker::new(), Store::default());
    store.kept().refuses.extend([4, 5, 90]);
    broker.trades(1..=100);
    let run = store.run(&broker, 30);
    store.until(97).await;
    let (outcome, _directory) = run.end().await;
    assert_eq!(store.numbers(), (1..=100).filter(|n| ![4, 5, 90].contains(n)).collect::<Vec<_>>());
    assert_eq!(outcome.balance.unwrap().fates.refused, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_columns_than_are_declared_stop_the_delivery_before_the_first_row_with_both() {
    let (broker, store) = (Broker::new(), Store::default());
    broker.trades(1..=3);
    let (value, header) = trades([4]).remove(0);
    broker.add(value, &format!("trades/{:016x}", 0xbad));
    broker.trades([5]);
    let run = store.run(&broker, 100);
    run.until_failed().await;
    let (outcome, _directory) = run.end().await;
    let why = outcome.failure.unwrap();
    let declared = header.split_once('/').unwrap().1;
    let parts =
        ["offset 3 of partition 0 of topic `t`", declared, "0000000000000bad", "Declared: ts_event, ", "price, size"];
    for part in parts {
        assert!(why.contains(part), "`{part}` is not in: {why}");
    }
    assert!(store.numbers().len() <= 3, "nothing from there on: {:?}", store.numbers());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_declared_stops_the_delivery_and_is_named() {
    let (broker, store) = (Broker::new(), Store::default());
    let (value, _) = trades([1]).remove(0);
    broker.add(value, &format!("tickers/{:016x}", 1));
    let run = store.run(&broker, 100);
    run.until_failed().await;
    let (outcome, _directory) = run.end().await;
    let why = outcome.failure.unwrap();
    assert!(why.contains("table `tickers`") && why.contains("`collectors` has trades only: add it"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_write_a_partition_at_once_store_each_row_once_and_in_order() {
    let (broker, store) = (Broker::new(), Store::default());
    broker.trades(1..=500);
    // As after a pause: the older one does not know yet that it is not its any more.
    let older = store.run(&broker, 11);
    store.until(50).await;
    let newer = store.run(&broker, 13);
    broker.trades(501..=1_500);
    store.until(1_500).await;
    older.kill().await;
    broker.trades(1_501..=1_600);
    store.until(1_600).await;
    let (outcome, _directory) = newer.end().await;
    assert_eq!(store.numbers(), (1..=1_600).collect::<Vec<_>>());
    assert_eq!(outcome.failure, None, "whoever has it rightly is never put off for good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_keeps_no_more_than_it_may_and_reads_again_what_it_let_go_of() {
    let (broker, store) = (Broker::new(), Store::default());
    let (mut value, header) = trades([7]).remove(0);
    // A row of a quarter of a megabyte: a window holds about thirty.
    let long = format!("\"id\":\"{}\"", "x".repeat(256 << 10));
    value = String::from_utf8(value).unwrap().replace("\"id\":\"ETH-7\"", &long).into_bytes();
    for _ in 0..100 {
        broker.add(value.clone(), &header);
    }
    store.kept().refuses.insert(7);
    let run = store.run(&broker, 1_000);
    until("all are dead letters", || store.kept().position == Some(at(100))).await;
    let (outcome, _directory) = run.end().await;
    assert_eq!(outcome.balance.unwrap().fates.refused, 100);
    assert!(broker.reads() >= 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_has_is_not_read_again_however_much_it_is() {
    let (broker, store) = (Broker::new(), Store::default());
    let (value, header) = trades([7]).remove(0);
    // More than a window holds lies before the position; and the restart is told of nothing new by it.
    let long = format!("\"id\":\"{}\"", "x".repeat(256 << 10));
    let long = String::from_utf8(value).unwrap().replace("\"id\":\"ETH-7\"", &long).into_bytes();
    for _ in 0..100 {
        broker.add(long.clone(), &header);
    }
    let run = store.run(&broker, 1_000);
    store.until(100).await;
    run.end().await;
    let before = broker.reads();
    let run = store.run(&broker, 1_000);
    broker.trades(101..=105);
    store.until(105).await;
    run.end().await;
    assert_eq!(broker.reads() - before, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_poison_is_read_a_few_times_and_not_once_for_each() {
    let (broker, store) = (Broker::new(), Store::default());
    let (_, header) = trades([1]).remove(0);
    // A window holds a hundred or two.
    let poison = vec![b'x'; 48 << 10];
    for _ in 0..1_000 {
        broker.add(poison.clone(), &header);
    }
    broker.trades(1..=3);
    let run = store.run(&broker, 1_000);
    store.until(3).await;
    let (outcome, _directory) = run.end().await;
    assert_eq!(outcome.balance.unwrap().fates.refused, 1_000);
    assert!(broker.reads() < 20_000, "{} messages were read", broker.reads());
}

/// The position behind Kafka's offset `kafkas - 1`.
fn at(kafkas: u64) -> SpoolPosition {
    SpoolPosition { boot: Boot(7), offset: kafkas * ROWS }
}
