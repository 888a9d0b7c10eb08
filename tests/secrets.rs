//! No secret in any output: markers planted wherever a file can hold one, and everything that the program leaves searched.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use support::{Bench, Program};
use tidegate::catalog::Role;
use tidegate_sources::deribit::simulator::{Credentials, Fault, SimulatorConfig};

/// What nobody may ever read again.
const MARKERS: [&str; 4] = ["hunter2-by-variable", "hunter2-by-file", "hunter2-by-address", "hunter2-of-the-host"];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_an_output_a_page_or_a_file() {
    for place in ["\"${KEY}\"", "{ file = \"key\" }"] {
        let secret = if place.contains("KEY") { MARKERS[0] } else { MARKERS[1] };
        let credentials = Credentials { client_id: "me".to_owned(), client_secret: secret.to_owned() };
        let config = SimulatorConfig { rate: 500.0, credentials: Some(credentials), ..SimulatorConfig::default() };
        let source = format!("client_id = \"me\"\nclient_secret = {place}\ninterval = \"raw\"\ncapture = {{}}\n");
        let bench = Bench::start(config, &source, "").await;
        bench.write("key", MARKERS[1]);
        bench.write("key-of-host", MARKERS[3]);
        let token = if place.contains("KEY") { "\"${TOKEN}\"" } else { "{ file = \"key-of-host\" }" };
        bench.write("tidegate.toml", &format!("listen = \"127.0.0.1:0\"\ntoken = {token}\n"));
        let mut program = run(&bench);
        // The key is used: without it the venue refuses `raw`.
        program.until_committed(200).await;
        bench.venue.inject(Fault::Cut);
        bench.venue.inject(Fault::Malformed);
        program.until_committed(500).await;
        let deadline = tokio::time::Instant::now() + support::PATIENCE;
        while program.ask("/health/ready", &format!("Bearer {}", MARKERS[3])).await.0 != 200 {
            assert!(tokio::time::Instant::now() < deadline, "{}", program.log());
            program.next_report().await;
        }
        let mut pages = Vec::new();
        for path in ["/health", "/health/ready", "/metrics"] {
            let (status, _, page) = program.ask(path, &format!("Bearer {}", MARKERS[3])).await;
            assert_eq!(status, 200, "{page}");
            pages.push(page);
            for authorization in ["", "Bearer another"] {
                let (status, head, body) = program.ask(path, authorization).await;
                assert_eq!(status, 401, "{body}");
                pages.push(head + &body);
            }
        }
        pages.push(program.next_report().await.to_string());
        program.signal("USR1");
        let (_, log) = program.stop().await;
        assert!(log.contains("connected"), "{log}");
        assert_no_marker("the log", &log);
        pages.iter().for_each(|page| assert_no_marker("a page", page));
        look_at_commands(&bench);
        look_at_files(&bench);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_a_panic() {
    for key in ["\"${KEY}\"", "{ file = \"key\" }"] {
        let bench = Bench::start(SimulatorConfig::default(), "", "").await;
        bench.write("key", MARKERS[1]);
        let path = bench.path("eth.sqlite");
        let source = format!("[pipeline]\nname = \"eth\"\n[source.faulty]\nrows = 3\nkey = {key}\n");
        bench.write("eth.toml", &format!("{source}[sink.sqlite]\npath = \"{}\"\n", path.display()));
        let faulty = PathBuf::from(env!("CARGO_BIN_EXE_tidegate")).with_file_name("examples").join("faulty");
        assert!(faulty.exists(), "for one test alone: cargo build --example faulty");
        let args = ["run", "eth.toml", "--supervised", "50ms"];
        let mut program = Program::start_with(&faulty, bench.folder(), &args, &[("KEY", MARKERS[0])]);
        program.until_committed(6).await;
        let shown = "the source has a fault: FaultySource { rows: 3, key: Some(";
        program.until_logged(shown).await;
        let page = program.get("/health").await.1;
        assert!(page.contains(shown), "{page}");
        assert_no_marker("/health", &page);
        let (_, log) = program.stop().await;
        assert_no_marker("the log of a panic", &log);
        look_at_files(&bench);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_a_dead_letter() {
    let credentials = Credentials { client_id: "me".to_owned(), client_secret: MARKERS[0].to_owned() };
    let config = SimulatorConfig { rate: 500.0, credentials: Some(credentials), ..SimulatorConfig::default() };
    let source = "client_id = \"me\"\nclient_secret = \"${KEY}\"\ninterval = \"raw\"\n";
    let bench = Bench::start(config, source, "").await;
    let mut program = run(&bench);
    program.until_committed(100).await;
    let refuse = "CREATE TRIGGER no_sells BEFORE INSERT ON trades WHEN NEW.side = 'sell' \
                  BEGIN SELECT RAISE(ABORT, 'sells are not wanted'); END";
    sqlx::query(refuse).execute(&mut bench.connection().await).await.unwrap();
    let letters =
        |report: &serde_json::Value| report["checks"]["eth/deadletters.sqlite"]["dead_letters"].as_u64().unwrap_or(0);
    let report = program.until("rows are refused", |report| letters(report) >= 3).await;
    assert_no_marker("the report", &report.to_string());
    let (_, log) = program.stop().await;
    assert_no_marker("the log", &log);
    let file = bench.path("data/eth/sinks/sqlite").join("dead-letters.jsonl");
    let kept = fs::read_to_string(&file).unwrap_or_default();
    assert!(kept.contains("sells are not wanted"), "{}: {kept}", file.display());
    look_at_files(&bench);
    for args in [&["deadletter", "list", "eth.toml"][..], &["deadletter", "show", "eth.toml"]] {
        let said = command(bench.folder(), args);
        assert!(said.contains("sells are not wanted") || args[1] == "list", "{said}");
        assert_no_marker(&args.join(" "), &said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_whose_file_is_not_there_is_an_error_of_run_and_of_check_connect_with_its_line() {
    let source = "client_id = \"me\"\nclient_secret = { file = \"key\" }\n";
    let bench = Bench::start(SimulatorConfig::default(), source, "").await;
    let text = fs::read_to_string(bench.path("eth.toml")).unwrap();
    let line = 1 + text.lines().position(|line| line.starts_with("client_secret")).unwrap();
    let tidegate = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).current_dir(bench.folder()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    // A checker of files may stand where the secrets are not.
    assert_eq!(tidegate(&["check", "eth.toml"]).0, Some(0));
    for args in [&["check", "eth.toml", "--connect"][..], &["run", "eth.toml"]] {
        let (code, said) = tidegate(args);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("error: the secret in `key` cannot be read"), "{said}");
        assert!(said.contains(&format!("eth.toml:{line}:")) && said.contains("No such file"), "{said}");
    }
    bench.write("key", "  \n");
    assert!(tidegate(&["run", "eth.toml"]).1.contains("it is empty"));
    assert!(!bench.path("data").exists(), "nothing was started");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused_without_being_shown() {
    let credentials = Credentials { client_id: "me".to_owned(), client_secret: "another".to_owned() };
    let config = SimulatorConfig { credentials: Some(credentials), ..SimulatorConfig::default() };
    let source = "client_id = \"me\"\nclient_secret = \"${KEY}\"\ninterval = \"raw\"\n";
    let bench = Bench::start(config, source, "").await;
    let mut program = run(&bench);
    let is_ill = |report: &serde_json::Value| {
        matches!(report["checks"]["eth/source.deribit"]["status"].as_str(), Some("degraded" | "failed"))
    };
    let report = program.until("the key is refused", is_ill).await;
    assert_no_marker("the report", &report.to_string());
    let (_, log) = program.stop().await;
    assert_no_marker("the log", &log);
    look_at_files(&bench);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_an_address_is_hidden_also_in_errors() {
    let source = format!(
        "endpoint = {{ ws = \"ws://me:{0}@127.0.0.1:9\", http = \"http://me:{0}@127.0.0.1:9\" }}\n",
        MARKERS[2]
    );
    let bench = Bench::start(SimulatorConfig::default(), &source, "").await;
    look_at_commands(&bench);
    let mut program = run(&bench);
    for _ in 0..10 {
        let report = program.next_report().await;
        assert_no_marker("the report", &report.to_string());
    }
    let (_, log) = program.stop().await;
    assert_no_marker("the log", &log);
}

#[test]
fn a_literal_secret_is_warned_of_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[pipeline]\nname = \"eth\"\n[source.deribit]\ninstruments = [\"ETH-PERPETUAL\"]\nclient_id = \"me\"\n\
         client_secret = \"{}\"\nclient_secert = \"{}\"\n[sink.stdout]\n",
        MARKERS[0], MARKERS[1]
    );
    fs::write(folder.path().join("eth.toml"), text).unwrap();
    let said = command(folder.path(), &["check", "eth.toml"]);
    assert!(said.contains("eth.toml:6:"), "{said}");
    assert_no_marker("check", &said);
}

#[cfg(feature = "kafka")]
#[test]
fn a_secret_among_the_settings_of_a_client_library_is_warned_of_and_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (MARKERS[0], MARKERS[1]);
    let look = |name: &str, settings: &str, args: &[&str]| {
        let text = format!(
            "[pipeline]\nname = \"eth\"\n[source.deribit]\ninstruments = [\"ETH-PERPETUAL\"]\n[sink.kafka]\n\
             brokers = \"localhost:9092\"\n[sink.kafka.rdkafka]\n\"sasl.username\" = \"me\"\n{settings}\n"
        );
        fs::write(folder.path().join(name), text).unwrap();
        let said = command(folder.path(), &[args, &[name]].concat());
        assert_no_marker(&format!("{args:?} of {settings}"), &said);
        said
    };
    let literal = format!("\"sasl.password\" = \"{first}\"\n\"ssl.key.pem\" = \"\"\"{second}\n{second}\"\"\"");
    let said = look("literal.toml", &literal, &["check"]);
    assert_eq!(said.matches("warning: a secret stands in the file").count(), 2, "{said}");
    assert!(said.contains("literal.toml:9:") && said.contains("literal.toml:10:"), "{said}");
    for args in [&["check", "--resolved"][..], &["graph"]] {
        look("literal.toml", &literal, args);
    }
    let by_name = "\"sasl.password\" = \"${KEY}\"\n\"ssl.key.pem\" = { file = \"right.toml\" }";
    let said = look("right.toml", by_name, &["check"]);
    assert!(!said.contains("warning"), "{said}");
    for wrong in [
        format!("\"sasl.pasword\" = \"{first}\""),
        format!("\"ssl.key.pem\" = [\"{first}\"]"),
        format!("sasl.password = \"{first}\""),
        format!("\"sasl.oauthbearer.client.secrets\" = \"{first}\""),
    ] {
        let said = look("wrong.toml", &wrong, &["check"]);
        assert!(said.contains("wrong.toml:9:") && said.contains("error"), "{said}");
    }
}

/// Wrong or right: whatever stands in a secret's place is shown by no command, and by no page or log of a process whose
/// other pipelines run.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_any_shape_is_shown_nowhere() {
    let bench = Bench::start(SimulatorConfig::default(), "", "").await;
    let marker = MARKERS[2];
    let mut sources = Vec::new();
    let mut options = secret_options(bench.folder());
    assert!(options.contains(&"client_secret".to_owned()), "{options:?}");
    // An address is no secret where it does not belong; the password in it is, like those of `endpoint` below.
    options.retain(|option| option != "url");
    sources.push("url = \"wss://me:M@gateway\"".to_owned());
    for option in options {
        for value in [
            "\"M\"",
            "[\"M\"]",
            "{ value = \"M\" }",
            "{ file = [\"M\"] }",
            "{ file = { name = \"M\" } }",
            "{ value = { deep = [1, \"M\"] } }",
            "\"${UNSET:-M}\"",
            "\"${UNSET:-M}${UNSET_TOO}\"",
            "\"wss://me:M@gateway\"",
            "\"\"\"\nM\n\"\"\"",
            "20261126154500",
            "20261126154500.5",
            "2026112615450020261126154500",
            "[20261126154500]",
            "\"M\" 5",
            "[\"M\"",
        ] {
            sources.push(format!("client_id = \"me\"\n{option} = {value}"));
            sources.push(format!("client_id = \"me\"\n{option}x = {value}"));
        }
    }
    for value in [
        "\"M@gateway/ws\"",
        "{ ws = \"M@gateway/ws/\" }",
        "{ ws = \"M@gateway/ws/\", http = \"M\" }",
        "[\"M@gateway\"]",
    ] {
        sources.push(format!("endpoint = {}", value.replace('M', "wss://me:M")));
    }
    sources.push("channels = [\"wss://me:M@gateway/ws?x=1\"]\ninterval = \"wss://gateway/ws?token=M\"".to_owned());
    sources.push("quiet_after = \"wss://me:M@gateway\"\nsilence = \"wss://me:M@gateway\"".to_owned());
    let mut names = vec!["run".to_owned(), "eth.toml".to_owned()];
    for (number, source) in sources.iter().enumerate() {
        let name = format!("wrong-{number}.toml");
        let source = source.replace('M', marker);
        let text = format!(
            "[pipeline]\nname = \"wrong-{number}\"\n[source.deribit]\ninstruments = [\"wss://me:{marker}@x\"]\n{source}\n[sink.stdout]\n"
        );
        bench.write(&name, &text);
        for args in [&["check", &*name][..], &["check", &*name, "--resolved"], &["graph", &*name]] {
            assert_hidden(&format!("{} of\n{text}", args.join(" ")), &command(bench.folder(), args));
        }
        names.push(name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut program = Program::start(bench.folder(), &[&names[..], &["--supervised", "50ms"]].concat());
    program.until_committed(10).await;
    let page = program.get("/health").await.1;
    assert!(page.contains("wrong-0.toml"), "those that are refused are named: {page}");
    assert_hidden("/health", &page);
    let (_, log) = program.stop().await;
    assert_hidden("the log", &log);
}

/// Returns the options of the built-in components that hold secrets.
fn secret_options(folder: &Path) -> Vec<String> {
    let catalog = tidegate::built_in();
    let names = [Role::Source, Role::Sink].into_iter().flat_map(|role| catalog.names(role));
    let pages = names.map(|name| command(folder, &["list", name]));
    let lines: Vec<String> = pages.flat_map(|page| page.lines().map(String::from).collect::<Vec<_>>()).collect();
    let secrets = lines
        .iter()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.get(1) == Some(&"secret"));
    secrets.map(|words| words[0].to_owned()).collect()
}

fn assert_hidden(place: &str, text: &str) {
    assert_no_marker(place, text);
    assert!(!text.contains("20261126154500"), "a secret of digits stands in {place}:\n{text}");
}

fn look_at_commands(bench: &Bench) {
    let spool = "data/eth/spool";
    for args in [
        &["check", "eth.toml", "--resolved"][..],
        &["check", "eth.toml", "--connect"],
        &["graph", "eth.toml"],
        &["spool", "inspect", spool],
        &["spool", "dump", spool],
        &["deadletter", "list", "eth.toml"],
    ] {
        let said = command(bench.folder(), args);
        assert_no_marker(&args.join(" "), &said);
        if args.contains(&"--resolved") {
            assert!(said.contains("•••"), "{said}");
        }
    }
}

/// Searches every file but those that the user wrote.
fn look_at_files(bench: &Bench) {
    let mut files = Vec::new();
    collect(bench.folder(), &mut files);
    let is_own = |path: &Path| {
        path.ends_with("key")
            || path.ends_with("key-of-host")
            || path.extension().is_some_and(|extension| extension == "toml")
    };
    files.retain(|path| !is_own(path));
    assert!(files.iter().any(|path| path.extension().is_some_and(|extension| extension == "seg")), "{files:?}");
    for file in files {
        let mut text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        if file.extension().is_some_and(|extension| extension == "gz") {
            let unpacked = Command::new("gzip").arg("-dc").arg(&file).output().unwrap();
            text = String::from_utf8_lossy(&unpacked.stdout).into_owned();
            assert!(text.contains("subscribe") || text.contains("result"), "{}: nothing to search", file.display());
        }
        assert_no_marker(&file.display().to_string(), &text);
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

fn assert_no_marker(place: &str, text: &str) {
    for marker in MARKERS {
        assert!(!text.contains(marker), "`{marker}` stands in {place}:\n{text}");
    }
}

fn run(bench: &Bench) -> Program {
    let program = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let variables = [("KEY", MARKERS[0]), ("TOKEN", MARKERS[3])];
    Program::start_with(program, bench.folder(), &["run", "eth.toml", "--supervised", "50ms"], &variables)
}

/// Returns everything that a command prints.
fn command(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command
        .args(args)
        .current_dir(folder)
        .envs([("KEY", MARKERS[0]), ("TOKEN", MARKERS[3])])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
