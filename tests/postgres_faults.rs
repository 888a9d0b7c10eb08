//! The real program with a real Postgres, both killed at any moment: nothing is lost, nothing doubled, and `verify` says so.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use support::{Bench, Random, busy, tidegate};
use tidegate::testkit::Server;
use tidegate_sources::deribit::simulator::comparison::{Stored, StoredTrade};
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_program_and_of_the_server_lose_nothing_and_double_nothing() {
    let mut server = start().await;
    let bench = bench(server.url()).await;
    let mut random = Random::new(17);
    let mut program = bench.run();
    program.until_committed(100).await;
    for round in 0..12 {
        let until = Instant::now() + std::time::Duration::from_millis(random.below(700));
        while Instant::now() < until {
            program.next_report().await;
        }
        match round % 4 {
            0 => {
                program.kill().await;
                program = bench.run();
            }
            1 => {
                server = blocking(server, |server| {
                    server.kill();
                    server.restart();
                })
                .await
            }
            2 => {
                server = blocking(server, |server| {
                    server.freeze();
                    server.thaw();
                })
                .await
            }
            // Both at once, the program first back.
            _ => {
                program.kill().await;
                server = blocking(server, Server::kill).await;
                program = bench.run();
                program.until_logged("refused").await;
                server = blocking(server, Server::restart).await;
            }
        }
        program.until_committed(1).await;
    }
    bench.venue.mend();
    bench.venue.freeze();
    let deadline = Instant::now() + 2 * support::PATIENCE;
    let comparison = loop {
        let comparison = bench.compare_with(&stored(server.url()).await);
        let holes: u64 = comparison.unrepeated().map(|kind| kind.holes).sum();
        if comparison.trades.missing + holes == 0 || Instant::now() > deadline {
            break comparison;
        }
        program.next_report().await;
    };
    comparison.assert_exact(&program.log());
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("exactly-once (transaction)"), "{log}");

    let verified = tidegate(bench.folder(), &["verify", "eth.toml"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    // A row that somebody deletes is missed, by its number.
    client(server.url())
        .await
        .batch_execute("DELETE FROM feed.trades WHERE ctid = (SELECT min(ctid) FROM feed.trades)")
        .await
        .unwrap();
    let verified = tidegate(bench.folder(), &["verify", "eth.toml"]);
    assert_eq!(verified.code, 1, "{verified:?}");
    drop(blocking(server, |_| {}).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_connect_says_what_it_found_and_shows_no_password() {
    let server = start().await;
    let bench = bench(server.url()).await;
    let checked = tidegate(bench.folder(), &["check", "--connect", "eth.toml"]);
    assert_eq!(checked.code, 0, "{checked:?}");
    assert!((checked.printed.clone() + &checked.said).contains("PostgreSQL 1"), "{checked:?}");
    let wrong = server.url().replace("postgres@", "nobody:hunter2@");
    let text = bench.pipeline("", "").replace(&path(&bench), &sink(&wrong));
    bench.write("eth.toml", &text);
    for words in [&["check", "--connect", "eth.toml"][..], &["check", "--resolved", "eth.toml"]] {
        let checked = tidegate(bench.folder(), words);
        let said = checked.printed + &checked.said;
        assert!(!said.contains("hunter2"), "{said}");
        assert!(words[1] == "--resolved" || said.contains("does not let us in"), "{said}");
    }
}

/// A venue, and a pipeline into a schema of that server.
async fn bench(url: &str) -> Bench {
    let bench = Bench::start(busy(500.0), "", "").await;
    let more = "connect_timeout = \"2s\"\nbreaker = { open_for = \"100ms\" }";
    let text = bench.pipeline("", more).replace(&path(&bench), &sink(url));
    assert!(text.contains("type = \"postgres\""));
    bench.write("eth.toml", &text);
    bench
}

fn path(bench: &Bench) -> String {
    format!("path = \"{}\"", bench.database().display())
}

/// It keeps its name, which is what the helpers wait for.
fn sink(url: &str) -> String {
    format!("type = \"postgres\"\nurl = \"{url}\"\nschema = \"feed\"")
}

async fn start() -> Server {
    tokio::task::spawn_blocking(|| Server::start("postgres")).await.unwrap()
}

async fn blocking(mut server: Server, act: impl FnOnce(&mut Server) + Send + 'static) -> Server {
    let done = tokio::task::spawn_blocking(move || {
        act(&mut server);
        server
    });
    done.await.unwrap()
}

async fn client(url: &str) -> Client {
    let deadline = Instant::now() + support::PATIENCE;
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn stored(url: &str) -> Stored {
    let client = client(url).await;
    let mut stored = Stored::default();
    let trades =
        "SELECT symbol, id, price, size, side, (extract(epoch FROM ts_event) * 1000)::bigint, origin = 'backfill'
        FROM feed.trades";
    for row in client.query(trades, &[]).await.unwrap_or_default() {
        stored.trades.entry(row.get(0)).or_default().push(StoredTrade {
            id: row.get(1),
            price: row.get(2),
            size: row.get(3),
            side: row.get(4),
            ts_event_ms: row.get(5),
            backfilled: row.get(6),
        });
    }
    for row in client.query("SELECT symbol, volume_24h FROM feed.tickers", &[]).await.unwrap_or_default() {
        match row.get(1) {
            Some(volume) => stored.tickers.entry(row.get(0)).or_default().push(volume),
            None => stored.unknown_tickers += 1,
        }
    }
    stored
}
