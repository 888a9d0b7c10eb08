//! Calls that are given up at every point where they wait: what `open` says afterwards is the truth.

use std::{future::Future, pin::pin, task::Poll};

use tidegate_core::sink::Sink;

use super::{Bench, offset};

#[tokio::test]
async fn a_write_that_is_dropped_at_any_point_has_committed_all_or_nothing() {
    let bench = Bench::new();
    let (mut at, mut lost) = (0, 0);
    let mut sink = bench.opened().await;
    for polls in (1..=60).cycle().take(180) {
        let to = bench.trades(3);
        let chunk = bench.log.chunk(at, to);
        let ended = dropped_after(polls, sink.write(&chunk)).await;
        // Half the time the process dies, too.
        if polls % 2 == 0 {
            sink = bench.sink();
        }
        let stands = offset(&sink.open(&bench.context()).await.unwrap()).unwrap_or(0);
        assert!(stands == at || stands == to, "at {stands}, neither before nor behind the chunk {at}..{to}");
        assert!(ended.is_none() || stands == to, "a commit that was answered is not there");
        lost += u32::from(ended.is_none() && stands == at);
        let rows = bench.number("SELECT count(*) FROM trades").await.cast_unsigned();
        assert_eq!(rows, stands, "rows and position are one");
        at = stands;
    }
    assert!(lost > 0, "no write was dropped in time: the test shows nothing");
    let distinct = bench.number("SELECT count(DISTINCT seq) FROM trades").await.cast_unsigned();
    assert_eq!(distinct, at, "a row is stored twice");
}

#[tokio::test]
async fn an_opening_that_is_dropped_at_any_point_shuts_nobody_out() {
    let bench = Bench::new();
    let mut sink = bench.opened().await;
    let mut at = 0;
    for polls in 1..=60 {
        dropped_after(polls, sink.open(&bench.context())).await;
        let stands = offset(&sink.open(&bench.context()).await.unwrap()).unwrap_or(0);
        assert_eq!(stands, at);
        let to = bench.trades(1);
        super::assert_committed(bench.write(&mut sink, at, to).await);
        at = to;
    }
}

/// Polls a future so many times, then drops it.
async fn dropped_after<T>(polls: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => {
                if left == 0 {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    })
    .await
}
