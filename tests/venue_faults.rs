//! Whatever the venue does wrong is counted, said and survived: the real program against the simulator over real sockets.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{
    Bench, Program, busy,
    faulty::{LONG, QUICK, most_traded_option, source_of},
};
use tidegate_sources::deribit::simulator::{Condition, Fault, Oracle, SimulatorConfig};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_venue_that_accepts_and_never_speaks_is_given_up_and_dialled_again() {
    let bench = Bench::start(busy(500.0), QUICK, "").await;
    bench.venue.inject(Fault::Lasting(Condition::NeverSpeak, LONG));
    let mut program = bench.run();
    let report = degraded(&mut program).await;
    assert!(reason(&report).contains("no answer for 500ms; trying again in"), "{}", reason(&report));
    assert_eq!(program.get("/health/ready").await.0, 503, "nothing is subscribed");
    bench.venue.mend();
    program.until_committed(500).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    assert_eq!(program.get("/health/ready").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_venue_that_answers_with_a_web_page_is_dialled_again_and_the_reason_is_said() {
    let bench = Bench::start(busy(500.0), QUICK, "").await;
    bench.venue.inject(Fault::Lasting(Condition::PlainHttp, LONG));
    let mut program = bench.run();
    let is_told = |report: &Value| reason(report).contains("200 <html>maintenance</html>; trying again in");
    program.until("the page is told", is_told).await;
    bench.venue.mend();
    program.until_committed(500).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_kind_of_exchange_is_refused_and_other_pipelines_go_on() {
    let bench = Bench::start(busy(500.0), QUICK, "").await;
    let (ws, http) = (bench.venue.ws_url(), bench.venue.http_url());
    let wrong = format!("endpoint = {{ ws = \"{ws}\", http = \"{http}\", testnet = false }}\n{QUICK}");
    let wrong =
        bench.pipeline(&wrong, "").replace("name = \"eth\"", "name = \"wrong\"").replace("eth.sqlite", "w.sqlite");
    bench.write("wrong.toml", &wrong);
    let mut program = bench.run_all();
    let failed = |report: &Value| report["checks"]["wrong/source.deribit"]["status"] == "failed";
    let report = program.until("the source has failed", failed).await;
    let why = report["checks"]["wrong/source.deribit"]["reason"].as_str().unwrap();
    assert!(why.contains("the test exchange answers: nothing is stored"), "{why}");
    program.until_logged(why).await;
    program.until_committed(500).await;
    assert_eq!(program.get("/health").await.0, 503, "something needs a person");
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_line_is_found_by_its_pings_and_the_gap_is_filled() {
    let source = format!("{QUICK}ping = {{ every = \"300ms\", timeout = \"300ms\" }}\n");
    let bench = Bench::start(busy(500.0), &source, "").await;
    let mut program = bench.run();
    program.until_committed(500).await;
    bench.until_it_hits(&mut program, &Fault::HalfOpen).await;
    // One that nobody hears.
    assert!(bench.venue.make_trade(&bench.venue.read(most_traded_option)));
    program.until_logged("connection lost: ").await;
    let comparison = bench.settle(&mut program).await;
    comparison.assert_exact(&program.log());
    assert!(bench.number("SELECT count(*) FROM trades WHERE origin = 'backfill'").await > 0);
    assert!(program.log().contains("connection lost: no pong"), "the reason is said; the log:\n{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_refused_without_a_word_is_reported_by_name() {
    let source = format!("{QUICK}channels = [\"trades\", \"tickers\"]\ninstruments = [\"ETH-PERPETUAL\"]\n");
    let bench = Bench::start(busy(500.0), &source, "").await;
    bench.venue.inject(Fault::Lasting(Condition::Refuse { containing: "ticker.ETH-PERPETUAL".to_owned() }, LONG));
    let mut program = bench.run();
    // The number and the word of it come one after the other.
    let refused = |report: &Value| {
        source_of(report)["subscriptions"]["refused"] == 1 && reason(report).contains("ticker.ETH-PERPETUAL.100ms")
    };
    let report = program.until("one channel is refused", refused).await;
    assert_eq!(source_of(&report)["subscriptions"]["wanted"], 2);
    program.until_logged("ticker.ETH-PERPETUAL.100ms").await;
    bench.until_number(&mut program, "SELECT count(*) FROM trades", 20).await;
    assert_eq!(bench.number("SELECT count(*) FROM tickers").await, 0, "the other channel goes on");
    bench.venue.mend();
    bench.until_number(&mut program, "SELECT count(*) FROM tickers", 1).await;
    let report = program.until("it is healthy", |report| source_of(report)["status"] == "healthy").await;
    assert_eq!(source_of(&report)["subscriptions"]["refused"], 0, "it was asked for again by itself");
    assert_eq!(bench.venue.read(|oracle| oracle.sessions.len()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_brings_nothing_is_counted_and_named_until_it_speaks_and_degrades_nothing() {
    let (traded, quiet) = ("ETH-25DEC26-9000-C", "ETH-25DEC26-9100-C");
    let source =
        format!("{QUICK}quiet_after = \"1s\"\nchannels = [\"trades\"]\ninstruments = [\"{traded}\", \"{quiet}\"]\n");
    let config = SimulatorConfig { paused: true, ..SimulatorConfig::default() };
    let bench = Bench::start(config, &source, "").await;
    assert!([traded, quiet].iter().all(|name| bench.venue.list(name)));
    let mut program = bench.run();
    program.until("subscribed", |report| source_of(report)["subscribed"] == true).await;
    let quiet_channel = format!("trades.{quiet}.100ms");
    // The venue makes what a test makes: one instrument is traded all the time, for the other nothing comes.
    let mut until_quiet = async |speaking: &[&str], count: u64| {
        let deadline = Instant::now() + support::PATIENCE;
        loop {
            assert!(speaking.iter().all(|name| bench.venue.make_trade(name)));
            let report = program.next_report().await;
            if source_of(&report)["subscriptions"]["quiet"] == count {
                return report;
            }
            assert!(Instant::now() < deadline, "never {count} quiet: {report:#}");
        }
    };
    let report = until_quiet(&[traded], 1).await;
    assert_eq!(source_of(&report)["quiet_channels"], serde_json::json!([quiet_channel]));
    assert_eq!(source_of(&report)["status"], "healthy", "nobody may have traded it");
    assert_eq!(reason(&report), "2 of 2 channels subscribed, 1 of them quiet");
    let report = until_quiet(&[traded, quiet], 0).await;
    assert!(source_of(&report)["quiet_channels"].is_null() && reason(&report).ends_with("channels subscribed"));
    until_quiet(&[traded], 1).await;
    let (_, text) = program.get("/metrics").await;
    let gauge =
        text.lines().find(|line| line.starts_with("tidegate_subscriptions{") && line.contains("state=\"quiet\""));
    assert!(gauge.is_some_and(|line| line.ends_with(" 1")), "{gauge:?}");
    let (_, log) = program.stop().await;
    for said in
        ["subscribed for 1s, but never a message", "again, after no message for 1s or more", "no message for 1s: "]
    {
        let line = log.lines().find(|line| line.contains(said));
        assert!(line.is_some_and(|line| line.contains(&quiet_channel)), "{said}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_put_off_is_asked_for_again_and_costs_nobody_else_a_line() {
    let source = format!("{QUICK}instruments = [{{ currency = \"ETH\", kind = \"option\" }}]\n");
    let bench = Bench::start(SimulatorConfig { instruments: 10, ..busy(500.0) }, &source, "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    bench.venue.inject(Fault::Lasting(Condition::PutOff { code: 10041 }, LONG));
    assert_eq!(bench.venue.inject(Fault::List), 1);
    let listed = bench.venue.read(|oracle| oracle.instruments.last().unwrap().instrument.name.clone());
    program.until_logged("neither confirmed nor refused").await;
    bench.venue.mend();
    bench
        .until_oracle(&mut program, "the new one is subscribed to", |oracle| {
            let all = &oracle.sessions[0].subscriptions;
            all.iter().any(|one| one.channel.starts_with(&format!("trades.{listed}.")))
        })
        .await;
    assert_eq!(bench.venue.read(|oracle| oracle.sessions.len()), 1, "the line was not touched");
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_an_instrument_that_nobody_follows_make_no_stream() {
    let bench = Bench::start(busy(500.0), QUICK, "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    let ticker = |channel: &str, name: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"ticker.{channel}.100ms","data":{{"timestamp":1790165113994,"instrument_name":"{name}","mark_price":1.5}}}}}}"#
        )
    };
    let followed = bench.venue.read(most_traded_option);
    let frames = [ticker("NO-SUCH", "NO-SUCH"), ticker(&followed, "NO-SUCH"), ticker(&followed, &"X".repeat(300_000))];
    for frame in frames {
        assert!(bench.venue.inject(Fault::Frame(frame)) > 0);
    }
    let deadline = Instant::now() + support::PATIENCE;
    while program.metric("tidegate_malformed_total").await < 2.0 || program.metric("tidegate_ignored_total").await < 1.0
    {
        assert!(Instant::now() < deadline, "not all are counted; the log:\n{}", program.log());
        program.next_report().await;
    }
    bench.settle(&mut program).await.assert_exact(&program.log());
    let strangers = "SELECT count(*) FROM tickers WHERE symbol NOT IN (SELECT symbol FROM trades) AND mark_price = 1.5";
    assert_eq!(bench.number(strangers).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_main_host_has_forgotten_comes_from_the_history_host() {
    let forgetful = SimulatorConfig { history: Duration::from_millis(1), ..busy(500.0) };
    let bench = Bench::start(forgetful, QUICK, "").await;
    let mut program = bench.run();
    program.until_committed(500).await;
    bench.venue.inject(Fault::Lasting(Condition::PlainHttp, LONG));
    bench.venue.inject(Fault::Cut);
    program.until("the connection is cut", |report| source_of(report)["connections"] == 0).await;
    let option = bench.venue.read(most_traded_option);
    assert!((0..5).all(|_| bench.venue.make_trade(&option)));
    bench.venue.mend();
    program.until_committed(1_000).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    let report = program.until("no gap is left", |report| source_of(report)["gaps"]["open"] == 0).await;
    assert_eq!(source_of(&report)["gaps"]["lost"], 0, "{report:#}");
    assert!(bench.number("SELECT count(*) FROM trades WHERE origin = 'backfill'").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_options_are_not_called_lost_where_no_host_remembers_their_last_trade() {
    let quiet = ["ETH-25DEC26-9000-C", "ETH-25DEC26-9100-C", "ETH-25DEC26-9200-C"];
    let config = SimulatorConfig { paused: true, ..SimulatorConfig::default() };
    let bench = Bench::start(config, "", "").await;
    let (ws, http) = (bench.venue.ws_url(), bench.venue.http_url());
    let source = format!(
        "{QUICK}endpoint = {{ ws = \"{ws}\", http = \"{http}\" }}\nchannels = [\"trades\"]\ninstruments = {quiet:?}\n"
    );
    bench.write("eth.toml", &bench.pipeline(&source, ""));
    assert!(quiet.iter().all(|name| bench.venue.list(name)));
    let mut program = bench.run();
    let settled = |report: &Value| source_of(report)["subscribed"] == true && source_of(report)["gaps"]["open"] == 0;
    program.until("subscribed, with its beginning known", settled).await;
    // Their last trades are thirty hours old.
    bench.venue.inject(Fault::Lasting(Condition::Skew { by_ms: -30 * 3_600_000 }, LONG));
    assert!(quiet.iter().all(|name| bench.venue.make_trade(name)));
    bench.until_number(&mut program, "SELECT count(*) FROM trades", 3).await;
    bench.venue.mend();
    for sessions in 2..4 {
        bench.venue.inject(Fault::Cut);
        let is_back = |oracle: &Oracle| oracle.sessions.len() >= sessions;
        bench.until_oracle(&mut program, "the line is back", is_back).await;
        let filled = |report: &Value| source_of(report)["gaps"]["filled"].as_u64() >= Some(3 * (sessions as u64 - 1));
        let report = program.until("every gap is answered", |report| filled(report) && settled(report)).await;
        assert_eq!(source_of(&report)["gaps"]["lost"], 0, "nothing was missed: {report:#}");
    }
    assert!(bench.venue.make_trade(quiet[0]));
    bench.until_number(&mut program, "SELECT count(*) FROM trades", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_nobody_can_read_are_kept_raw_and_counted_and_disturb_nothing() {
    let bench = Bench::start(busy(500.0), QUICK, "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let followed = bench.venue.read(most_traded_option);
    let wrong_type = format!(
        r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"ticker.{followed}.100ms","data":{{"timestamp":"marker-wrong-type"}}}}}}"#
    );
    let huge_number = format!(
        r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"trades.{followed}.100ms","data":[{{"trade_seq":1e400,"marker":"huge-number"}}]}}}}"#
    );
    let frames = [
        Fault::Malformed,
        Fault::Truncated,
        Fault::Binary,
        Fault::Frame(nested),
        Fault::Frame(wrong_type),
        Fault::Frame(huge_number),
        Fault::Frame("".to_owned()),
        Fault::Frame("marker-no-json".to_owned()),
    ];
    let sent = frames.len() as f64;
    let sessions = bench.venue.read(|oracle| oracle.sessions.len());
    for frame in frames {
        assert!(bench.venue.inject(frame) > 0);
    }
    let deadline = Instant::now() + support::PATIENCE;
    while program.metric("tidegate_malformed_total").await < sent {
        assert!(Instant::now() < deadline, "not all are counted; the log:\n{}", program.log());
        program.next_report().await;
    }
    program.until_committed(600).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    assert_eq!(bench.venue.read(|oracle| oracle.sessions.len()), sessions, "the session goes on");
    program.stop().await;
    let kept: Vec<String> =
        bench.dump().iter().filter(|item| item.to_string().contains("alformed")).map(Value::to_string).collect();
    assert!(kept.len() as f64 >= sent, "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_without_an_id_a_reply_nobody_asked_for_and_an_unknown_channel_change_nothing() {
    let bench = Bench::start(busy(500.0), QUICK, "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    for frame in [
        r#"{"jsonrpc":"2.0","error":{"code":11044,"message":"not_open_order"},"usIn":1,"usOut":2,"usDiff":1,"testnet":true}"#,
        r#"{"jsonrpc":"2.0","id":99999999,"result":["trades.ETH-PERPETUAL.100ms"],"testnet":true}"#,
        r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"weather.AMS.raw","data":{"rain":true}}}"#,
        r#"{"jsonrpc":"2.0","method":"never_heard_of","params":{}}"#,
        "{}",
    ] {
        assert!(bench.venue.inject(Fault::Frame(frame.to_owned())) > 0);
    }
    program.until_committed(900).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_too_long_ends_the_session_and_the_gap_is_filled() {
    let source = format!("{QUICK}max_message = \"1MiB\"\n");
    let bench = Bench::start(busy(500.0), &source, "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    assert!(bench.venue.inject(Fault::Oversized { bytes: 2 << 20 }) > 0);
    program.until_logged("connection lost: ").await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    let log = program.log();
    let said = log.lines().find(|line| line.contains("connection lost: ")).unwrap();
    assert!(said.contains("is longer than `max_message` allows"), "why is said: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_stay_open_while_the_api_fails_and_are_filled_when_it_is_back() {
    for condition in
        [Condition::RestDown, Condition::Http5xx, Condition::Http429 { retry_after: Duration::from_secs(1) }]
    {
        let bench = Bench::start(busy(500.0), QUICK, "").await;
        let mut program = bench.run();
        program.until_committed(300).await;
        program.until("nothing is missing", |report| source_of(report)["gaps"]["open"] == 0).await;
        bench.venue.inject(Fault::Lasting(condition.clone(), LONG));
        bench.venue.inject(Fault::Cut);
        // One that nobody hears.
        assert!(bench.venue.make_trade(&bench.venue.read(most_traded_option)));
        let is_open = |report: &Value| source_of(report)["gaps"]["open"].as_u64() > Some(0);
        let before = program.until("gaps are open", is_open).await;
        let rows = sink_of(&before)["rows_committed"].as_u64().unwrap();
        program.until_committed(rows + 500).await;
        let report = program.until("gaps are open still", is_open).await;
        assert_eq!(source_of(&report)["gaps"]["lost"], 0, "{condition:?}: {report:#}");
        let comparison = bench.settle(&mut program).await;
        comparison.assert_exact(&program.log());
        program.until("no gap is left", |report| source_of(report)["gaps"]["open"] == 0).await;
        assert!(bench.number("SELECT count(*) FROM trades WHERE origin = 'backfill'").await > 0, "{condition:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_lags_behind_the_feed_loses_nothing() {
    let bench = Bench::start(busy(500.0), QUICK, "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    bench.venue.inject(Fault::Lasting(Condition::RestLag { by: Duration::from_millis(800) }, LONG));
    for rows in [600, 900, 1_200] {
        bench.venue.inject(Fault::Cut);
        program.until_committed(rows).await;
    }
    // Frozen, but not mended: what the API does not show yet is owed all the same.
    bench.venue.freeze();
    bench.until_complete(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_venue_that_numbers_its_trades_anew_loses_none_and_doubles_none() {
    let bench = Bench::start(busy(500.0), QUICK, "").await;
    let mut program = bench.run();
    program.until_committed(500).await;
    for rows in [800, 1_100, 1_400] {
        // It hits an instrument whose trades somebody gets, so not before the connection is back.
        for _ in 0..2 {
            bench.until_it_hits(&mut program, &Fault::Restart).await;
        }
        program.until_committed(rows).await;
        bench.venue.inject(Fault::Cut);
        program.until_committed(rows + 200).await;
    }
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_trade_of_a_stream_during_a_cut_is_stored() {
    let quiet = "ETH-25DEC26-9000-C";
    let source = format!("{QUICK}channels = [\"trades\"]\ninstruments = [\"{quiet}\"]\n");
    let config = SimulatorConfig { paused: true, ..SimulatorConfig::default() };
    let bench = Bench::start(config, &source, "").await;
    assert!(bench.venue.list(quiet));
    let mut program = bench.run();
    let settled = |report: &Value| source_of(report)["subscribed"] == true && source_of(report)["gaps"]["open"] == 0;
    program.until("subscribed, with its beginning known", settled).await;
    bench.venue.inject(Fault::Lasting(Condition::PlainHttp, LONG));
    bench.venue.inject(Fault::Cut);
    program.until("the connection is cut", |report| source_of(report)["connections"] == 0).await;
    assert!(bench.venue.make_trade(quiet));
    bench.venue.mend();
    bench.until_number(&mut program, "SELECT count(*) FROM trades WHERE origin = 'backfill'", 1).await;
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_venue_whose_clock_is_wrong_loses_nothing() {
    let bench = Bench::start(busy(500.0), QUICK, "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    for (by_ms, rows) in [(-1_500, 600), (2_500, 900)] {
        bench.venue.mend();
        bench.venue.inject(Fault::Lasting(Condition::Skew { by_ms }, LONG));
        program.until_committed(rows).await;
        bench.venue.inject(Fault::Cut);
        program.until_committed(rows + 300).await;
    }
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_row_is_stored_once_and_a_book_that_breaks_begins_anew() {
    let source = format!(
        "{QUICK}channels = [\"trades\", \"tickers\", \"quotes\", \"book_changes\", \"index_prices\", \
         \"instrument_status\"]\ninstruments = [{{ currency = \"ETH\", kind = \"option\", top = 8 }}, \
         \"ETH-PERPETUAL\"]\n"
    );
    let bench = Bench::start(busy(500.0), &source, "").await;
    let mut program = bench.run();
    program.until_committed(1_000).await;
    for rows in [1_500, 2_000, 2_500] {
        assert!(bench.venue.inject(Fault::SkipBook) > 0);
        program.until_committed(rows).await;
    }
    bench.venue.inject(Fault::List);
    program.until_committed(3_000).await;
    bench.venue.freeze();
    bench.until_number(&mut program, "SELECT count(*) FROM instrument_status", 1).await;
    bench.venue.settle().await;
    let totals = bench.venue.read(Oracle::totals);
    assert_eq!(totals.sessions, 1, "a broken book costs no line");
    let comparison = bench.until_complete(&mut program).await;
    comparison.assert_exact(&program.log());
    assert_eq!((comparison.quotes.stored, comparison.books.stored), (totals.quotes_sent, totals.books_sent));
    program.stop().await;

    assert_eq!(bench.number("SELECT count(*) FROM book_changes WHERE snapshot").await, 9 + 3, "each break is mended");
    let loose = "SELECT count(*) FROM (SELECT snapshot, prev_seq, lag(seq) OVER w AS before FROM book_changes \
                 WINDOW w AS (PARTITION BY symbol, chain ORDER BY rowid)) WHERE NOT snapshot AND before IS NOT prev_seq";
    assert_eq!(bench.number(loose).await, 3, "all but the three broken ones follow what is before them");
    assert!(bench.number("SELECT count(*) FROM index_prices").await > 0);
    assert_eq!(bench.number("SELECT count(*) - count(DISTINCT ts_event) FROM index_prices").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_that_a_list_of_faults_names_is_the_one_with_which_the_venue_closes() {
    let bench = Bench::start(busy(500.0), "", "").await;
    for (fault, code) in [("close:1008", "1008"), ("close:4001", "4001"), ("close", "1001")] {
        let faults = format!("{fault}=120/m");
        let mut venue = Program::start(bench.folder(), &["simulate", "deribit", "--faults", &faults]);
        venue.until("its address", |line| line.as_str().is_some_and(|line| line.starts_with("endpoint = "))).await;
        let printed = venue.printed();
        let endpoint = printed.lines().find(|line| line.starts_with("endpoint = ")).unwrap();
        assert!(printed.contains(&faults), "it says what goes wrong: {printed}");
        // A pipeline of its own: another venue numbers anew.
        let text = bench.pipeline(&format!("{endpoint}\n{QUICK}"), "").replace("\"eth\"", &format!("\"eth{code}\""));
        bench.write("eth.toml", &text.replace("eth.sqlite", &format!("eth{code}.sqlite")));
        let mut program = bench.run();
        program.until_logged(&format!("closed with {code}")).await;
        let log = program.log();
        assert_eq!(log.matches("closed with ").count(), log.matches(&format!("closed with {code}")).count(), "{log}");
        program.stop().await;
        venue.signal("INT");
        assert_eq!(venue.ended().await.0, 0);
    }
}

async fn degraded(program: &mut Program) -> Value {
    program.until("the source is degraded", |report| source_of(report)["status"] == "degraded").await
}

fn sink_of(report: &Value) -> &Value {
    &report["checks"]["eth/sink.sqlite"]
}

fn reason(report: &Value) -> &str {
    source_of(report)["reason"].as_str().unwrap()
}
