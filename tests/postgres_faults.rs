//! The real program with a real Postgres, both killed at any moment: nothing is lost, nothing doubled, and `verify` says so.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use support::{
    Bench, Random, busy,
    servers::{postgres, server, stored_in_postgres, with_server},
    tidegate,
};
use tidegate::testkit::Server;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_program_and_of_the_server_lose_nothing_and_double_nothing() {
    let mut server = server("postgres").await;
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
                server = with_server(server, |server| {
                    server.kill();
                    server.restart();
                })
                .await
            }
            2 => {
                server = with_server(server, |server| {
                    server.freeze();
                    server.thaw();
                })
                .await
            }
            // Both at once, the program first back.
            _ => {
                program.kill().await;
                server = with_server(server, Server::kill).await;
                program = bench.run();
                program.until_logged("refused").await;
                server = with_server(server, Server::restart).await;
            }
        }
        program.until_committed(1).await;
    }
    bench.venue.mend();
    bench.venue.freeze();
    let deadline = Instant::now() + 2 * support::PATIENCE;
    let comparison = loop {
        let comparison = bench.compare_with(&stored_in_postgres(server.url(), "feed").await);
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
    postgres(server.url())
        .await
        .batch_execute("DELETE FROM feed.trades WHERE ctid = (SELECT min(ctid) FROM feed.trades)")
        .await
        .unwrap();
    let verified = tidegate(bench.folder(), &["verify", "eth.toml"]);
    assert_eq!(verified.code, 1, "{verified:?}");
    drop(with_server(server, |_| {}).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_connect_says_what_it_found_and_shows_no_password() {
    let server = server("postgres").await;
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
