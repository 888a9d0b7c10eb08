//! Calls that are given up at every moment: what `open` says afterwards is the truth.

use std::time::Duration;

use super::{Bench, assert_committed, up_to};

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_given_up_at_any_moment_has_committed_all_or_nothing() {
    let bench = Bench::new();
    let mut sink = bench.opened().await;
    let (mut at, mut lost, mut landed) = (0, 0, 0);
    for round in 0..16_u64 {
        let to = bench.trades(500);
        let chunk = bench.log.chunk(at, to);
        let ended = tokio::time::timeout(Duration::from_millis(2 * round), sink.write(&chunk)).await;
        // Half the time the process dies, too: what it left on its thread meets a new one.
        if round % 2 == 0 {
            sink = bench.sink();
        }
        let stands = bench.reopened(&mut sink).await;
        assert!(stands == at || stands == to, "at {stands}, neither before nor behind the chunk {at}..{to}");
        if let Ok(written) = ended {
            assert_committed(written);
            assert_eq!(stands, to, "a commit that was answered is not there");
        } else if stands == at {
            lost += 1;
        } else {
            landed += 1;
        }
        if stands == at {
            assert_committed(sink.write(&chunk).await);
        }
        at = to;
    }
    println!("{lost} given up and not stored, {landed} given up and stored");
    assert!(lost > 0, "no write was given up in time: the test shows nothing");
    assert_eq!(bench.numbers().await, up_to(at));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_is_given_up_at_any_moment_shuts_nobody_out() {
    let bench = Bench::new();
    let mut sink = bench.opened().await;
    let mut at = 0;
    for round in 0..10_u64 {
        drop(tokio::time::timeout(Duration::from_millis(25 * round), sink.open(&bench.context())).await);
        assert_eq!(bench.reopened(&mut sink).await, at);
        let to = bench.trades(1);
        assert_committed(bench.write(&mut sink, at, to).await);
        at = to;
    }
    assert_eq!(bench.numbers().await, up_to(at));
}
