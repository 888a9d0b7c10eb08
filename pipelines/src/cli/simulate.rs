//! `simulate`: a venue of one's own, until it is told to end.

use std::{
    io,
    process::ExitCode,
    time::{Duration, Instant},
};

use tidegate_core::config::nearest;
use tidegate_sources::deribit::simulator::{
    FAULT_NAMES, Faults, MOST_EVENTS, Oracle, Simulator, SimulatorConfig, Totals,
};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Outcome, SimulateArgs, print, text::grouped};

pub(super) fn run(args: &SimulateArgs) -> Outcome {
    if args.venue != VENUE {
        let meant = nearest(&args.venue, [VENUE]).map_or_else(String::new, |name| format!("did you mean `{name}`? "));
        let text = format!("no simulator of a venue `{}`; {meant}there is: {VENUE}", args.venue);
        return Err(Failure::usage(text));
    }
    let list = args.faults.as_deref().unwrap_or_default();
    if list == "help" {
        print(fault_names())?;
        return Ok(ExitCode::SUCCESS);
    }
    check_rate(args.rate)?;
    let config = SimulatorConfig {
        listen: args.listen,
        seed: args.seed,
        rate: args.rate,
        replay: args.replay.clone(),
        replay_speed: args.speed,
        sent: args.sent.clone(),
        faults: faults(list, args.fault_at.as_deref().unwrap_or_default())?,
        ..SimulatorConfig::default()
    };
    super::run::runtime()?.block_on(simulate(config, args.duration))
}

async fn simulate(config: SimulatorConfig, duration: Option<Duration>) -> Outcome {
    let began = Instant::now();
    // Before the first word: whoever reads it may answer with a signal.
    let stopped = stopped(duration)?;
    let (listen, sent) = (config.listen, config.sent.clone());
    let seed = config.seed;
    let about = about(&config);
    let simulator = Simulator::start(config).await.map_err(|error| {
        let file = sent.map_or_else(String::new, |file| format!(" with the file `{}`", file.display()));
        Failure::failed(format!("cannot start on {listen}{file}: {error}"))
    })?;
    let before = simulator.read(Oracle::totals);
    print(block(&simulator, &about))?;
    if let Some(first) = simulator.read(|oracle| oracle.seed).filter(|first| *first != seed) {
        print(format!(
            "the file was begun with seed {first}: its instruments and numbers go on, what follows is of seed {seed}\n"
        ))?;
    }
    let lacks = simulator.lacks();
    lacks.iter().try_for_each(|one| print(format!("{one}\n")))?;
    let played = async {
        simulator.played().await;
        simulator.lacks().iter().skip(lacks.len()).try_for_each(|one| print(format!("{one}\n")))?;
        print("the capture has been played: the venue is quiet from now on\n")?;
        std::future::pending().await
    };
    let failure = tokio::select! {
        () = stopped => None,
        failure = simulator.failed() => Some(failure),
        unshown = played => return unshown,
    };
    simulator.freeze();
    let made = since(simulator.read(Oracle::totals), before);
    let ended = failure.map_or(simulator.stop().await, Err);
    let shown = print(format!("{}\n", summary(&made, began.elapsed())));
    ended.map_err(|error| Failure::failed(unwritable(&error)))?;
    shown?;
    Ok(ExitCode::SUCCESS)
}

/// Listens for SIGINT and SIGTERM from now on, and returns what waits for them or for the end of `duration`.
fn stopped(duration: Option<Duration>) -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = tokio::time::sleep(duration.unwrap_or_default()), if duration.is_some() => {}
        }
    })
}

/// Refuses a rate that no simulator makes.
pub(super) fn check_rate(rate: f64) -> Result<(), Failure> {
    if SimulatorConfig::is_rate(rate) {
        return Ok(());
    }
    let most = grouped(MOST_EVENTS as u64);
    Err(Failure::usage(format!("--rate {rate} is not a number of events a second above 0 and up to {most}")))
}

/// Words why a simulator could not go on.
pub(super) fn unwritable(error: &io::Error) -> String {
    format!("the simulator had to stop, since what it sends cannot be written down: {error}")
}

/// Reads a list of rates and a script of faults; a mistake is answered with the nearest name.
fn faults(list: &str, script: &str) -> Result<Faults, Failure> {
    Faults::parse(list).and_then(|faults| faults.and_script(script)).map_err(|error| {
        let rated = list.split(',').map(|entry| entry.split_once('=').map_or(entry, |(name, _)| name).trim());
        let names = rated.chain(script.split(',').filter_map(|entry| Some(entry.split_once(':')?.1.trim())));
        let mut names = names.map(|name| name.split_once(':').map_or(name, |(name, _code)| name));
        let unknown = names.find(|name| !name.is_empty() && !FAULT_NAMES.contains(name));
        let meant = unknown.and_then(|name| nearest(name, FAULT_NAMES));
        let hint = meant.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
        Failure::usage(format!("{error}{hint}\n`tidegate simulate {VENUE} --faults help` says what each does"))
    })
}

fn fault_names() -> String {
    let mut page = "Faults, as in `--faults cut=4/m,silence=1/m` (a count for each s, m or h, on average) or\n\
         `--fault-at 5s:cut,12s:silence` (so long after the start):\n"
        .to_owned();
    for (name, about) in FAULTS {
        page.push_str(&format!("  {name:<14} {about}\n"));
    }
    page
}

fn about(config: &SimulatorConfig) -> String {
    let faults = if config.faults.is_empty() { "no faults".to_owned() } else { format!("faults: {}", config.faults) };
    let SimulatorConfig { seed, rate, replay_speed, .. } = config;
    let file = config.sent.as_ref().map_or_else(String::new, |file| format!("  sent      {}\n", file.display()));
    match &config.replay {
        Some(from) => format!("plays `{}` at {replay_speed}x, {faults}\n{file}", from.display()),
        None => format!("seed {seed}, {rate} events/s, {faults}\n{file}"),
    }
}

/// Returns what a user needs to connect.
fn block(simulator: &Simulator, about: &str) -> String {
    let (ws, http, history) = (simulator.ws_url(), simulator.http_url(), simulator.history_url());
    let address = simulator.addr();
    format!(
        "a simulated {VENUE} on {address}: {about}  ws        {ws}\n  http      {http}\n  history   {history}\n\
         into the table [source.{VENUE}] of a pipeline:\n{}\n",
        endpoint(simulator)
    )
}

/// Returns the line of a pipeline's file that makes it connect to a simulator.
pub(super) fn endpoint(simulator: &Simulator) -> String {
    let (ws, http, history) = (simulator.ws_url(), simulator.http_url(), simulator.history_url());
    format!("endpoint = {{ ws = \"{ws}\", http = \"{http}\", history = \"{history}\", testnet = true }}")
}

fn summary(made: &Totals, took: Duration) -> String {
    let Totals { trades_made, tickers_sent, quotes_sent, books_sent, sessions } = *made;
    format!(
        "ended after {:.1} s: made {} trades; sent {} tickers, {} quotes, {} book messages in {} sessions",
        took.as_secs_f64(),
        grouped(trades_made),
        grouped(tickers_sent),
        grouped(quotes_sent),
        grouped(books_sent),
        grouped(sessions),
    )
}

fn since(now: Totals, before: Totals) -> Totals {
    Totals {
        trades_made: now.trades_made - before.trades_made,
        tickers_sent: now.tickers_sent - before.tickers_sent,
        quotes_sent: now.quotes_sent - before.quotes_sent,
        books_sent: now.books_sent - before.books_sent,
        sessions: now.sessions - before.sessions,
    }
}

const VENUE: &str = "deribit";

/// What each name does, in the order in which the library has them.
const FAULTS: [(&str, &str); FAULT_NAMES.len()] = [
    ("cut", "the connection is reset, and what was on its way may be lost"),
    ("torn", "the connection is reset in the middle of a frame"),
    ("close", "the venue closes the session, with code 1001; close:1008 with that one"),
    ("silence", "half open: the socket stays, and nothing comes any more"),
    ("malformed", "a frame that is no JSON"),
    ("truncated", "a frame whose JSON ends in the middle"),
    ("oversized", "a frame of 17 MiB"),
    ("binary", "a binary frame"),
    ("duplicate", "a trade comes twice"),
    ("reorder", "two trades come in the wrong order"),
    ("skip", "a trade is made and not sent, the next one is"),
    ("skip_book", "a change of a book is made and not sent, the next one is"),
    ("restart", "an instrument's trades are numbered from 1 again"),
    ("expire", "an option expires before its time"),
    ("list", "an option is listed"),
    ("slow", "replies come 0.8 s late, for 2 s"),
    ("http_429", "REST answers 429 with Retry-After, for 2 s"),
    ("http_5xx", "REST answers 503, for 2 s"),
    ("rest_down", "REST connections are reset, for 2 s"),
    ("rest_lag", "REST does not know of trades until 0.5 s later, for 2 s"),
    ("refuse", "calls are silently left out of what is subscribed, for 2 s"),
    ("unauthorised", "every request is answered with error 13009, for 2 s"),
    ("skew", "the venue's clock is 1.5 s behind, for 2 s"),
    ("never_speak", "connections are accepted and never spoken to, for 2 s"),
    ("plain_http", "a WebSocket handshake gets a web page, for 2 s"),
    ("wrong_testnet", "replies say that it is the other venue, for 2 s"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_the_library_has_its_line() {
        assert_eq!(FAULTS.map(|(name, _)| name), FAULT_NAMES);
        assert!(fault_names().lines().all(|line| line.chars().count() <= 100));
    }

    #[test]
    fn a_mistyped_fault_is_answered_with_the_nearest() {
        let text = faults("cut=1/m, silense=1/m", "").unwrap_err().text;
        assert!(text.contains("unknown fault `silense`") && text.contains("did you mean `silence`?"), "{text}");
        let text = faults("cut", "").unwrap_err().text;
        let scripted = faults("cut=1/m", "5s:silense").unwrap_err().text;
        assert!(scripted.contains("did you mean `silence`?"), "{scripted}");
        assert!(text.starts_with("fault `cut` has no rate") && !text.contains("did you mean"), "{text}");
    }

    #[test]
    fn the_summary_counts_this_run_only() {
        let before = Totals { trades_made: 10, tickers_sent: 100, sessions: 1, ..Totals::default() };
        let now = Totals { trades_made: 1_250, tickers_sent: 9_100, sessions: 3, ..Totals::default() };
        let line = summary(&since(now, before), Duration::from_millis(9_960));
        assert_eq!(
            line,
            "ended after 10.0 s: made 1,240 trades; sent 9,000 tickers, 0 quotes, 0 book messages in 2 sessions"
        );
    }
}
