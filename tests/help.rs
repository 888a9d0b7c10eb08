//! The pages of `--help`: every command that there is has examples, and each of them runs as it is shown.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use support::{Bench, Program, tidegate};
use tidegate_sources::deribit::simulator::SimulatorConfig;

/// Every command. Those that look at what `run` leaves behind come after it, and before `new` makes another pipeline of the
/// file.
const IN_ORDER: [&str; 26] = [
    "",
    "run",
    "coverage",
    "verify",
    "check",
    "list",
    "schema",
    "graph",
    "spool",
    "spool inspect",
    "spool verify",
    "spool dump",
    "spool rename",
    "deadletter",
    "deadletter list",
    "deadletter show",
    "deadletter redrive",
    "capture",
    "capture numbers",
    "adopt",
    "sink",
    "sink rename",
    "sink forget",
    "new",
    "simulate",
    "demo",
];

#[test]
fn every_command_has_a_page_with_examples_that_are_run_below() {
    let folder = tempfile::tempdir().unwrap();
    let there = commands(folder.path(), "");
    assert_eq!(there, IN_ORDER.map(str::to_owned).into(), "say in IN_ORDER when the examples of a new command are run");
    for command in there {
        assert!(!examples(folder.path(), &command).is_empty(), "`tidegate {command} --help` has no example");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_every_help_runs() {
    let bench = Bench::start(SimulatorConfig::default(), "capture = {}", "").await;
    let host = "listen = \"127.0.0.1:0\"\n[log]\nformat = \"human\"\n";
    fs::create_dir_all(bench.path("hosts")).unwrap();
    fs::create_dir_all(bench.path("pipelines")).unwrap();
    bench.write("hosts/this-one.toml", host);
    bench.write("pipelines/tidegate.toml", host);
    let shipped = bench.pipeline("", "").replace("name = \"eth\"", "name = \"deribit-eth-options\"");
    let shipped = shipped.replace("eth.sqlite", "deribit-eth-options.sqlite");
    bench.write("pipelines/deribit-eth-options.toml", &shipped);
    let mut ran = BTreeSet::new();
    for command in IN_ORDER {
        for example in examples(bench.folder(), command) {
            // What stands on several pages is run once.
            if ran.insert(example.clone()) {
                println!("tidegate {example}");
                run_example(&bench, &example).await;
            }
        }
    }
    assert!(ran.len() > 25, "only {} examples", ran.len());
}

#[test]
fn no_page_is_wider_than_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tidegate.toml"), "").unwrap();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut pages: Vec<Vec<String>> = IN_ORDER.iter().map(|command| words(&format!("{command} --help"))).collect();
    for name in ["", "deribit", "sqlite", "file", "stdout", "pipeline", "spool", "host", "replay", "breaker"] {
        pages.push(words(&format!("list {name}")));
    }
    for width in [60, 80] {
        for page in &pages {
            let mut program = Command::new(env!("CARGO_BIN_EXE_tidegate"));
            let output =
                program.args(page).env("COLUMNS", width.to_string()).current_dir(folder.path()).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(!text.is_empty(), "{page:?}: {}", String::from_utf8_lossy(&output.stderr));
            // What is to be pasted into a file, or into a shell, is not broken.
            let is_pasted = |line: &&str| line.starts_with("  instruments = ") || line.starts_with("  tidegate ");
            for line in text.lines().filter(|line| !is_pasted(line)) {
                assert!(line.chars().count() <= width, "{page:?} at {width}: {line}");
            }
        }
    }
}

/// Returns the command and all below it, as the program's own pages name them.
fn commands(folder: &Path, command: &str) -> BTreeSet<String> {
    let help = help(folder, command);
    let below = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What a name means may go on in the next line, farther in.
    let names = below.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let names = names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help");
    let all = names.flat_map(|name| commands(folder, format!("{command} {name}").trim()));
    all.chain([command.to_owned()]).collect()
}

/// Returns what stands behind `tidegate` in the examples of a command's page.
fn examples(folder: &Path, command: &str) -> Vec<String> {
    help(folder, command).lines().filter_map(|line| line.strip_prefix("  tidegate ").map(str::to_owned)).collect()
}

fn help(folder: &Path, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
    let ran = tidegate(folder, &words);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.printed
}

/// Runs an example as a shell does. What goes on until Ctrl-C gets one.
async fn run_example(bench: &Bench, example: &str) {
    let words: Vec<&str> = example.split_whitespace().map(|word| word.trim_matches('\'')).collect();
    match words[..] {
        ["demo", ..] => {
            // As shown, but for fewer kills, and with an end.
            let words = words.iter().map(|word| if *word == "20" { "3" } else { word });
            let end = ["--for", "2s"].into_iter().filter(|_| !example.contains("--for"));
            let ran = tidegate(bench.folder(), &words.chain(end).collect::<Vec<_>>());
            assert_eq!(ran.code, 0, "{example}: {ran:?}");
            let text = ran.printed;
            assert!(text.contains("   missing 0   twice 0\n") && text.contains("   holes   0   twice 0\n"), "{text}");
        }
        ["run", ..] => {
            let mut program = Program::start(bench.folder(), &words);
            program.until_logged("healthy").await;
            program.signal("INT");
            let (code, log) = program.ended().await;
            assert_eq!(code, 0, "{example}:\n{log}");
        }
        ["simulate", ..] if !example.contains("--for") => {
            // The same seed and faults, on a port that is free.
            let words: Vec<&str> =
                words.iter().map(|word| if word.contains(":8765") { "127.0.0.1:0" } else { word }).collect();
            let mut program = Program::start(bench.folder(), &words);
            program.next_report().await;
            program.signal("INT");
            assert_eq!(program.ended().await.0, 0, "{example}");
        }
        ["adopt", ..] | ["sink", ..] | ["spool", "rename", ..] => run_remedy(&words).await,
        _ => {
            let output = in_a_shell(bench.folder(), example);
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{example}: {said}");
        }
    }
}

/// Runs an example that changes what an accident has left: where nobody can be asked it changes nothing without `--yes`, and
/// with it the pipeline goes on.
async fn run_remedy(words: &[&str]) {
    let bench = after_an_accident(words).await;
    if !words.contains(&"--yes") {
        let unconfirmed = tidegate(bench.folder(), words);
        assert_eq!(unconfirmed.code, 2, "{words:?}: {unconfirmed:?}");
        assert!(unconfirmed.said.contains("nothing was changed: to have it done, say --yes"), "{unconfirmed:?}");
    }
    let done = tidegate(bench.folder(), &[words, &["--yes"][usize::from(words.contains(&"--yes"))..]].concat());
    assert_eq!(done.code, 0, "{words:?}: {done:?}");
    let (_, next) = done.printed.split_once("done; next: tidegate ").unwrap_or_else(|| panic!("{words:?}: {done:?}"));
    let mut program = Program::start(bench.folder(), &next.split_whitespace().collect::<Vec<_>>());
    program.until_logged("healthy").await;
    program.signal("INT");
    let (code, log) = program.ended().await;
    assert_eq!(code, 0, "{words:?}:\n{log}");
}

/// Returns a pipeline that has stored something, was stopped, and then met what the example is for.
async fn after_an_accident(words: &[&str]) -> Bench {
    let bench = Bench::start(SimulatorConfig::default(), "", "").await;
    let mut program = bench.run();
    program.until_committed(50).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let text = bench.pipeline("", "");
    match words {
        ["adopt", ..] => {
            let mut store = bench.connection().await;
            sqlx::query("DELETE FROM tidegate_position").execute(&mut store).await.unwrap();
        }
        ["sink", "rename", ..] => {
            bench.write("eth.toml", &text.replace("[sink.sqlite]", "[sink.archive]\ntype = \"sqlite\""))
        }
        ["sink", "forget", ..] => {
            let (source, _) = text.split_once("[sink.sqlite]").unwrap();
            bench.write("eth.toml", &format!("{source}[sink.file]\npath = \"out\"\n"));
        }
        ["spool", "rename", ..] => {
            fs::remove_file(bench.path("eth.toml")).unwrap();
            bench.write("ether.toml", &text.replace("name = \"eth\"", "name = \"ether\""));
        }
        other => panic!("what is `{other:?}` for?"),
    }
    bench
}

fn in_a_shell(folder: &Path, example: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("tidegate {example}")]).env("PATH", path).current_dir(folder).stdin(Stdio::null());
    shell.output().unwrap()
}
