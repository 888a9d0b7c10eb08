//! What `list`, `new`, `schema` and `check --resolved` print. `UPDATE_GOLDEN=1` writes the pages anew.

use std::{fs, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_core::{
    Result,
    catalog::{Catalog, Component},
    config::{self, Environment, Files, load},
    sink::Sink,
};

use crate::{catalog::catalog, fits::fits};

#[test]
fn the_pages_are_as_they_were() {
    let mut differing = Vec::new();
    for (name, said) in [
        ("list.txt", config::list(&catalog(), wide(80))),
        ("tide.txt", config::list_component(&catalog(), "tide", wide(120), &[]).unwrap()),
        ("tide_60.txt", config::list_component(&catalog(), "tide", wide(60), &shipped()).unwrap()),
        ("depot.txt", config::list_component(&catalog(), "depot", wide(120), &[]).unwrap()),
        ("spool.txt", config::list_component(&catalog(), "spool", wide(120), &[]).unwrap()),
        ("table.txt", config::list_component(&catalog(), "table", wide(120), &[]).unwrap()),
        ("host.txt", config::list_component(&catalog(), "host", wide(120), &[]).unwrap()),
        ("new.toml", config::template(&catalog(), "tide", "depot").unwrap()),
        ("replay.txt", config::list_component(&catalog(), "replay", wide(80), &[]).unwrap()),
        ("breaker_60.txt", config::list_component(&catalog(), "breaker", wide(60), &[]).unwrap()),
        ("resolved.txt", resolved(140)),
        ("resolved_60.txt", resolved(60)),
        ("graph.txt", config::graph(&load_example())),
    ] {
        let expected = PathBuf::from("tests/golden_pages").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            differing.push(format!("{name}:\n{said}"));
        }
    }
    assert!(differing.is_empty(), "not as expected (UPDATE_GOLDEN=1 writes anew):\n{}", differing.join("\n"));
}

fn shipped() -> [config::Shipped<'static>; 1] {
    [config::Shipped { path: "tests/resolved/eth.toml", text: include_str!("../resolved/eth.toml") }]
}

fn wide(width: usize) -> config::Look {
    config::Look { colours: false, width }
}

fn resolved(width: usize) -> String {
    let resolved = config::resolved(&load_example(), wide(width));
    assert!(!resolved.contains("hunter2"), "{resolved}");
    resolved
}

fn load_example() -> config::Loaded {
    let variables = [
        ("SECRET", "hunter2"),
        ("TOP", "7"),
        ("LOG_LEVEL", "debug"),
        ("TIDEGATE_LISTEN", "127.0.0.1:9"),
        ("URL", "depot://me:hunter2@host/x"),
    ];
    let files = [PathBuf::from("tests/resolved")];
    let loaded = load(&catalog(), Files::read(&files, None), &Environment::new(variables));
    assert_eq!(loaded.report.errors(), 0, "{}", loaded.report.render(config::Look::default()));
    loaded
}

#[test]
fn every_sentence_of_a_page_keeps_to_its_width() {
    for width in [60, 80, 200] {
        for name in ["tide", "depot", "spool", "host", "pipeline"] {
            let page = config::list_component(&catalog(), name, wide(width), &shipped()).unwrap();
            for line in page.lines() {
                assert!(line.chars().count() <= width, "{name} at {width}: {line}");
            }
        }
        let tide = config::list_component(&catalog(), "tide", wide(width), &shipped()).unwrap();
        assert!(tide.lines().any(|line| line.chars().count() * 3 > width * 2), "{width} columns are used:\n{tide}");
    }
}

#[test]
fn a_new_pipeline_of_any_pair_passes_the_check_without_a_word() {
    for source in ["tide", "poll"] {
        for sink in ["depot", "shelf"] {
            let text = config::template(&catalog(), source, sink).unwrap();
            let loaded = load(&catalog(), Files::of_text("new.toml", &text), &Environment::default());
            assert_eq!(loaded.report.render(config::Look::default()), "no errors in 1 file\n", "{text}");
            assert_eq!(loaded.pipelines[0].name, format!("{source}-{sink}"));
        }
    }
}

#[test]
fn no_comment_of_a_new_pipeline_is_wider_than_80_columns() {
    let text = config::template(&catalog(), "tide", "depot").unwrap();
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn every_default_that_a_new_pipeline_shows_is_one() {
    let text = config::template(&catalog(), "tide", "shelf").unwrap();
    let written: String =
        text.lines().map(|line| if line.contains(" = …") { "" } else { line.strip_prefix("# ").unwrap_or(line) }).fold(
            String::new(),
            |text, line| if line.contains(" = ") || line.starts_with('[') { text + line + "\n" } else { text },
        );
    let load = |text: &str| load(&catalog(), Files::of_text("new.toml", text), &Environment::default());
    let (shown, plain) = (load(&written), load(&text));
    assert_eq!(shown.report.errors(), 0, "{}\n{written}", shown.report.render(config::Look::default()));
    let spool = |loaded: &config::Loaded| loaded.pipelines[0].spool.clone();
    assert_eq!(spool(&shown), spool(&plain));
    assert_eq!(shown.pipelines[0].sinks[0].delivery, plain.pipelines[0].sinks[0].delivery);
}

#[test]
fn a_name_that_is_not_there_is_answered_with_the_nearest_or_the_reason() {
    let why = |name: &str| config::list_component(&catalog(), name, wide(80), &[]).unwrap_err().to_string();
    assert_eq!(why("tdie"), "unknown component `tdie`, did you mean `tide`?");
    assert_eq!(why("spol"), "unknown component `spol`, did you mean `spool`?");
    assert_eq!(why("reconect"), "unknown component `reconect`, did you mean `reconnect`?");
    assert_eq!(why("kafka"), "`kafka` is not in this build: add --features kafka");
    assert_eq!(why("polygon"), "`polygon` is not in this version");
    assert_eq!(why("moon"), "unknown component `moon`, known are: depot, poll, shelf, tide");
    let new = config::template(&catalog(), "shelf", "tide").unwrap_err().to_string();
    assert_eq!(new, "`shelf` is no source, known are: poll, tide");
    assert_eq!(why("sea"), "`sea` is a key: tidegate list tide");
    assert_eq!(why("format"), "`format` is a key: tidegate list shelf");
}

#[test]
fn an_option_without_a_doc_comment_is_found() {
    assert_eq!(config::undocumented(&catalog()), Vec::<String>::new());
    #[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Silent {
        inner: Inner,
    }
    /// A table.
    #[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        option: bool,
    }
    impl Component for Silent {
        const TYPE: &'static str = "silent";
        type Built = Box<dyn Sink>;
        fn build(&self) -> Result<Self::Built> {
            Err(tidegate_core::Error::config("never built"))
        }
    }
    let mut catalog = Catalog::default();
    catalog.sink::<Silent>();
    assert_eq!(config::undocumented(&catalog), ["sink.silent.inner.option", "sink.silent"]);
}

#[test]
fn the_schema_takes_what_the_check_takes_and_refuses_an_unknown_key() {
    let schema = config::schema(&catalog());
    let good = json!({
        "pipeline": { "name": "x", "enabled": "${ENABLED:-true}" },
        "source": {
            "tide": { "top": "${TOP}", "channels": ["trades", "${CHANNEL}"], "ping": { "every": "1s" } },
            "second": { "type": "tide", "top": 4, "rest": { "rate": "20/s", "breaker": { "failures": 3 } } },
        },
        "spool": { "max_bytes": "${N}GiB", "when_full": "drop_oldest" },
        "sink": {
            "depot": { "url": { "file": "x" }, "tables": { "trades": "x", "tickers": { "name": "y" } } },
            "shelf": { "tables": ["trades"], "batch": { "rows": 4 } },
        },
    });
    assert!(fits(&schema, &good));
    for (pointer, wrong) in [
        ("/pipeline/nam", json!("x")),
        ("/source/tide/silense", json!({})),
        ("/source/tide/ping/every", json!(1)),
        ("/source/tide/top", json!(true)),
        ("/source/second/type", json!("moon")),
        ("/sink/depot/tables", json!(4)),
        ("/spool/when_full", json!(3)),
        ("/moon", json!({})),
    ] {
        let mut document = good.clone();
        let (table, key) = pointer.rsplit_once('/').unwrap();
        document.pointer_mut(table).unwrap()[key] = wrong;
        assert!(!fits(&schema, &document), "{pointer} is taken");
    }
    let host = config::host_schema(&catalog());
    let good = json!({
        "listen": "127.0.0.1:1",
        "defaults": { "source": { "ping": { "every": "1s" }, "tide": { "top": 4 } }, "spool": { "keep": "1h" } },
    });
    assert!(fits(&host, &good));
    assert!(!fits(&host, &json!({ "log": { "levle": "info" } })));
}
