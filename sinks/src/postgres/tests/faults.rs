//! A server that is killed, frozen, restarted, restored, changed under way; connections that are cut; another owner.

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use tidegate_core::{
    Kind,
    row::{Table, kinds::Trade},
    sink::{Neighbour, Sink, Written},
    spool::{Boot, SpoolPosition},
};

use super::{
    Bench, assert_committed, offset,
    proxy::{Cut, Proxy},
    server,
};

#[tokio::test]
async fn the_position_moves_with_the_rows_and_is_there_after_a_restart() {
    let bench = Bench::new().await;
    let last = bench.trades(10);
    let mut sink = bench.sink();
    assert!(sink.open(&bench.context()).await.unwrap().is_empty(), "a new schema has no position");
    assert!(sink.open(&bench.context()).await.unwrap().is_empty(), "nor has one that was only opened");
    assert_committed(bench.write(&mut sink, 0, last).await);
    sink.check().await.unwrap();
    sink.close().await.unwrap();

    let positions = bench.sink().open(&bench.context()).await.unwrap();
    assert_eq!(positions[0].1, SpoolPosition { boot: Boot(1), offset: last });
}

#[tokio::test]
async fn the_same_chunk_twice_is_stored_once() {
    let bench = Bench::new().await;
    let last = bench.trades(10);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    let error = bench.write(&mut sink, 0, last).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "a missed guard: opening decides");
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 10);
}

#[tokio::test]
async fn an_empty_chunk_moves_the_position() {
    let bench = Bench::new().await;
    let last = bench.log.control();
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), Some(last));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_before_at_and_after_a_commit_stores_all_or_nothing() {
    let mut bench = Bench::new().await;
    let proxy = Proxy::to(&bench.url).await;
    let direct = std::mem::replace(&mut bench.settings.url, tidegate_core::config::Secret::new(proxy.url()));
    let mut at = 0;
    let mut sink = bench.opened().await;
    for (n, cut) in [Cut::BeforeCommit, Cut::AtCommit, Cut::AfterCommit].into_iter().cycle().take(30).enumerate() {
        let to = bench.trades(5);
        proxy.cut(cut);
        let error = bench.write(&mut sink, at, to).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Transient { .. }), "{cut:?}: {error}");
        assert_eq!(proxy.cuts(), n + 1);
        let stands = offset(&sink.open(&bench.context()).await.unwrap()).unwrap_or(0);
        match cut {
            Cut::BeforeCommit => assert_eq!(stands, at, "the server never heard of it"),
            Cut::AfterCommit => assert_eq!(stands, to, "the server had said yes"),
            Cut::Never | Cut::AtCommit | Cut::Behind(_) => assert!(stands == at || stands == to),
        }
        if stands == at {
            assert_committed(bench.write(&mut sink, at, to).await);
        }
        at = to;
    }
    bench.settings.url = direct;
    assert_eq!(bench.number("SELECT count(*) FROM trades").await.cast_unsigned(), at);
    assert_eq!(bench.number("SELECT count(DISTINCT seq) FROM trades").await.cast_unsigned(), at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_at_any_byte_stores_all_or_nothing() {
    let mut bench = Bench::new().await;
    let proxy = Proxy::to(&bench.url).await;
    bench.settings.url = tidegate_core::config::Secret::new(proxy.url());
    let (mut at, mut lost) = (0, 0);
    let mut sink = bench.sink();
    for bytes in (0..60).map(|n| n * 197) {
        let to = bench.trades(20);
        proxy.cut(Cut::Behind(bytes));
        // The cut may come while it opens: then it opens again.
        let mut opened = sink.open(&bench.context()).await;
        if opened.is_err() {
            opened = sink.open(&bench.context()).await;
        }
        assert_eq!(offset(&opened.unwrap()).unwrap_or(0), at);
        let written = bench.write(&mut sink, at, to).await;
        proxy.cut(Cut::Never);
        let stands = offset(&sink.open(&bench.context()).await.unwrap()).unwrap_or(0);
        assert!(stands == at || stands == to, "{bytes}: at {stands}, neither before nor behind {at}..{to}");
        assert!(written.is_err() || stands == to, "{bytes}: a commit that was answered is not there");
        lost += u32::from(written.is_err());
        let rows = bench.number("SELECT count(*) FROM trades").await.cast_unsigned();
        assert_eq!(rows, stands, "{bytes}: rows and position are one");
        at = stands;
    }
    assert!(lost > 0, "no write was cut: the test shows nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_dropped_at_any_point_have_committed_all_or_nothing_and_shut_nobody_out() {
    let bench = Bench::new().await;
    let (mut at, mut lost) = (0, 0);
    let mut sink = bench.opened().await;
    for polls in (1..=24).cycle().take(96) {
        let to = bench.trades(3);
        let chunk = bench.log.chunk(at, to);
        let ended = dropped_after(polls, sink.write(&chunk)).await;
        // Half the time the process dies, too; every third opening is given up as well.
        if polls % 2 == 0 {
            sink = bench.sink();
        }
        if polls % 3 == 0 {
            dropped_after(polls, sink.open(&bench.context())).await;
        }
        let stands = offset(&sink.open(&bench.context()).await.unwrap()).unwrap_or(0);
        assert!(stands == at || stands == to, "at {stands}, neither before nor behind the chunk {at}..{to}");
        let is_answered = matches!(ended, Some(Ok(_)));
        assert!(ended.is_none_or(|written| written.is_ok()), "nothing else was in its way");
        assert!(!is_answered || stands == to, "a commit that was answered is not there");
        lost += u32::from(!is_answered && stands == at);
        let rows = bench.number("SELECT count(*) FROM trades").await.cast_unsigned();
        assert_eq!(rows, stands, "rows and position are one");
        at = stands;
    }
    assert!(lost > 0, "no write was dropped in time: the test shows nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_gone_and_still_commits_is_waited_for_or_ended() {
    let bench = Bench::new().await;
    let last = bench.trades(4);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 2).await);
    // A host that vanished in the middle of its transaction: its session stands, and nobody speaks over it.
    let mut dead = tokio_postgres::Config::new();
    let (host, port) = bench.url.split_once('@').unwrap().1.split_once('/').unwrap().0.split_once(':').unwrap();
    dead.host(host).port(port.parse().unwrap()).user("postgres").dbname("postgres");
    dead.application_name("tidegate/test/sink");
    let (client, connection) = dead.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let sql = format!("BEGIN; UPDATE {}.tidegate_position SET \"offset\" = \"offset\"", bench.schema);
    client.batch_execute(&sql).await.unwrap();

    let mut sink = bench.sink();
    assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), Some(2), "it was ended after the lock timeout");
    assert!(client.batch_execute("COMMIT").await.is_err(), "and its word counts for nothing");
    assert_committed(bench.write(&mut sink, 2, last).await);
    assert_eq!(bench.number("SELECT count(DISTINCT seq) FROM trades").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_somebody_elses_that_holds_the_position_is_transient_and_goes_on() {
    let bench = Bench::new().await;
    bench.trades(1);
    bench.opened().await.close().await.unwrap();
    let other = bench.client().await;
    let sql = format!("BEGIN; LOCK TABLE {}.tidegate_position", bench.schema);
    other.batch_execute(&sql).await.unwrap();
    let mut settings = bench.settings.clone();
    settings.statement_timeout = tidegate_core::config::Duration::from_secs(2);
    let error = super::Postgres::new(settings).open(&bench.context()).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
    other.batch_execute("COMMIT").await.unwrap();
    bench.opened().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_or_frozen_is_transient_and_loses_nothing_it_had_taken() {
    let mut server = server().await;
    let mut bench = Bench::at(server.url(), vec![Table::of::<Trade<'_>>()]);
    bench.settings.connect_timeout = tidegate_core::config::Duration::from_secs(2);
    let mut sink = bench.opened().await;
    let mut at = 0;
    for round in 0..3 {
        let to = bench.trades(100);
        assert_committed(bench.write(&mut sink, at, to).await);
        at = to;
        let to = bench.trades(100);
        if round == 1 {
            server.freeze();
            let chunk = bench.log.chunk(at, to);
            let given_up = tokio::time::timeout(Duration::from_millis(300), sink.write(&chunk)).await;
            assert!(given_up.is_err(), "nothing answers, and the driver gives up");
            let error = sink.open(&bench.context()).await.unwrap_err();
            assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
            assert!(error.to_string().contains("did not answer within"), "{error}");
            server.thaw();
        } else {
            server.kill();
            let error = bench.write(&mut sink, at, to).await.unwrap_err();
            assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
            let error = sink.open(&bench.context()).await.unwrap_err();
            assert!(matches!(error.kind(), Kind::Transient { .. }) && error.chain().contains("refused"), "{error}");
            server.restart();
        }
        let stands = offset(&sink.open(&bench.context()).await.unwrap()).unwrap();
        assert!(stands == at || round == 1 && stands == to, "what was acknowledged is there: {stands}");
        if stands == at {
            assert_committed(bench.write(&mut sink, at, to).await);
        }
        at = to;
        assert_eq!(bench.number("SELECT count(DISTINCT seq) FROM trades").await.cast_unsigned(), at);
        assert_eq!(bench.number("SELECT count(*) FROM trades").await.cast_unsigned(), at);
    }
}

#[tokio::test]
async fn of_two_owners_only_the_newer_one_commits() {
    let bench = Bench::new().await;
    bench.trades(4);
    let (mut older, mut newer) = (bench.opened().await, bench.opened().await);
    assert!(older.check().await.is_err());
    let error = older.open(&bench.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(error.to_string().contains("another program has taken over"), "{error}");
    assert_committed(bench.write(&mut newer, 0, 4).await);
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_open_a_new_store_at_once_only_one_owns_it() {
    let bench = Bench::new().await;
    bench.trades(2);
    let mut sinks = [bench.sink(), bench.sink()];
    let context = bench.context();
    let [first, second] = &mut sinks;
    // What the other has made meanwhile may come in the way of the one: both try again, as the driver does.
    let open = async |sink: &mut super::Postgres| {
        while sink.open(&context).await.is_err_and(|e| e.kind() != Kind::Permanent) {}
    };
    tokio::join!(open(first), open(second));
    let mut committed = 0;
    for sink in &mut sinks {
        committed += i32::from(bench.write(sink, 0, 2).await.is_ok());
    }
    assert_eq!(committed, 1);
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 2);
}

#[tokio::test]
async fn another_spool_is_refused_with_all_that_is_known_on_whatever_host() {
    let bench = Bench::new().await;
    bench.trades(1);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 1).await);
    let before = bench.text("SELECT p::text FROM tidegate_position p").await;
    for host in ["here", "elsewhere"] {
        let mut context = bench.context();
        context.owner.spool = 0xabc;
        context.owner.host = host.to_owned();
        let error = bench.sink().open(&context).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Permanent);
        let position = SpoolPosition { boot: Boot(1), offset: 1 }.to_string();
        for known in ["spool 0000000000000abc", "host `here`", &format!("host `{host}`"), &position, "Bring back"] {
            assert!(error.to_string().contains(known), "{error} lacks {known}");
        }
    }
    assert_eq!(bench.text("SELECT p::text FROM tidegate_position p").await, before, "nothing is changed");
    assert_committed(bench.write(&mut sink, 1, 1).await);
}

#[tokio::test]
async fn a_host_with_another_name_goes_on_with_its_spool() {
    let bench = Bench::new().await;
    bench.trades(4);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 2).await);
    let mut context = bench.context();
    context.owner.host = "renamed".to_owned();
    let mut renamed = bench.sink();
    assert_eq!(offset(&renamed.open(&context).await.unwrap()), Some(2));
    assert_eq!(bench.text("SELECT host FROM tidegate_position").await, "renamed");
    assert!(bench.write(&mut sink, 2, 4).await.is_err(), "the name is no fence, the epoch is one");
    assert_committed(bench.write(&mut renamed, 2, 4).await);
}

#[tokio::test]
async fn where_a_position_is_known_nothing_is_made_in_the_place_of_a_store_that_is_gone() {
    let mut bench = Bench::new().await;
    bench.trades(3);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 3).await);
    let mut context = bench.context();
    context.known = Some(SpoolPosition { boot: Boot(1), offset: 3 });
    assert_eq!(offset(&bench.sink().open(&context).await.unwrap()), Some(3), "it is the one that is known");

    bench.run("DELETE FROM tidegate_position").await;
    assert!(bench.sink().open(&context).await.unwrap().is_empty(), "the driver compares, and stops");
    assert_eq!(bench.number("SELECT count(*) FROM tidegate_position").await, 0, "nothing is taken");
    bench.settings.schema = Some(format!("{}_elsewhere", bench.schema));
    assert!(bench.sink().open(&context).await.unwrap().is_empty());
    let schemas =
        "SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%_elsewhere' AND nspname LIKE current_schema() || '%'";
    assert_eq!(bench.number(schemas).await, 0, "nothing is made");
}

#[tokio::test]
async fn other_pipelines_that_have_written_to_the_same_tables_are_named_to_a_sink_that_has_not() {
    let bench = Bench::new().await;
    bench.trades(2);
    let mut old = bench.opened().await;
    assert_committed(bench.write(&mut old, 0, 2).await);
    assert_eq!(old.neighbours(), [], "itself is none");
    let mut context = bench.context();
    (context.owner.pipeline, context.owner.spool) = ("new".to_owned(), 2);
    let mut new = bench.sink();
    new.open(&context).await.unwrap();
    let neighbour = Neighbour {
        pipeline: "test".to_owned(),
        sink: "sink".to_owned(),
        spool: 1,
        host: "here".to_owned(),
        tables: vec!["quotes".to_owned(), "trades".to_owned()],
    };
    assert_eq!(new.neighbours(), [neighbour]);
    context.tables.iter_mut().for_each(|table| table.name.push('2'));
    new.open(&context).await.unwrap();
    assert_eq!(new.neighbours(), [], "other tables");
}

#[tokio::test]
async fn a_table_that_vanished_while_the_position_stayed_needs_a_person_and_the_statement_is_right() {
    let bench = Bench::new().await;
    bench.trades(4);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 2).await);
    bench.run("DROP TABLE trades").await;
    let error = bench.write(&mut sink, 2, 4).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "the opening says what is wrong: {error}");
    let error = sink.open(&bench.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(error.to_string().contains("`trades` is gone"), "{error}");

    let text = error.to_string();
    let (_, statement) = text.split_once("make it without rows: ").unwrap();
    bench.run(statement).await;
    assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), Some(2));
    assert_committed(bench.write(&mut sink, 2, 4).await);
}

#[tokio::test]
async fn a_table_that_is_changed_under_way_takes_no_garbage() {
    for change in [
        // Eight bytes as before: they would be taken for another number.
        "ALTER TABLE trades ALTER price TYPE bigint USING price::bigint",
        "ALTER TABLE trades ALTER price TYPE numeric(4,1)",
        "ALTER TABLE trades RENAME TO away; CREATE TABLE trades (LIKE away INCLUDING ALL)",
        "ALTER TABLE trades DROP price",
    ] {
        let bench = Bench::new().await;
        bench.trades(4);
        let mut sink = bench.opened().await;
        assert_committed(bench.write(&mut sink, 0, 2).await);
        sink.check().await.unwrap();
        bench.run(change).await;
        let error = bench.write(&mut sink, 2, 4).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Transient { .. }), "{change}: {error}");
        assert_eq!(bench.number("SELECT \"offset\" FROM tidegate_position").await, 2, "{change}: nothing was stored");
        match sink.open(&bench.context()).await {
            Ok(at) => {
                assert_eq!(offset(&at), Some(2), "{change}");
                assert_committed(bench.write(&mut sink, 2, 4).await);
                assert_eq!(
                    bench.number("SELECT count(*) FROM trades WHERE seq > 2 AND price = 1.5").await,
                    2,
                    "{change}"
                );
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Permanent, "{change}");
                assert!(error.to_string().contains("`price` of table `trades` is `bigint`"), "{change}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn the_probe_sees_a_table_that_is_gone_and_a_connection_that_is_cut() {
    let bench = Bench::new().await;
    let mut sink = bench.opened().await;
    bench.run("DROP TABLE quotes").await;
    let error = sink.check().await.unwrap_err();
    assert!(error.to_string().contains("`quotes` was changed, or is gone"), "{error}");
    let mut sink = bench.opened().await;
    // Its own, and not that of another test.
    let pid = sink.session.as_ref().unwrap().link.text("SELECT pg_backend_pid()").await.unwrap().unwrap();
    bench.run(&format!("SELECT pg_terminate_backend({pid})")).await;
    assert!(sink.check().await.is_err());
}

#[tokio::test]
async fn a_database_that_can_only_be_read_is_transient() {
    let bench = Bench::new().await;
    bench.trades(2);
    let mut sink = bench.opened().await;
    sink.session.as_ref().unwrap().link.run("SET default_transaction_read_only = on").await.unwrap();
    let error = bench.write(&mut sink, 0, 2).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
    assert!(error.to_string().contains("can only be read"), "{error}");
    assert!(sink.open(&bench.context()).await.unwrap().is_empty());
    assert_committed(bench.write(&mut sink, 0, 2).await);
}

#[tokio::test]
async fn a_commit_is_durable_whatever_the_role_says() {
    let bench = Bench::new().await;
    let role = format!("{}_lazy", bench.schema);
    bench.run(&format!("CREATE ROLE {role} LOGIN SUPERUSER; ALTER ROLE {role} SET synchronous_commit = off")).await;
    let mut lazy = bench.settings.clone();
    lazy.url = tidegate_core::config::Secret::new(bench.url.replace("postgres@", &format!("{role}@")));
    let mut sink = super::Postgres::new(lazy);
    sink.open(&bench.context()).await.unwrap();
    bench
        .run(
            "CREATE TABLE seen (how text); CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN new; END $$;
             CREATE TRIGGER look BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION look()",
        )
        .await;
    bench.trades(1);
    let schema = &bench.schema;
    sink.session.as_ref().unwrap().link.run(&format!("SET search_path = {schema}")).await.unwrap();
    assert_committed(bench.write(&mut sink, 0, 1).await);
    assert_eq!(bench.text("SELECT how FROM seen").await, "on");
    drop(sink);
    bench.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_position_is_adopted_renamed_and_claimed() {
    let bench = Bench::new().await;
    let owner = bench.context().owner;
    assert_eq!(bench.sink().claim(&owner).await.unwrap(), None);
    bench.trades(4);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 2).await);
    let claim = bench.sink().claim(&owner).await.unwrap().unwrap();
    assert_eq!((claim.position.offset, claim.spool, &*claim.host, claim.gone), (2, 1, "here", Vec::new()));

    // Another spool takes it over, at another place: the older owner is fenced.
    let mut other = owner.clone();
    other.spool = 7;
    for _ in 0..2 {
        bench.sink().adopt(&other, SpoolPosition { boot: Boot(1), offset: 3 }).await.unwrap();
    }
    assert!(bench.write(&mut sink, 2, 4).await.is_err());
    let claim = bench.sink().claim(&owner).await.unwrap().unwrap();
    assert_eq!((claim.position.offset, claim.spool), (3, 7));

    let mut renamed = other.clone();
    renamed.sink = "other".to_owned();
    for _ in 0..2 {
        bench.sink().rename(&other, &renamed).await.unwrap();
    }
    assert_eq!(bench.sink().claim(&other).await.unwrap(), None);
    assert_eq!(bench.sink().claim(&renamed).await.unwrap().unwrap().position.offset, 3);
    bench.run("DROP TABLE trades").await;
    assert_eq!(bench.sink().claim(&renamed).await.unwrap().unwrap().gone, ["trades"]);
}

#[tokio::test]
async fn reaching_looks_and_leaves_everything_as_it_is() {
    let bench = Bench::new().await;
    let tables = bench.context().tables;
    let found = bench.sink().reach(&tables).await.unwrap();
    assert!(found.contains("PostgreSQL 1") && found.contains("0 of 2 tables are there"), "{found}");
    let schemas = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{}'", bench.schema);
    assert_eq!(bench.number(&schemas).await, 0, "nothing was made");
    // Beside a host that has it open: neither the owner nor its epoch changes.
    let mut sink = bench.opened().await;
    let found = bench.sink().reach(&tables).await.unwrap();
    assert!(found.contains("2 of 2 tables are there"), "{found}");
    bench.trades(1);
    assert!(matches!(bench.write(&mut sink, 0, 1).await.unwrap(), Written::Committed));
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
