//! A broker that is killed, frozen, cut off.

use std::time::Duration;

use tidegate_core::testkit::Server;

use super::{Bench, assert_committed, assert_transient, up_to};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_in_a_transaction_and_comes_back_loses_nothing_and_doubles_nothing() {
    let mut server = Server::start("kafka");
    let bench = Bench::at(server.url());
    let mut sink = bench.opened().await;
    let mut at = 0;
    for round in 0..4_u64 {
        let to = bench.trades(20_000);
        let chunk = bench.log.chunk(at, to);
        // Somewhere between the first message and the commit's answer.
        let kill = async {
            tokio::time::sleep(Duration::from_millis(20 + 90 * round)).await;
            tokio::task::block_in_place(|| server.kill());
        };
        let (written, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(3), sink.write(&chunk)), kill);
        tokio::task::block_in_place(|| server.restart());
        let stands = bench.reopened(&mut sink).await;
        assert!(stands == at || stands == to, "at {stands}, neither before nor behind the chunk {at}..{to}");
        if let Ok(Ok(written)) = written {
            assert_committed(Ok(written));
            assert_eq!(stands, to, "a commit that was answered is not there");
        }
        if stands == at {
            assert_committed(sink.write(&chunk).await);
        }
        at = to;
    }
    assert_eq!(bench.numbers().await, up_to(at));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_is_given_up_and_goes_on_where_it_stood() {
    let mut server = Server::start("kafka");
    let bench = Bench::at(server.url());
    let mut sink = bench.opened().await;
    bench.trades(30);
    assert_committed(bench.write(&mut sink, 0, 10).await);
    tokio::task::block_in_place(|| server.freeze());
    assert!(tokio::time::timeout(Duration::from_secs(7), sink.check()).await.is_ok_and(|checked| checked.is_err()));
    // The probe has ended the session: what is written then is not under way at all. So a new one, and a write under way.
    tokio::task::block_in_place(|| server.thaw());
    assert_eq!(bench.reopened(&mut sink).await, 10);
    tokio::task::block_in_place(|| server.freeze());
    let chunk = bench.log.chunk(10, 20);
    let written = tokio::time::timeout(Duration::from_secs(2), sink.write(&chunk)).await;
    assert!(written.is_err(), "nobody answers: {written:?}");
    tokio::task::block_in_place(|| server.thaw());
    let stands = bench.reopened(&mut sink).await;
    assert!(stands == 10 || stands == 20, "at {stands}");
    assert_committed(bench.write(&mut sink, stands, 30).await);
    assert_eq!(bench.numbers().await, up_to(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_the_broker_ended_for_its_age_is_no_other_program() {
    let mut bench = Bench::new();
    bench.config.transaction_timeout = tidegate_core::config::Duration::from_millis(1_500);
    // The time runs from the first partition on; the linger holds what follows back.
    bench.config.linger = tidegate_core::config::Duration::from_millis(900);
    let mut sink = bench.opened().await;
    let last = bench.trades(10);
    let written = bench.write(&mut sink, 0, last).await;
    // Whether it was in time or not: the sink goes on, and nothing is there twice.
    if written.is_err() {
        assert_transient(written);
    }
    let stands = bench.reopened(&mut sink).await;
    if stands == 0 {
        bench.config.linger = tidegate_core::config::Duration::from_millis(0);
        sink = bench.sink();
        bench.reopened(&mut sink).await;
        assert_committed(bench.write(&mut sink, 0, last).await);
    }
    assert_eq!(bench.numbers().await, up_to(10));
}
