//! Parts of a log that is no spool: each has a position and an owner of its own, in as many sessions.

use std::time::{Duration, Instant};

use tidegate_core::{
    Kind,
    chunk::{Chunk, Part},
    sink::{Sink, SinkContext, Written},
    spool::SpoolPosition,
};

use super::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn parts_open_at_once_in_a_new_schema_and_each_has_a_position_of_its_own() {
    let bench = Bench::new().await;
    bench.trades(8);
    let mut opening = tokio::task::JoinSet::new();
    for number in 0..8_u64 {
        let (mut sink, context) = (bench.sink(), context(&bench, number));
        let chunk = chunk(&bench, number, number, number + 1);
        opening.spawn(async move {
            assert_eq!(opened(&mut sink, &context).await, []);
            // The part begins where this row does.
            let from = Chunk { from: SpoolPosition::START, to: chunk.from, tables: Vec::new(), ..chunk.clone() };
            if from.to != SpoolPosition::START {
                assert!(matches!(sink.write(&from).await.unwrap(), Written::Committed));
            }
            assert!(matches!(sink.write(&chunk).await.unwrap(), Written::Committed));
            let found = opened(&mut sink, &context).await;
            assert_eq!(found, [(context.owner.part.clone(), chunk.to)], "its own position, and no other");
            sink.close().await.unwrap();
        });
    }
    while let Some(opened) = opening.join_next().await {
        opened.unwrap();
    }
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 8);
    assert_eq!(bench.number("SELECT count(*) FROM tidegate_position").await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_a_part_last_has_it_and_the_other_parts_go_on() {
    let bench = Bench::new().await;
    bench.trades(6);
    let (mut older, mut newer, mut other) = (bench.sink(), bench.sink(), bench.sink());
    opened(&mut older, &context(&bench, 0)).await;
    opened(&mut other, &context(&bench, 1)).await;
    older.write(&chunk(&bench, 0, 0, 1)).await.unwrap();
    // As another loader does while the older one is paused.
    let at = opened(&mut newer, &context(&bench, 0)).await;
    assert_eq!(at[0].1, chunk(&bench, 0, 0, 1).to);
    let error = older.write(&chunk(&bench, 0, 1, 3)).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "its epoch is an old one: {}", error.chain());
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 1, "nothing of it is stored");
    newer.write(&chunk(&bench, 0, 1, 2)).await.unwrap();
    other.write(&chunk(&bench, 1, 0, 1)).await.unwrap();
    other.check().await.unwrap();
    newer.check().await.unwrap();
    // It comes back, and goes on where the other one was.
    let at = opened(&mut older, &context(&bench, 0)).await;
    assert_eq!(at[0].1, chunk(&bench, 0, 1, 2).to, "never put off for good");
    older.write(&chunk(&bench, 0, 2, 3)).await.unwrap();
    assert!(newer.write(&chunk(&bench, 0, 2, 3)).await.is_err());
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_another_log_is_refused_by_name() {
    let bench = Bench::new().await;
    let mut sink = bench.sink();
    sink.open(&context(&bench, 0)).await.unwrap();
    let mut theirs = context(&bench, 0);
    theirs.owner.spool = 99;
    let error = bench.sink().open(&theirs).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(
        error.chain().contains("the position of `t/0`") && error.chain().contains("another log"),
        "{}",
        error.chain()
    );
}

/// Opens as a delivery does: others that open in the same server may hold a lock for long.
async fn opened(sink: &mut dyn Sink, context: &SinkContext) -> Vec<(Part, SpoolPosition)> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match sink.open(context).await {
            Err(error) if matches!(error.kind(), Kind::Transient { .. }) && Instant::now() < deadline => {}
            ended => return ended.unwrap(),
        }
    }
}

fn context(bench: &Bench, number: u64) -> SinkContext {
    let mut context = bench.context();
    context.owner.part = Part(format!("t/{number}").into());
    context
}

fn chunk(bench: &Bench, number: u64, from: u64, to: u64) -> Chunk {
    Chunk { part: Part(format!("t/{number}").into()), ..bench.log.chunk(from, to) }
}
