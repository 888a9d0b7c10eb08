//! Behind a PgBouncer in transaction mode: each transaction may have another connection to the server.

use tidegate_core::{
    config::OnConflict,
    row::{
        Table,
        kinds::{Quote, Trade},
    },
    sink::Sink,
};

use super::{Bench, assert_committed, offset, shared};

#[tokio::test(flavor = "multi_thread")]
async fn several_sinks_share_a_pgbouncer_in_transaction_mode_and_leave_nothing_behind_in_its_connections() {
    let url = shared("pgbouncer").await;
    let tables = || vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()];
    let mut benches: Vec<Bench> = (0..4).map(|_| Bench::at(url, tables())).collect();
    benches[0].key("trades", OnConflict::Replace, &["id"]);
    benches[1].key("trades", OnConflict::Ignore, &["id"]);
    let mut sinks = Vec::new();
    for bench in &benches {
        sinks.push(bench.opened().await);
    }
    let mut at = 0;
    for _ in 0..20 {
        let mut writes = Vec::new();
        for (bench, sink) in benches.iter().zip(&mut sinks) {
            let to =
                (0..50).map(|n| bench.trade(&Trade { id: Some(&n.to_string()), ..Trade::default() })).max().unwrap();
            writes.push((bench.log.chunk(at, to), sink, to));
        }
        let to = writes[0].2;
        let written = futures_util::future::join_all(writes.iter_mut().map(|(chunk, sink, _)| sink.write(chunk))).await;
        written.into_iter().for_each(assert_committed);
        at = to;
    }
    for ((bench, sink), rows) in benches.iter().zip(&mut sinks).zip([50, 50, 1_000, 1_000]) {
        sink.check().await.unwrap();
        assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), Some(at));
        let count = format!("SELECT count(*) FROM {}.trades", bench.schema);
        assert_eq!(bench.number(&count).await, rows);
    }
    for left in ["pg_prepared_statements", "pg_locks WHERE locktype = 'advisory'"] {
        assert_eq!(benches[0].number(&format!("SELECT count(*) FROM {left}")).await, 0, "{left}");
    }
    let lasting = "SELECT count(*) FROM pg_settings WHERE source = 'session' AND name IN ('statement_timeout', 'tcp_user_timeout')";
    assert_eq!(benches[0].number(lasting).await, 0);
}
