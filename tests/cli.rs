//! The command line as a newcomer meets it: the real binary, in a folder of its own.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::{
    fs,
    ops::Range,
    path::Path,
    process::{Command, Output, Stdio},
};

use support::Bench;
use tempfile::TempDir;
use tidegate::{
    catalog::{Catalog, Role},
    config::{self, Environment, Files, Look},
};
use tidegate_sources::deribit::simulator::{Credentials, SimulatorConfig};

const GOOD: &str = "[pipeline]\nname = \"eth\"\n[source.deribit]\ninstruments = [\"ETH-PERPETUAL\"]\n\
                    [sink.sqlite]\npath = \"eth.sqlite\"\n";

#[test]
fn a_mistyped_command_suggests_the_right_one_and_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for (typed, meant) in [
        ("rum", "run"),
        ("chek", "check"),
        ("simulat", "simulate"),
        ("deadleter", "deadletter"),
        ("rnu", "run"),
        ("nwe", "new"),
        ("spool dmup", "dump"),
    ] {
        let output = tidegate(folder.path(), &typed.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains(&format!("'{meant}'")), "{typed}: {}", said(&output));
    }
    let output = tidegate(folder.path(), &["check", "--conect", "x.toml"]);
    assert!(said(&output).contains("--connect"), "{}", said(&output));
}

#[test]
fn the_version_is_that_of_the_package_and_the_help_has_the_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let output = tidegate(folder.path(), &["--version"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("tidegate {}\n", env!("CARGO_PKG_VERSION")));
    let help = said(&tidegate(folder.path(), &["--help"]));
    for wanted in ["Exit codes:", "LOG_LEVEL", "NO_COLOR", "  2  "] {
        assert!(help.contains(wanted), "{help}");
    }
}

#[test]
fn all_mistakes_of_all_files_come_in_one_go_each_with_its_place_and_a_remedy() {
    let folder = folder(&[
        (
            "a.toml",
            "[pipeline]\nname = \"a\"\nenabeld = true\n[source.deribit]\nsilense = { warn = \"10s\" }\n\
             instruments = [\"ETH-PERPETUAL\"]\nping = { every = 30 }\n[sink.sqlite]\npath = \"${NOBODY_SETS_THIS}\"\n",
        ),
        ("b.toml", "[pipeline]\nname = \"b\"\n[source.deribyt]\n[sink.sqlite]\npath = \"b.sqlite\"\n"),
        ("c.toml", "[pipeline]\nname = \"c\"\n[source.polygon]\n[sink.stdout]\n"),
        ("d.toml", "[pipeline\n"),
        ("e.toml", &GOOD.replace("[sink.sqlite]", "[sink.sqlite]\ntables = [\"tradez\"]")),
    ]);
    let output = tidegate(folder.path(), &["check", "."]);
    assert_eq!(output.status.code(), Some(2));
    let text = said(&output);
    for wanted in [
        "a.toml:3:1",
        "did you mean `enabled`?",
        "a.toml:5:1",
        "did you mean `silence`?",
        "a.toml:7:18",
        "has no unit",
        "a.toml:9:",
        "${NOBODY_SETS_THIS} is not set",
        "b.toml:3:",
        "did you mean `deribit`?",
        "c.toml:3:",
        "not in this version",
        "d.toml:1:",
        "e.toml:6:",
        "did you mean `trades`?",
        "in 5 of 5 files",
    ] {
        assert!(text.contains(wanted), "no `{wanted}` in:\n{text}");
    }
    for never in ["tidegate_core", "alloc::", "serde", "invalid type"] {
        assert!(!text.contains(never), "`{never}` is not for users:\n{text}");
    }
}

#[test]
fn the_exit_code_of_a_check_is_0_for_warnings_1_with_strict_and_2_for_errors() {
    let warned = GOOD.replace("path = \"eth.sqlite\"", "path = \"eth.sqlite\"\ntables = [\"tickers\"]");
    let folder = folder(&[("good.toml", GOOD), ("warned.toml", &warned), ("bad.toml", "nonsense")]);
    let code = |args: &[&str]| tidegate(folder.path(), &[&["check"], args].concat()).status.code();
    assert_eq!(code(&["good.toml", "--strict"]), Some(0));
    assert_eq!(code(&["warned.toml"]), Some(0));
    assert_eq!(code(&["warned.toml", "--strict"]), Some(1));
    assert_eq!(code(&["bad.toml"]), Some(2));
    assert_eq!(code(&["nowhere.toml"]), Some(2));
    assert_eq!(code(&[]), Some(2), "a file has to be named");
    let output = tidegate(folder.path(), &["run", "good.toml", "--only", "btc-*"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("no pipeline to run; there are: eth"), "{}", said(&output));
}

#[test]
fn list_shows_the_line_of_a_shipped_pipeline_for_every_option_that_it_sets() {
    let folder = folder(&[]);
    let path = "pipelines/deribit-eth-options.toml";
    let shipped = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let mut page = String::new();
    for name in ["pipeline", "deribit", "spool", "sqlite"] {
        page += &said(&tidegate(folder.path(), &["list", name]));
    }
    let mut shown = 0;
    for (number, line) in shipped.lines().enumerate().filter(|(_, line)| line.contains(" = ") && !line.starts_with('#'))
    {
        let key = line.split(" = ").next().unwrap();
        assert!(page.contains(&format!("{path}:{}: {key} =", number + 1)), "{line}\nin\n{page}");
        shown += 1;
    }
    assert!(shown > 10, "{shown}");
}

#[test]
fn a_pipe_gets_no_control_codes() {
    let folder = folder(&[("bad.toml", "[pipeline]\nnam = 1\n"), ("good.toml", GOOD)]);
    let commands: [&[&str]; 6] = [
        &["check", "bad.toml"],
        &["check", "good.toml", "--resolved"],
        &["list", "deribit"],
        &["new", "deribit", "sqlite"],
        &["--help"],
        &["rum"],
    ];
    for args in commands {
        assert!(!said(&tidegate(folder.path(), args)).contains('\u{1b}'), "{args:?}");
    }
}

#[test]
fn a_terminal_gets_colours_unless_they_are_unwanted() {
    let folder = folder(&[("bad.toml", "[pipeline]\nnam = 1\n")]);
    let wanted: [&[(&str, &str)]; 2] = [&[], &[("NO_COLOR", "")]];
    let unwanted: [&[(&str, &str)]; 2] = [&[("NO_COLOR", "1")], &[("TERM", "dumb")]];
    for args in [&["check", "bad.toml"][..], &["run", "bad.toml"], &["rum"]] {
        for (variables, coloured) in wanted.map(|one| (one, true)).into_iter().chain(unwanted.map(|one| (one, false))) {
            let Some(shown) = on_a_terminal(folder.path(), args, variables) else { return };
            assert!(shown.contains("unknown key") || shown.contains("unrecognized subcommand"), "{args:?}: {shown}");
            assert_eq!(shown.contains("\u{1b}["), coloured, "{args:?} with {variables:?}: {shown:?}");
        }
    }
}

#[test]
fn pages_keep_to_the_width_of_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    for width in ["60", "80", "200"] {
        let output = command(folder.path(), &["list", "deribit"]).env("COLUMNS", width).output().unwrap();
        let page = said(&output);
        let sentences = page.lines().filter(|line| line.starts_with("      "));
        let widest = sentences.map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width.parse().unwrap(), "{widest} of {width}:\n{page}");
    }
}

#[test]
fn list_shows_for_each_option_its_type_unit_default_and_meaning() {
    assert_eq!(config::undocumented(&tidegate::built_in()), Vec::<String>::new(), "an option without a doc comment");
    let folder = tempfile::tempdir().unwrap();
    let page = said(&command(folder.path(), &["list", "deribit"]).env("COLUMNS", "200").output().unwrap());
    let line = |key: &str| page.lines().find(|line| line.starts_with(&format!("  {key} "))).unwrap_or_default();
    for (key, wanted) in [
        ("ping.every", ["duration", "\"20s\"", "The pause between two pings"]),
        ("max_message", ["size", "\"16MiB\"", "A longer message ends the connection"]),
        ("client_secret", ["secret", "not set", "The secret of that key"]),
        ("rest.breaker.failures", ["whole number", "5", "So many failures in a row"]),
    ] {
        assert!(wanted.iter().all(|wanted| line(key).contains(wanted)), "{key}: `{}` in\n{page}", line(key));
    }
}

#[test]
fn what_is_not_there_is_said_to_be_planned_or_left_out_of_the_build() {
    let folder = tempfile::tempdir().unwrap();
    let list = said(&tidegate(folder.path(), &["list"]));
    let line = |head: &str| list.lines().find(|line| line.starts_with(head)).unwrap_or_default();
    assert!(!line("not in this version").contains("kafka"), "{list}");
    // A store that is also a source is named once.
    let left_out = usize::from(!cfg!(feature = "kafka"));
    assert_eq!(line("not in this build").matches("kafka (add --features kafka)").count(), left_out, "{list}");
    for name in ["polygon", "wallex"] {
        let output = tidegate(folder.path(), &["list", name]);
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains(&format!("`{name}` is not in this version")), "{}", said(&output));
    }
    let output = tidegate(folder.path(), &["new", "deribit", "sqlit"]);
    assert!(said(&output).contains("did you mean `sqlite`?"), "{}", said(&output));
    let mut without = Catalog::default();
    without.unavailable(Role::Source, "deribit", tidegate::catalog::Unavailable::Feature("deribit"));
    assert!(config::list(&without, Look::default()).contains("deribit (add --features deribit)"));
}

#[cfg(not(feature = "kafka"))]
#[test]
fn a_build_without_kafka_names_the_feature() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/deribit-eth-options-kafka.toml");
    let output = tidegate(tempfile::tempdir().unwrap().path(), &["check", file]);
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    assert!(said.contains("`kafka` is not in this build") && said.contains("--features kafka"), "{said}");
}

#[test]
fn a_new_pipeline_of_every_pair_passes_the_check_without_a_word() {
    let catalog = tidegate::built_in();
    let folder = tempfile::tempdir().unwrap();
    for source in catalog.names(Role::Source) {
        for sink in catalog.names(Role::Sink) {
            let made = tidegate(folder.path(), &["new", source, sink]);
            fs::write(folder.path().join("new.toml"), &made.stdout).unwrap();
            let output = tidegate(folder.path(), &["check", "new.toml", "--strict"]);
            if source == "kafka" && !["postgres", "timescale"].contains(&sink) {
                assert!(said(&output).contains("those that do are: postgres, timescale"), "{}", said(&output));
                continue;
            }
            assert_eq!(said(&output), "no errors in 1 file\n", "{source} → {sink}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_connect_dials_and_fails_where_nobody_answers() {
    let bench = Bench::start(SimulatorConfig::default(), "", "").await;
    let output = tidegate(bench.folder(), &["check", "eth.toml", "--connect"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("ok      eth/source.deribit") && text.contains("channels to subscribe to"), "{text}");
    assert!(text.contains("ok      eth/sink.sqlite") && text.contains("is not there yet; it will be made"), "{text}");
    assert!(!bench.database().exists() && !bench.path("data").exists(), "a check makes nothing");

    let nobody = bench.pipeline("endpoint = { ws = \"ws://127.0.0.1:9\", http = \"http://127.0.0.1:9\" }\n", "");
    bench.write("nobody.toml", &nobody);
    let output = tidegate(bench.folder(), &["check", "nobody.toml", "--connect"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("failed  eth/source.deribit"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_connect_logs_in_and_fails_where_the_run_would() {
    let credentials = Credentials { client_id: "an-id".into(), client_secret: "a-secret".into() };
    let config = SimulatorConfig { credentials: Some(credentials), ..SimulatorConfig::default() };
    let bench = Bench::start(config, "client_id = \"an-id\"\nclient_secret = { file = \"key\" }", "").await;
    for (key, code, word) in [
        (&b"a-secret\n"[..], 0, "ok      eth/source.deribit"),
        (b"wrong", 1, "mend `client_id` and `client_secret`, then restart"),
        (b"\xff\xfe", 2, "the secret in `key` cannot be read"),
    ] {
        fs::write(bench.path("key"), key).unwrap();
        let output = tidegate(bench.folder(), &["check", "eth.toml", "--connect"]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(word), "{word}: {text}");
    }
}

/// No dead keys: whatever a shipped file says, saying something else makes a difference, and so does not saying it.
#[test]
fn every_key_of_every_shipped_pipeline_changes_something() {
    let shipped = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")).unwrap();
    let files = shipped.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let mut values = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let before = resolved(&text);
        assert!(before.starts_with("host\n"), "{}: {before}", file.display());
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let line = without_comment(line);
            let Some((key, _)) = line.split_once('=') else { continue };
            // A blank line in its place: the numbers of the others stay.
            let mut others = vec![String::new()];
            others.extend(scalars(line).into_iter().map(|at| {
                values += 1;
                format!("{}{}{}", &line[..at.start], changed(&line[at.clone()]), &line[at.end..])
            }));
            // One secret looks like another.
            let here = format!("x.toml:{}", number + 1);
            let is_secret = before.lines().any(|shown| shown.contains("\"•••\"") && shown.contains(&here));
            for other in others.into_iter().take(if is_secret { 1 } else { usize::MAX }) {
                let mut whole = lines.clone();
                whole[number] = &other;
                let after = resolved(&whole.join("\n"));
                assert_ne!(before, after, "{}: `{}` is dead, `{other}` comes to the same", file.display(), key.trim());
            }
        }
    }
    assert!(values > 15, "{values} values");
}

/// Returns what a pipeline comes to, or its mistakes.
fn resolved(text: &str) -> String {
    let nobody: [(&str, &str); 0] = [];
    let loaded = config::load(&tidegate::built_in(), Files::of_text("x.toml", text), &Environment::new(nobody));
    if loaded.report.errors() > 0 {
        loaded.report.render(Look::default())
    } else {
        config::resolved(&loaded, Look::default())
    }
}

fn without_comment(line: &str) -> &str {
    let mut in_text = false;
    let end = line.find(|c: char| {
        in_text ^= c == '"';
        c == '#' && !in_text
    });
    &line[..end.unwrap_or(line.len())]
}

/// Returns where the texts, numbers and truths of a line stand: what is not the name of a key.
fn scalars(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = line.find('=').unwrap();
    while let Some(start) = line[at..].find(|c: char| c == '"' || c.is_ascii_alphanumeric()).map(|next| at + next) {
        let is_text = line[start..].starts_with('"');
        let is_end = |c: char| if is_text { c == '"' } else { !(c.is_ascii_alphanumeric() || c == '_') };
        let end = line[start + 1..].find(is_end).map_or(line.len(), |end| start + 1 + end + usize::from(is_text));
        if !line[end..].trim_start().starts_with('=') {
            found.push(start..end);
        }
        at = end;
    }
    found
}

/// Returns another value of the kind: another number, with the unit that it had, or another word.
fn changed(value: &str) -> String {
    let digit = value.find(|c: char| c.is_ascii_digit()).filter(|_| !value.contains('-'));
    match (value, digit) {
        ("true", _) => "false".to_owned(),
        ("false", _) => "true".to_owned(),
        (_, Some(digit)) => {
            let end = value[digit..].find(|c: char| !c.is_ascii_digit()).map_or(value.len(), |end| digit + end);
            let number: u64 = value[digit..end].parse().unwrap();
            format!("{}{}{}", &value[..digit], number + 1, &value[end..])
        }
        // The default of a variable is inside of its braces.
        (_, None) => match value.strip_suffix("}\"") {
            Some(variable) => format!("{variable}x}}\""),
            None => format!("{}x\"", value.trim_end_matches('"')),
        },
    }
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tidegate"))
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).current_dir(folder).stdin(Stdio::null()).env_remove("COLUMNS").env_remove("LOG_LEVEL");
    command
}

fn tidegate(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

/// Runs the program on a pseudo-terminal, and returns what is seen there; `None` where there is no program to make one.
fn on_a_terminal(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Option<String> {
    let line = format!("{} {}", binary().display(), args.join(" "));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(folder).stdin(Stdio::null()).env_remove("LOG_LEVEL");
    // Where CI is set, clap takes any terminal for one with colours.
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        script.env_remove(variable);
    }
    script.env("TERM", "xterm").envs(variables.iter().copied());
    match script.output() {
        Ok(output) => {
            assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            support::skipped(&format!("no `script` to make a terminal: {error}"));
            None
        }
    }
}

/// Returns everything that a command has printed.
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    text(&output.stdout) + &text(&output.stderr)
}
