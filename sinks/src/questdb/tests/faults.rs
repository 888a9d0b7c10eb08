//! Servers that die, freeze and lose connections; tables that are dropped, suspended and changed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidegate_core::{
    Kind,
    row::{Mark, Position, Table, Timestamp, kinds::Trade},
    sink::{Sink, Written},
    testkit::Server,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{BEGIN, Bench, applied, assert_accepted, offset};

#[tokio::test]
async fn the_same_chunk_twice_is_stored_once_whatever_lies_between() {
    let bench = Bench::new();
    let last = bench.trades(1_000);
    let mut sink = bench.opened().await;
    assert_accepted(bench.write(&mut sink, 0, last).await);
    assert_accepted(bench.write(&mut sink, 0, last).await);
    sink.open(&bench.context()).await.unwrap();
    assert_accepted(bench.write(&mut sink, 300, last).await);
    // Cut another way, by another process.
    let mut other = bench.opened().await;
    bench.store(&mut other, 0, 700).await;
    bench.store(&mut other, 700, last).await;
    let counts = format!("SELECT count() * 1000 + count_distinct(seq) FROM {}", bench.name("trades"));
    assert_eq!(bench.number(&counts).await, 1_001_000);
}

#[tokio::test]
async fn an_accepted_chunk_does_not_count_before_it_is_applied_and_an_empty_one_waits_for_those_before_it() {
    let bench = Bench::new();
    let last = bench.trades(20_000);
    let empty = bench.log.control();
    let mut sink = bench.opened().await;
    assert_accepted(bench.write(&mut sink, 0, last).await);
    assert_accepted(bench.write(&mut sink, last, empty).await);
    applied(&mut sink, empty).await;
    assert_eq!(
        bench.number(&format!("SELECT count() FROM {}", bench.name("trades"))).await,
        20_000,
        "applied is visible"
    );
    let empty_too = bench.log.control();
    assert!(matches!(bench.write(&mut sink, empty, empty_too).await, Ok(Written::Committed)), "nothing waits");
    sink.close().await.unwrap();
    let position = format!("SELECT pos FROM {}", bench.config.owners);
    bench.until(&position, empty_too.cast_signed()).await;
}

#[tokio::test]
async fn rows_out_of_order_and_days_late_are_stored() {
    let bench = Bench::new();
    for n in 0..2_000_i64 {
        let ts_event = Timestamp(BEGIN + (n * 7_919 % 2_000) * 86_400_000_000_000 / 100);
        let mark = Mark { symbol: "ETH", position: Position::Unnumbered, ts_event };
        bench.log.emit(mark, &Trade { price: 1.0, ..Trade::default() });
    }
    let mut sink = bench.opened().await;
    for from in [0, 500, 1_000, 1_500] {
        assert_accepted(bench.write(&mut sink, from, from + 500).await);
    }
    applied(&mut sink, 2_000).await;
    let name = bench.name("trades");
    assert_eq!(bench.number(&format!("SELECT count_distinct(tg_pos) FROM {name}")).await, 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_while_it_is_written_to_has_every_row_once_after_its_restart() {
    let mut server = Server::start("questdb");
    let bench = Bench::at(server.url(), vec![Table::of::<Trade<'_>>()]);
    let total = bench.trades(60_000);
    let mut sink = bench.sink();
    let (mut counted, mut deaths) = (0, 0);
    while counted < total {
        let context = if counted == 0 { bench.context() } else { bench.context_at(counted) };
        if sink.open(&context).await.is_err() {
            server.restart();
            deaths += 1;
            continue;
        }
        let (mut from, mut writes) = (counted, 0);
        loop {
            if deaths < 4 && writes == 3 + deaths {
                // With a request on its way, or one that is accepted and not applied.
                let write = bench.log.chunk(from, (from + 2_000).min(total));
                let killing = tokio::task::spawn_blocking(move || {
                    server.kill();
                    server
                });
                _ = sink.write(&write).await;
                server = killing.await.unwrap();
                break;
            }
            let to = (from + 2_000).min(total);
            let (Ok(Written::Accepted), Ok(position)) = (bench.write(&mut sink, from, to).await, sink.applied().await)
            else {
                break;
            };
            writes += 1;
            counted = offset(position).unwrap_or(counted);
            from = to;
            if from == total {
                if counted < total {
                    applied(&mut sink, total).await;
                    counted = total;
                }
                break;
            }
        }
    }
    assert!(deaths >= 4, "{deaths}");
    let counts = format!("SELECT count() * 100000 + count_distinct(seq) FROM {}", bench.name("trades"));
    assert_eq!(bench.number(&counts).await, 6_000_060_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_holds_a_write_up_and_what_it_does_after_it_thaws_is_no_second_time() {
    let mut server = Server::start("questdb");
    let bench = Bench::at(server.url(), vec![Table::of::<Trade<'_>>()]);
    let last = bench.trades(5_000);
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, 1_000).await;
    server.freeze();
    let given_up = timeout(Duration::from_millis(500), bench.write(&mut sink, 1_000, last)).await;
    assert!(given_up.is_err(), "it waits for an answer, and the driver gives it up");
    server.thaw();
    sink.open(&bench.context_at(1_000)).await.unwrap();
    bench.store(&mut sink, 1_000, last).await;
    let counts = format!("SELECT count() * 10000 + count_distinct(seq) FROM {}", bench.name("trades"));
    assert_eq!(bench.number(&counts).await, 50_005_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_anywhere_in_a_request_stores_all_of_it_or_nothing_and_once_in_the_end() {
    let server = Server::shared("questdb");
    let proxy = Proxy::start(server.url().trim_start_matches("http://")).await;
    let bench = Bench::at(&proxy.url, vec![Table::of::<Trade<'_>>()]);
    let last = bench.trades(3_000);
    let mut sink = bench.opened().await;
    let count = format!("SELECT count() FROM {}", bench.name("trades"));
    for bytes in [1, 100, 400, 1_000, 30_000, 120_000, 300_000] {
        proxy.cut_after(bytes);
        let error = bench.write(&mut sink, 0, last).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
        proxy.heal();
        let stored = bench.number(&count).await;
        assert!(stored == 0 || stored == 3_000, "{stored} rows after {bytes} bytes");
        sink.open(&bench.context()).await.unwrap();
    }
    // The answer alone is lost: the rows may be there.
    proxy.mute();
    let error = bench.write(&mut sink, 0, last).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
    proxy.heal();
    bench.until(&count, 3_000).await;
    sink.open(&bench.context()).await.unwrap();
    bench.store(&mut sink, 0, last).await;
    assert_eq!(bench.number(&count).await, 3_000);
}

#[tokio::test]
async fn a_table_that_is_dropped_under_way_is_noticed_also_where_quest_db_makes_it_again_by_itself() {
    let bench = Bench::new();
    let last = bench.trades(10);
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, 5).await;
    bench.run(&format!("DROP TABLE {}", bench.name("trades"))).await;
    let written = bench.write(&mut sink, 5, last).await;
    let error = match written {
        Ok(_) => sink.applied().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(error.to_string().contains(&bench.name("trades")), "{error}");
    let error = sink.open(&bench.context_at(5)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(error.to_string().contains("made anew") || error.to_string().contains("is gone"), "{error}");
    let claim = sink.claim(&bench.context().owner).await.unwrap().unwrap();
    assert_eq!(claim.gone, [bench.name("trades")], "so that the driver says how to go on");
}

#[tokio::test]
async fn a_table_that_was_dropped_before_the_start_is_gone_and_not_made_again() {
    let bench = Bench::new();
    bench.trades(10);
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, 10).await;
    sink.close().await.unwrap();
    bench.run(&format!("DROP TABLE {}", bench.name("trades"))).await;
    for _ in 0..2 {
        let error = bench.sink().open(&bench.context_at(10)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Permanent);
        assert!(error.to_string().contains("is gone"), "{error}");
    }
}

#[tokio::test]
async fn a_suspended_table_counts_for_nothing_and_is_said_with_the_statement_that_resumes_it() {
    let bench = Bench::new();
    let last = bench.trades(10);
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, 5).await;
    let name = bench.name("trades");
    bench.run(&format!("ALTER TABLE {name} SUSPEND WAL WITH 24, 'disk full'")).await;
    assert_accepted(bench.write(&mut sink, 5, last).await);
    let error = sink.applied().await.unwrap_err();
    let again = sink.open(&bench.context_at(5)).await.unwrap_err();
    let reached = bench.sink().reach(&bench.context().tables).await.unwrap_err();
    for error in [error, again, reached] {
        assert!(matches!(error.kind(), Kind::Transient { .. }), "it mends itself once a person has acted: {error}");
        let text = error.to_string();
        assert!(text.contains("disk full") && text.contains(&format!("ALTER TABLE \"{name}\" RESUME WAL")), "{text}");
    }
    bench.run(&format!("ALTER TABLE {name} RESUME WAL")).await;
    sink.open(&bench.context_at(5)).await.unwrap();
    bench.store(&mut sink, 5, last).await;
    assert_eq!(bench.number(&format!("SELECT count() FROM {name}")).await, 10);
}

#[tokio::test]
async fn a_table_that_loses_its_key_stops_the_sink_with_the_statement_that_gives_it_back() {
    let bench = Bench::new();
    let last = bench.trades(10);
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, 5).await;
    let name = bench.name("trades");
    bench.run(&format!("ALTER TABLE {name} DEDUP DISABLE")).await;
    let checked = sink.check().await.unwrap_err();
    let opened = sink.open(&bench.context_at(5)).await.unwrap_err();
    let statement =
        format!("ALTER TABLE \"{name}\" DEDUP ENABLE UPSERT KEYS(\"ts_event\", \"tg_boot\", \"tg_pos\", \"tg_sub\")");
    for error in [checked, opened] {
        assert_eq!(error.kind(), Kind::Permanent);
        assert!(error.to_string().contains(&statement), "{error}");
    }
    bench.run(&statement).await;
    sink.open(&bench.context_at(5)).await.unwrap();
    bench.store(&mut sink, 0, last).await;
    assert_eq!(bench.number(&format!("SELECT count() FROM {name}")).await, 10);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_transient_and_a_refused_login_is_not_and_no_secret_is_said() {
    let mut bench = Bench::new();
    bench.config.url = "http://127.0.0.1:9".to_owned();
    let error = bench.sink().open(&bench.context()).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
    assert!(error.chain().contains("refused"), "{}", error.chain());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    bench.config.url = format!("http://{}", listener.local_addr().unwrap());
    (bench.config.user, bench.config.password) =
        (Some("me".to_owned()), Some(tidegate_core::config::Secret::new("hunter2")));
    let refusing = tokio::spawn(async move {
        let mut seen = Vec::new();
        for status in ["401 Unauthorized", "503 Service Unavailable", "429 Too Many Requests", "404 Not Found"] {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let read = socket.read(&mut request).await.unwrap();
            seen.extend_from_slice(&request[..read]);
            let body = "you said hunter2";
            let answer =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        String::from_utf8_lossy(&seen).into_owned()
    });
    for is_permanent in [true, false, false, true] {
        let error = bench.sink().open(&bench.context()).await.unwrap_err();
        assert_eq!(error.kind() == Kind::Permanent, is_permanent, "{error}");
        assert!(!error.chain().contains("hunter2"), "{}", error.chain());
    }
    let seen = refusing.await.unwrap();
    assert!(seen.to_lowercase().contains("authorization: basic bwu6ahvudgvymg=="), "{seen}");
    assert!(!format!("{:?}", bench.config).contains("hunter2"));
}

/// Passes bytes on; of requests that hold rows only as many as it is told to.
struct Proxy {
    url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// How many bytes of a request with rows reach the server before the connection is cut.
    limit: AtomicUsize,
    /// Whether the connection is cut when the answer to such a request comes.
    is_mute: AtomicBool,
}

impl Proxy {
    async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { limit: AtomicUsize::new(usize::MAX), ..State::default() });
        let (server, shared) = (server.to_owned(), state.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(pass(client, server, shared.clone()));
            }
        });
        Self { url, state }
    }

    fn cut_after(&self, bytes: usize) {
        self.state.limit.store(bytes, Ordering::SeqCst);
    }

    fn mute(&self) {
        self.state.is_mute.store(true, Ordering::SeqCst);
    }

    fn heal(&self) {
        self.state.limit.store(usize::MAX, Ordering::SeqCst);
        self.state.is_mute.store(false, Ordering::SeqCst);
    }
}

/// Ends, and with it both connections, where it is to cut.
async fn pass(mut client: TcpStream, mut server: TcpStream, state: Arc<State>) {
    let (mut to_server, mut to_client) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut left = usize::MAX;
    let mut has_rows = false;
    loop {
        tokio::select! {
            read = client.read(&mut to_server) => {
                let Ok(read @ 1..) = read else { return };
                if to_server.starts_with(b"POST ") {
                    (left, has_rows) = (state.limit.load(Ordering::SeqCst), true);
                } else if to_server.starts_with(b"GET ") {
                    (left, has_rows) = (usize::MAX, false);
                }
                if server.write_all(&to_server[..read.min(left)]).await.is_err() || read >= left {
                    return;
                }
                left -= read;
            }
            read = server.read(&mut to_client) => {
                let Ok(read @ 1..) = read else { return };
                let is_cut = has_rows && state.is_mute.load(Ordering::SeqCst);
                if is_cut || client.write_all(&to_client[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
