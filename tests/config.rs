//! The configuration of the built-in components: what is shipped, what `new` writes, and what the plan shows.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

#[path = "../core/tests/config/fits.rs"]
mod fits;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tidegate::{
    catalog::Role,
    config::{self, Environment, Files, Look},
};
use toml::de::{DeTable, DeValue};

#[test]
fn the_files_of_the_plan_are_read_but_for_what_does_not_exist_yet() {
    let syntax = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/syntax");
    let environment = Environment::new([("DATABASE_URL", "postgres://127.0.0.1/tidegate")]);
    let loaded = config::load(&tidegate::built_in(), Files::read(&[syntax], None), &environment);
    let lines: Vec<String> = loaded.report.lines().collect();
    assert!(!lines.is_empty());
    for line in &lines {
        // The last is a warning: the default of a password is one that everybody knows.
        let known = ["is not in this version", "is not in this build", "a secret stands"];
        assert!(known.iter().any(|known| line.contains(known)), "{line}\nof {lines:#?}");
    }
    let host = lines.iter().filter(|line| line.contains("/tidegate.toml:")).count();
    let wanted = if cfg!(feature = "kafka") { 2 } else { 3 };
    assert_eq!(host, wanted, "[notify], [alert] and, in a build without it, the defaults for kafka: {lines:#?}");
}

#[test]
fn what_is_shipped_gives_neither_an_error_nor_a_warning() {
    for file in shipped() {
        let loaded = config::load(&tidegate::built_in(), Files::read(&[file], None), &Environment::default());
        assert_eq!(loaded.report.exit_code(true), 0, "{}", loaded.report.render(Look::default()));
    }
}

#[cfg(all(feature = "timescale", feature = "questdb"))]
#[test]
fn how_long_a_table_is_kept_is_said_beside_its_name_where_the_store_can() {
    let check = |sink: &str| {
        let venue = "[source.deribit]\ninstruments = [\"ETH-PERPETUAL\"]\nchannels = [\"trades\"]\n";
        let text = format!("[pipeline]\nname = \"eth\"\n{venue}{sink}\n");
        let loaded = config::load(&tidegate::built_in(), Files::of_text("eth.toml", &text), &Environment::default());
        loaded.report.render(Look::default())
    };
    let url = "url = \"${DATABASE_URL:-postgres://127.0.0.1/feed}\"\n";
    let tables = "tables = { trades = { name = \"option_trades\", retention = \"90d\" } }";
    for sink in [
        format!("[sink.timescale]\n{url}{tables}"),
        format!("[sink.questdb]\nurl = \"http://127.0.0.1:9000\"\n{tables}"),
    ] {
        assert!(check(&sink).starts_with("no errors"), "{}", check(&sink));
    }
    for (sink, words) in [
        (format!("[sink.postgres]\n{url}{tables}"), "sink `postgres` keeps every row"),
        (format!("[sink.sqlite]\npath = \"eth.sqlite\"\n{tables}"), "sink `sqlite` keeps every row"),
        (format!("[sink.timescale]\n{url}times = \"bigint\"\n{tables}"), "it needs `times = \"timestamptz\"`"),
        (
            format!("[sink.timescale]\n{url}hypertables = {{ trades = {{ retention = \"1d\" }} }}\n{tables}"),
            "`hypertables.trades` says it too",
        ),
        (
            format!("[sink.questdb]\nurl = \"http://127.0.0.1:9000\"\n{}", tables.replace("90d", "90m")),
            "whole number of partitions",
        ),
    ] {
        let said = check(&sink);
        assert!(said.contains(words) && said.contains("90"), "{sink}\n{said}");
    }
}

/// What the log, a capture and a sink write, and what is said of it; the two columns are: whether the host is used, and whether
/// the pipeline is.
#[test]
fn neither_log_nor_capture_nor_sink_is_written_over_another_or_over_what_is_the_engines_however_it_is_spelt() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("data/eth")).unwrap();
    fs::create_dir_all(at("caps/eth/deribit")).unwrap();
    std::os::unix::fs::symlink(at("data"), at("link")).unwrap();
    std::os::unix::fs::symlink(at("caps/eth/deribit"), at("caps/eth/again")).unwrap();
    let check = |log: &str, capture: &str, sink: &str, environment: &Environment| {
        let log = if log.is_empty() { String::new() } else { format!("[log]\nfile = {{ path = \"{log}\" }}\n") };
        let host = format!("data_dir = \"AT/data\"\n{log}").replace("AT", &folder.path().display().to_string());
        fs::write(at("tidegate.toml"), host).unwrap();
        let source = |name: &str| {
            let capture =
                if capture.is_empty() { String::new() } else { format!("capture = {{ dir = \"{capture}\" }}\n") };
            format!("[source.{name}]\ntype = \"deribit\"\ninstruments = [\"ETH-PERPETUAL\"]\n{capture}")
        };
        let again = if capture == "AT/caps" && sink.is_empty() { source("again") } else { String::new() };
        let text =
            format!("[pipeline]\nname = \"eth\"\n{}{again}[sink.sqlite]\npath = \"AT/{sink}.db\"\n", source("deribit"));
        fs::write(at("eth.toml"), text.replace("AT", &folder.path().display().to_string())).unwrap();
        let loaded = config::load(&tidegate::built_in(), Files::read(&[at("eth.toml")], None), environment);
        let said = loaded.report.render(Look { width: 400, ..Look::default() });
        (loaded.host.is_some(), loaded.pipelines.len(), said)
    };
    let none = Environment::default();
    for (log, capture, sink, is_host, words) in [
        ("AT/link/eth/x.log", "", "rows", false, "tidegate.toml:3:"),
        ("AT/data/eth/../eth/x.log", "", "rows", false, "the engine's own files of pipeline `eth`"),
        ("AT/data", "", "rows", false, "write beside it: `tidegate.log`"),
        ("AT/eth.toml", "", "rows", false, "the log would be written over a file of the configuration"),
        ("AT/tidegate.toml", "", "rows", false, "the log would be written over a file of the configuration"),
        ("AT/rows.db", "", "rows", true, "the log and a sink of type `sqlite` have one path"),
        ("AT/caps", "AT/caps", "rows", true, "the log and a capture are in each other's way"),
        ("", "AT/data", "rows", true, "leave `dir` out"),
        ("", "AT/link", "rows", true, "eth.toml:6:"),
        ("", "AT/caps", "", true, "two captures have one path"),
        ("", "", "link/eth/ledger", true, "the engine's own files of pipeline `eth`"),
    ] {
        let (host, pipelines, said) = check(log, capture, sink, &none);
        assert!(said.contains(words), "no `{words}` for {log} {capture} {sink} in {said}");
        assert_eq!((host, host && pipelines == 0), (is_host, is_host), "{said}");
        assert!(said.contains("help: ") && said.contains('^'), "{said}");
    }
    let (host, pipelines, said) = check("AT/logs/x.log", "AT/caps", "rows", &none);
    assert!(host && pipelines == 1, "{said}");
    let path = at("link/eth/x.log").display().to_string();
    let (host, _, said) = check("", "", "rows", &Environment::new([("TIDEGATE_LOG_FILE_PATH", &*path)]));
    assert!(!host && said.contains("is set by the variable TIDEGATE_LOG_FILE_PATH"), "{said}");
}

#[test]
fn a_sink_writes_neither_into_the_engines_own_folder_nor_where_another_kind_does_nor_into_memory() {
    let venue = "[source.deribit]\ninstruments = [\"ETH-PERPETUAL\"]\n";
    let check = |sinks: &str| {
        let text = format!("[pipeline]\nname = \"eth\"\n{venue}{sinks}");
        let loaded = config::load(&tidegate::built_in(), Files::of_text("eth.toml", &text), &Environment::default());
        (loaded.pipelines.len(), loaded.report.render(Look::default()))
    };
    for path in ["data/eth/ledger.sqlite", "./data/eth/new.sqlite", "data/other/../eth/spool/x", "data/eth"] {
        for sink in ["sqlite", "file"] {
            let (pipelines, said) = check(&format!("[sink.{sink}]\npath = \"{path}\"\n"));
            assert_eq!(pipelines, 0, "{said}");
            for words in ["eth.toml:6:", "the engine's own files of pipeline `eth`", "write beside it: `rows/eth`"] {
                assert!(said.contains(words), "no `{words}` in {said}");
            }
        }
    }
    let (_, said) = check("[sink.file]\npath = \"data/{pipeline}\"\n");
    assert!(said.contains("the engine's own files of pipeline `eth`"), "{said}");

    let (pipelines, said) = check("[sink.file]\npath = \"x/eth\"\n[sink.sqlite]\npath = \"./x/../x/eth\"\n");
    assert_eq!(pipelines, 0, "{said}");
    assert!(said.contains("a sink of type `file` and a sink of type `sqlite` have one path"), "{said}");
    assert!(said.contains("eth.toml:8:"), "{said}");

    let (pipelines, said) = check("[sink.sqlite]\npath = \":memory:\"\n");
    assert_eq!(pipelines, 0, "{said}");
    assert!(said.contains("eth.toml:6:8") && said.contains("a store has to outlive it, name a file"), "{said}");

    for path in ["data/eth.sqlite", "data/rows/eth", "rows/eth", "data/ether/x"] {
        let (pipelines, said) = check(&format!("[sink.sqlite]\npath = \"{path}\"\n"));
        assert_eq!((pipelines, said.contains("no errors")), (1, true), "{said}");
    }
}

#[test]
fn a_key_that_changes_nothing_is_a_warning_with_its_line() {
    let text = "[pipeline]\nname = \"eth\"\n[source.deribit]\ninstruments = [\"ETH-PERPETUAL\"]\n\
                channels = [\"quotes\"]\ninterval = \"agg2\"\n[sink.stdout]\n";
    let loaded = config::load(&tidegate::built_in(), Files::of_text("eth.toml", text), &Environment::default());
    let said = loaded.report.render(Look::default());
    assert_eq!((loaded.pipelines.len(), loaded.report.warnings()), (1, 1), "{said}");
    assert!(said.contains("warning: `interval` changes nothing") && said.contains("eth.toml:6:12"), "{said}");
    assert_eq!((loaded.report.exit_code(false), loaded.report.exit_code(true)), (0, 1));
}

#[test]
fn what_is_a_key_of_a_source_is_no_type_for_new_and_the_answer_says_so() {
    let error = config::template(&tidegate::built_in(), "replay", "sqlite").unwrap_err().to_string();
    for words in ["`replay` is a key of a source", "[source.NAME]", "tidegate list replay", "types are: deribit"] {
        assert!(error.contains(words), "no `{words}` in {error}");
    }
}

#[test]
fn the_schema_takes_what_is_shipped_and_what_new_writes_and_refuses_a_slip() {
    let catalog = tidegate::built_in();
    let schema = config::schema(&catalog);
    let mut texts: Vec<String> = shipped().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    assert!(!texts.is_empty());
    for source in catalog.names(Role::Source) {
        for sink in catalog.names(Role::Sink) {
            texts.push(config::template(&catalog, source, sink).unwrap());
            texts.push(with_its_defaults(texts.last().unwrap()));
        }
    }
    for text in texts {
        let value = in_json(&DeValue::Table(DeTable::parse(&text).unwrap().into_inner()));
        assert!(fits::fits(&schema, &value), "{text}");
        for table in ["pipeline", "spool"] {
            let mut slipped = value.clone();
            slipped[table]["slip"] = 1.into();
            assert!(!fits::fits(&schema, &slipped), "{table}: {text}");
        }
        for role in ["source", "sink"] {
            let mut slipped = value.clone();
            let stages = slipped[role].as_object_mut().unwrap();
            stages.values_mut().for_each(|stage| stage["slip"] = 1.into());
            assert!(!fits::fits(&schema, &slipped), "{role}: {text}");
        }
    }
}

#[test]
fn every_default_that_a_new_pipeline_shows_is_one() {
    let catalog = tidegate::built_in();
    for source in catalog.names(Role::Source) {
        for sink in catalog.names(Role::Sink) {
            if source == "kafka" && !["postgres", "timescale"].contains(&sink) {
                continue;
            }
            let text = config::template(&catalog, source, sink).unwrap();
            let values = |text: &str| {
                let loaded = config::load(&catalog, Files::of_text("new.toml", text), &Environment::default());
                let said = loaded.report.render(Look::default());
                assert_eq!(said, "no errors in 1 file\n", "{source} → {sink}:\n{text}");
                let resolved = config::resolved(&loaded, Look { colours: false, width: 400 });
                resolved.lines().map(without_origin).collect::<Vec<_>>()
            };
            let written_out = with_its_defaults(&text);
            assert!(written_out.lines().filter(|line| !line.starts_with('#')).count() > 20, "{written_out}");
            assert_eq!(values(&text), values(&written_out), "{source} → {sink}");
        }
    }
}

#[test]
fn all_that_cannot_work_is_said_at_once_each_at_its_key() {
    let text = "[pipeline]\nname = \"x\"\n[source.deribit]\nclient_id = \"eth\"\nchannels = []\ninterval = \"fast\"\n\
                instruments = [\n\"two words\",\n{ currency = \"eth\" },\n{ currency = \"ETH\", by = \"volume\" },\n5,\n\
                { currency = \"any\", top = 5, leave_at = 2, refresh = \"1s\" },\n]\n\
                endpoint = { ws = \"http://x\", http = \"ws://x\", history = \"x\" }\n[sink.sqlite]\npath = \"\"\n";
    let loaded = config::load(&tidegate::built_in(), Files::of_text("x.toml", text), &Environment::default());
    let places: Vec<String> = loaded.report.lines().map(|line| line.split(": ").next().unwrap().to_owned()).collect();
    let wanted = [
        "4:13", "5:12", "6:13", "8:1", "9:14", "10:26", "11:1", "12:14", "12:41", "12:54", "14:19", "14:38", "14:58",
        "16:8",
    ];
    assert_eq!(places, wanted.map(|place| format!("x.toml:{place}")), "{}", loaded.report.render(Look::default()));
}

/// A path that is looked at would be missed here, and one that is opened to be written would be there.
#[test]
fn a_check_looks_at_no_path_that_the_files_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = "instruments = [\"ETH-PERPETUAL\"]\nclient_id = \"me\"\nclient_secret = { file = \"no/key\" }\n\
                  extra_ca = \"no/ca.pem\"\n";
    let text = format!(
        "[pipeline]\nname = \"x\"\n[source.deribit]\n{source}capture = {{ dir = \"no/capture\" }}\n\
         [source.played]\ntype = \"deribit\"\n{source}replay = {{ from = \"no/recording\" }}\n[sink.sqlite]\npath = \"no/x.sqlite\"\n[sink.file]\npath = \"no/rows\"\n"
    );
    fs::write(folder.path().join("x.toml"), text).unwrap();
    fs::write(folder.path().join("tidegate.toml"), "data_dir = \"no/data\"\n[log]\nfile = { path = \"no/x.log\" }\n")
        .unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = check.args(["check", "x.toml", "--strict"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr),
        "no errors in 2 files\n"
    );
    let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["tidegate.toml", "x.toml"]);
}

fn in_json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => number.as_str().parse::<i64>().unwrap().into(),
        DeValue::Float(number) => number.as_str().parse::<f64>().unwrap().into(),
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| in_json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let pairs = table.iter().map(|(key, value)| (key.get_ref().to_string(), in_json(value.get_ref())));
            Value::Object(pairs.collect())
        }
    }
}

fn shipped() -> Vec<PathBuf> {
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    // In a build without it, what needs Kafka is answered with the feature.
    files.filter(|path| cfg!(feature = "kafka") || !path.to_string_lossy().contains("kafka")).collect()
}

/// Returns a new pipeline with its defaults written out, each in the line that shows it.
fn with_its_defaults(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(option) if !option.starts_with(' ') && option.contains(" = ") && !option.contains(" = …") => option,
        Some(_) | None => line,
    });
    lines.map(|line| line.to_owned() + "\n").collect()
}

/// Returns a line of `check --resolved` without where its value comes from.
fn without_origin(line: &str) -> String {
    line.trim_end().rsplit_once("  ").map_or(line, |(setting, _)| setting.trim_end()).to_owned()
}

#[cfg(feature = "kafka")]
#[test]
fn what_a_source_that_is_a_log_cannot_stand_beside_is_named_with_its_line() {
    let text = "[pipeline]\nname = \"load\"\n\
        [source.collectors]\ntype = \"kafka\"\nbrokers = \"localhost:9092\"\ntopics = [\"trades\"]\n\
        tables = { trades = { columns = [\"price f46\"] } }\nrdkafka = { \"group.id\" = \"mine\" }\n\
        [spool]\nmax_bytes = \"1GiB\"\n\
        [sink.sqlite]\npath = \"x.sqlite\"\n\
        [sink.postgres]\nurl = \"postgres://localhost/x\"\nstart = \"latest\"\n";
    let loaded = config::load(&tidegate::built_in(), Files::of_text("load.toml", text), &Environment::default());
    let said = loaded.report.render(Look::default());
    for words in [
        "load.toml:7:34",
        "did you mean `f64`?",
        "load.toml:8:26",
        "`group.id` is set by the source: write `group`",
        "load.toml:9:2",
        "[spool] has no use here",
        "load.toml:11:7",
        "those that do are: postgres, timescale",
        "load.toml:15:1",
        "`start` has no use here",
    ] {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    let beside = "[pipeline]\nname = \"load\"\n[source.deribit]\ninstruments = [\"ETH-PERPETUAL\"]\n\
        [source.kafka]\nbrokers = \"localhost:9092\"\ntopics = [\"trades\"]\ntables.own.columns = [\"a f64\"]\n\
        [sink.postgres]\nurl = \"postgres://localhost/x\"\ntables = [\"trades\", \"own\", \"status\"]\n";
    let loaded = config::load(&tidegate::built_in(), Files::of_text("load.toml", beside), &Environment::default());
    let said = loaded.report.render(Look::default());
    for words in ["load.toml:3:", "source `deribit` stands beside `kafka`", "table `status` is made of the spool"] {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
}

#[cfg(all(feature = "kafka", feature = "deribit"))]
#[test]
fn the_shipped_loader_declares_the_columns_that_the_shipped_collector_writes() {
    let tables = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(file);
        let text = fs::read_to_string(path).unwrap();
        let loaded = config::load(&tidegate::built_in(), Files::of_text(file, &text), &Environment::default());
        assert_eq!(loaded.report.render(Look::default()), "no errors in 1 file\n");
        let tables = loaded.pipelines[0].sources[0].tables.iter();
        let mut found: Vec<_> = tables.map(|table| (table.name.to_string(), table.columns_hash())).collect();
        found.sort();
        found
    };
    let wanted = tables("deribit-eth-options-kafka.toml");
    assert_eq!(tables("kafka-postgres.toml"), wanted);
}
