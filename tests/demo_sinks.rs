//! `tidegate demo --sink URL` as a user runs it: into real servers, compared with what the venue made, killed on the way.
#![cfg(all(feature = "postgres", feature = "questdb"))]
#![allow(clippy::unwrap_used, reason = "helpers are in no test function")]

mod support;

use std::{fs, path::Path, process::Stdio};

use support::servers::{postgres, questdb};
use tidegate::testkit::Server;
use tokio::{process::Command, time::timeout};

#[tokio::test(flavor = "multi_thread")]
async fn into_postgres_it_is_exact_through_kills_and_goes_on_in_its_folder_and_shows_no_password() {
    let server = shared("postgres").await;
    let client = postgres(server.url()).await;
    let made = "DROP ROLE IF EXISTS demo_user; CREATE ROLE demo_user LOGIN PASSWORD 'hunter2'; \
                GRANT CREATE ON DATABASE postgres TO demo_user";
    client.batch_execute(made).await.unwrap();
    let url = server.url().replace("postgres@", "demo_user:hunter2@");
    assert!(url.contains("hunter2"), "{url}");
    let dir = tempfile::tempdir().unwrap();
    let first = demo(dir.path(), &["d", "--sink", &url, "--kill", "3", "--rate", "400", "--seed", "40"]).await;
    exact(&first);
    assert!(first.text.contains("killed 3 of 3"), "{}", first.text);
    let second = demo(dir.path(), &["d", "--sink", &url, "--for", "3s", "--rate", "400"]).await;
    exact(&second);
    assert!(second.text.contains("resumed: "), "{}", second.text);
    let there = client.query_one("SELECT count(*) FROM tidegate_demo_40.trades", &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(stored_trades(&second.text), there, "{}", second.text);
    assert!(there > stored_trades(&first.text), "it went on");

    let other = demo(dir.path(), &["d", "--for", "1s"]).await;
    assert_eq!(other.code, 2, "{}", other.text);
    assert!(other.text.contains("was begun with --sink postgres://demo_user@127.0.0.1:"), "{}", other.text);
    // Printed, logged, or left in a file.
    for text in [first.text, second.text, other.text].into_iter().chain(files(&dir.path().join("d"))) {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn into_timescale_and_into_questdb_it_is_exact_too() {
    let dir = tempfile::tempdir().unwrap();
    let quest = shared("questdb").await;
    let host = quest.url().trim_start_matches("http://");
    let address = format!("http::addr={host};username=admin;password=hunter2;");
    let demo_of_quest =
        demo(dir.path(), &["q", "--sink", &address, "--kill", "2", "--rate", "300", "--seed", "41"]).await;
    exact(&demo_of_quest);
    let there = questdb(quest.url(), "SELECT count() FROM tidegate_demo_41_trades").await[0][0].as_i64().unwrap();
    assert_eq!(stored_trades(&demo_of_quest.text), there, "{}", demo_of_quest.text);
    for text in std::iter::once(demo_of_quest.text).chain(files(&dir.path().join("q"))) {
        assert!(!text.contains("hunter2"), "{text}");
    }

    let scale = shared("timescale").await;
    let url = scale.url().replacen("postgres://", "timescale://", 1);
    let done = demo(dir.path(), &["t", "--sink", &url, "--for", "6s", "--rate", "300", "--seed", "42"]).await;
    exact(&done);
    assert!(done.text.contains("sink timescale healthy"), "{}", done.text);
}

#[cfg(feature = "kafka")]
#[tokio::test(flavor = "multi_thread")]
async fn into_kafka_it_is_exact_through_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let server = shared("kafka").await;
    let url = format!("kafka://{}", server.url());
    let done =
        demo(dir.path(), &["k", "--sink", &url, "--kill", "1", "--for", "6s", "--rate", "300", "--seed", "43"]).await;
    exact(&done);
    assert!(stored_trades(&done.text) > 50, "{}", done.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn into_a_file_that_is_named_it_goes_and_one_that_is_there_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let done = demo(dir.path(), &["d", "--sink", "./mine.sqlite", "--for", "3s", "--rate", "300"]).await;
    exact(&done);
    assert!(dir.path().join("mine.sqlite").is_file() && !dir.path().join("d/demo.sqlite").exists(), "{}", done.text);
    let again = demo(dir.path(), &["d", "--sink", "mine.sqlite", "--for", "2s", "--rate", "300"]).await;
    exact(&again);
    let other = demo(dir.path(), &["e", "--sink", "./mine.sqlite", "--for", "1s"]).await;
    assert_eq!(other.code, 2, "{}", other.text);
    assert!(other.text.contains("mine.sqlite` is there already, and is not this demo's"), "{}", other.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_nowhere_is_said_before_anything_begins_without_its_password() {
    let dir = tempfile::tempdir().unwrap();
    let server = shared("postgres").await;
    let stranger = server.url().replace("postgres@", "nobody:hunter2@");
    for (address, code, words) in [
        ("postgres://me:hunter2@127.0.0.1:1/feed", 1, &["--sink postgres://me@127.0.0.1:1/feed: ", "refused"][..]),
        (&stranger, 1, &["does not let us in"]),
        ("questdb://me:hunter2@127.0.0.1:1", 1, &["--sink http://127.0.0.1:1: ", "does not answer"]),
        ("postgre://me:hunter2@db/feed", 2, &["no store is of the kind `postgre`: did you mean `postgres://"]),
        ("postgres://me:hunter2@db:port/feed", 2, &["--sink postgres://me@db:port/feed: `url` cannot be read: "]),
        ("mongodb://me:hunter2@db", 2, &["kind `mongodb`; there are: `postgres://USER"]),
    ] {
        let done = demo(dir.path(), &["d", "--sink", address, "--for", "1s"]).await;
        assert_eq!(done.code, code, "{address}: {}", done.text);
        assert!(words.iter().all(|word| done.text.contains(word)), "{address}: {}", done.text);
        assert!(!done.text.contains("hunter2") && !done.text.contains("source deribit"), "{address}: {}", done.text);
        println!("{}", done.text.trim_end());
    }
    // None of them has been kept: the folder takes whichever store is there.
    exact(&demo(dir.path(), &["d", "--for", "2s", "--rate", "300"]).await);
}

struct Done {
    code: i32,
    /// Both outputs.
    text: String,
}

async fn demo(folder: &Path, args: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("demo").args(args).current_dir(folder).env_remove("LOG_LEVEL").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(3 * support::PATIENCE, command.output()).await.unwrap_or_else(|_| panic!("no end: {args:?}"));
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Done { code: output.status.code().unwrap_or(-1), text }
}

fn exact(done: &Done) {
    assert_eq!(done.code, 0, "{}", done.text);
    for line in ["trades ", "tickers "] {
        let line = done.text.lines().rfind(|found| found.starts_with(line)).unwrap_or_default();
        assert!(
            line.contains("  twice 0") && (line.contains("missing 0") || line.contains("holes   0")),
            "{}",
            done.text
        );
    }
}

/// Returns how many trades the end's table says are stored.
fn stored_trades(text: &str) -> i64 {
    let line = text.lines().rfind(|line| line.starts_with("trades ")).unwrap();
    let (_, stored) = line.split_once("stored").unwrap();
    let stored = stored.split_whitespace().next().unwrap().replace(',', "");
    let earlier = text.lines().find(|line| line.contains("stored from before the first subscription"));
    let earlier = earlier.map_or(0, |line| line.split_whitespace().next().unwrap().replace(',', "").parse().unwrap());
    stored.parse::<i64>().unwrap() + earlier
}

/// Returns all text files below a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            texts.extend(files(&path));
        } else {
            texts.push(String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
        }
    }
    texts
}

async fn shared(name: &'static str) -> &'static Server {
    tokio::task::spawn_blocking(move || Server::shared(name)).await.unwrap()
}
