//! From files to typed pipelines.

use std::{fs, path::Path};

use tempfile::TempDir;
use tidegate_core::config::{
    ByteSize, Duration, Environment, Feed, Files, Loaded, Look, NameParts, Ping, Pipeline, load,
};

use crate::catalog::catalog;

const GOOD: &str = "[pipeline]\nname = \"NAME\"\n[source.tide]\ntop = 1\n[sink.shelf]\n";

#[test]
fn the_stronger_layer_wins_key_by_key_and_replaces_lists() {
    let host = "[defaults.source]\nping = { every = \"5s\", timeout = \"4s\" }\ninstruments = [\"A\", \"B\"]\n\
                [defaults.source.tide]\nconnect_timeout = \"1s\"\nquiet_after = \"9m\"\n\
                [defaults.spool]\nkeep = \"2h\"\nmax_bytes = \"1GiB\"";
    let file = "[pipeline]\nname = \"x\"\n[source.tide]\ninstruments = [\"C\"]\nping = { every = \"6s\" }\n\
                connect_timeout = \"2s\"\n[spool]\nmax_bytes = \"2GiB\"\n[sink.shelf]";
    let folder = folder(&[("tidegate.toml", host), ("x.toml", file)]);
    let loaded = read(folder.path(), &[]);
    let pipeline = only(&loaded);
    let Feed::Protocol { connection, .. } = &pipeline.sources[0].feed else { panic!("a protocol") };
    assert_eq!(connection.ping, Ping { every: Duration::from_secs(6), timeout: Duration::from_secs(4) });
    assert_eq!(connection.connect_timeout, Duration::from_secs(2));
    assert_eq!(connection.quiet_after, Duration::from_secs(540));
    assert_eq!(pipeline.spool.max_bytes, ByteSize::from_mib(2 << 10));
    assert_eq!(pipeline.spool.keep, Duration::from_secs(7200));
    assert!(resolved_line(&loaded, "source.tide.instruments").contains("[\"C\"]"), "the list is replaced");
}

#[test]
fn a_table_that_gives_some_keys_keeps_its_own_defaults_for_the_others() {
    let text = GOOD
        .replace("top = 1", "top = 1\nreconnect = { first = \"2s\" }\nrest = { breaker = { failures = 9 } }")
        + "retry = { first = \"2s\" }\nbreaker = { failures = 9 }\n";
    let loaded = load_text(&text, &[]);
    let pipeline = only(&loaded);
    let Feed::Protocol { connection, .. } = &pipeline.sources[0].feed else { panic!("a protocol") };
    let delivery = &pipeline.sinks[0].delivery;
    assert_eq!(
        (connection.reconnect.longest, delivery.retry.longest),
        (Duration::from_secs(60), Duration::from_secs(30))
    );
    assert_eq!(connection.rest.breaker.open_for, Duration::from_secs(60));
    assert_eq!((connection.breaker.failures.get(), delivery.breaker.open_for), (3, Duration::from_secs(30)));
}

#[test]
fn a_default_for_all_sources_or_sinks_reaches_those_that_have_the_key() {
    let host = "[defaults.sink]\nconnections = 4\nbatch = { rows = 7 }";
    let file = GOOD.to_owned() + "[sink.depot]\nurl = \"depot://x\"";
    let folder = folder(&[("tidegate.toml", host), ("x.toml", &file)]);
    let loaded = read(folder.path(), &[]);
    let pipeline = only(&loaded);
    assert_eq!(pipeline.sinks.iter().map(|sink| sink.delivery.batch.rows.get()).collect::<Vec<_>>(), [7, 7]);
    assert!(resolved_line(&loaded, "sink.depot.connections").contains("tidegate.toml:2"));
}

#[test]
fn variables_set_the_host_file_s_options_and_nothing_of_a_pipeline() {
    let folder = folder(&[("tidegate.toml", "listen = \"127.0.0.1:1\"\n[log]\nlevel = \"warn\""), ("x.toml", GOOD)]);
    let variables = [
        ("TIDEGATE_LISTEN", "127.0.0.1:2"),
        ("TIDEGATE_LOG_FILE_PATH", "x.log"),
        ("TIDEGATE_LOG_FILE_KEEP", "3"),
        ("TIDEGATE_SPOOL_MAX_BYTES", "12parsec"),
        ("LOG_LEVEL", "debug"),
    ];
    let loaded = read(folder.path(), &variables);
    let host = loaded.host.as_ref().unwrap();
    assert_eq!(host.listen.0.port(), 2);
    assert_eq!(host.log.file.as_ref().unwrap().keep.get(), 3);
    assert_eq!(host.log.level.to_string(), "warn", "the file is stronger than LOG_LEVEL");
    assert_eq!(only(&loaded).spool.max_bytes, ByteSize::from_mib(10 << 10));
    let said = loaded.report.render(Look::default());
    assert!(said.contains("the variable TIDEGATE_SPOOL_MAX_BYTES sets nothing"), "{said}");
    assert_eq!(load_text(GOOD, &variables).host.unwrap().log.level.to_string(), "debug");
}

#[test]
fn no_host_comes_of_a_host_file_or_a_variable_that_is_wrong() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};
    let not_text = OsString::from_vec(vec![b'/', 0xff]);
    for (name, value, said) in [
        ("TIDEGATE_DATA_DIR", not_text.clone(), "the variable TIDEGATE_DATA_DIR is not UTF-8"),
        ("LOG_LEVEL", not_text, "the variable LOG_LEVEL is not UTF-8"),
        ("LOG_LEVEL", "inof".into(), "the value of LOG_LEVEL does not fit `log.level`"),
        ("LOG_LEVEL", "inof".into(), "= note: did you mean `info`?"),
        ("LOG_LEVEL", "tidegate_core::connectio=debug".into(), "= note: did you mean `connection`?"),
        ("TIDEGATE_LOG_LEVEL", "warn;info".into(), "the value of TIDEGATE_LOG_LEVEL does not fit `log.level`"),
        ("TIDEGATE_LISTEN", "0.0.0.0:1".into(), "`listen` is set by the variable TIDEGATE_LISTEN"),
        ("TIDEGATE_LOG_FILE_KEEP", "3".into(), "`log.file.keep` is set by the variable TIDEGATE_LOG_FILE_KEEP"),
    ] {
        let loaded = load(&catalog(), Files::of_text("x.toml", GOOD), &Environment::new([(name, value)]));
        let rendered = loaded.report.render(Look::default());
        assert!(rendered.contains(said), "{name}: {rendered}");
        assert_eq!((loaded.host, loaded.pipelines.len(), loaded.report.errors()), (None, 1, 1), "{name}");
    }
    let nowhere = load(&catalog(), Files::read(&[], Some(Path::new("/no/such.toml"))), &Environment::default());
    assert!(nowhere.host.is_none(), "a host file that is not there is not the default");
}

#[test]
fn a_level_of_the_log_is_one_or_the_nearest_is_named_and_an_empty_one_counts_as_not_set() {
    let said = |level: &str| {
        let folder = folder(&[("tidegate.toml", &format!("[log]\nlevel = \"{level}\"")), ("x.toml", GOOD)]);
        read(folder.path(), &[]).report.render(Look::default())
    };
    assert!(said("inof").contains("unknown `inof` for `log.level`"), "{}", said("inof"));
    assert!(said("inof").contains("did you mean `info`?"), "{}", said("inof"));
    assert!(said("info,x=debgu").contains("did you mean `debug`?"), "{}", said("info,x=debgu"));
    let module = said("info,tidegate_core::connectio=debug");
    assert!(module.contains("unknown `connectio` for `log.level`"), "{module}");
    assert!(module.contains(" ^^^^^^^^^ did you mean `connection`?"), "{module}");
    assert!(said("tidegate_cor=debug").contains("did you mean `tidegate_core`?"), "{}", said("tidegate_cor=debug"));
    assert!(said("warn;info").contains("known are: debug, error, info, off, trace, warn"), "{}", said("warn;info"));
    assert!(said("verbose").contains("unknown `verbose`"), "{}", said("verbose"));
    assert!(said("warn, tidegate_core = DEBUG").contains("no errors"), "{}", said("warn, tidegate_core = DEBUG"));
    for variables in
        [[("LOG_LEVEL", ""), ("TIDEGATE_DATA_DIR", "")], [("TIDEGATE_LOG_LEVEL", ""), ("LOG_LEVEL", "info")]]
    {
        let host = load_text(GOOD, &variables).host.unwrap();
        assert_eq!((host.log.level.to_string().as_str(), host.data_dir.to_str().unwrap()), ("info", "data"));
    }
}

#[test]
fn a_variable_that_any_file_names_is_the_user_s_own() {
    let text = GOOD.to_owned() + "path = \"${TIDEGATE_DB:-x}\"";
    let loaded = load_text(&text, &[("TIDEGATE_DB", "y")]);
    assert_eq!(loaded.report.render(Look::default()), "no errors in 1 file\n");
}

#[test]
fn a_second_host_file_is_a_mistake_and_the_named_one_is_no_pipeline() {
    let folder = folder(&[]);
    for (file, text) in [
        ("a/tidegate.toml", "data_dir = \"a\""),
        ("a/x.toml", &GOOD.replace("NAME", "a")),
        ("b/tidegate.toml", "data_dri = 1"),
        ("b/x.toml", &GOOD.replace("NAME", "b")),
    ] {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let at = |name: &str| folder.path().join(name);
    for paths in [[at("a"), at("b")], [at("a/x.toml"), at("b/x.toml")]] {
        let loaded = load(&catalog(), Files::read(&paths, None), &Environment::default());
        let said = loaded.report.render(Look::default());
        assert!(said.contains("b/tidegate.toml` is a second host file"), "{said}");
        assert!(loaded.host.is_none() && loaded.report.errors() == 1, "{said}");
    }
    fs::write(at("a/host-prod.toml"), "data_dir = \"prod\"").unwrap();
    let files = Files::read(&[at("a"), at("b/x.toml")], Some(&at("a/host-prod.toml")));
    let loaded = load(&catalog(), files, &Environment::default());
    assert_eq!(loaded.report.render(Look::default()), "no errors in 3 files\n");
    assert_eq!((loaded.host.unwrap().data_dir.to_str(), loaded.pipelines.len()), (Some("prod"), 2));
}

#[test]
fn a_value_from_a_variable_changes_that_value_and_nothing_else() {
    let huge = "x".repeat(10_000);
    for value in ["\"\n[sink.evil]\ntype = \"shelf\"", "1 or 1=1", "'''", "\\", "a\u{0}b", "${X}", "{table}", &huge] {
        let text = GOOD.replace("[sink.shelf]", "[sink.shelf]\npath = \"${VALUE}\"");
        let loaded = load_text(&text, &[("VALUE", value)]);
        let pipeline = only(&loaded);
        assert_eq!((pipeline.sources.len(), pipeline.sinks.len()), (1, 1));
        let line = resolved_line(&loaded, "sink.shelf.path");
        let shown: toml_text::Text = line.parse().unwrap();
        assert_eq!(shown.0, value);
    }
}

/// Reads the value of a line of `check --resolved`, which is a TOML basic string, or nearly JSON's.
mod toml_text {
    pub(super) struct Text(pub(super) String);

    impl std::str::FromStr for Text {
        type Err = serde_json::Error;

        fn from_str(line: &str) -> Result<Self, Self::Err> {
            let start = line.find('"').unwrap();
            let mut values = serde_json::Deserializer::from_str(&line[start..]).into_iter::<String>();
            values.next().unwrap().map(Self)
        }
    }
}

#[test]
fn text_of_a_variable_becomes_a_number_or_truth_where_one_is_wanted_and_text_of_a_file_does_not() {
    let filled =
        GOOD.replace("top = 1", "top = \"${N}\"\nrequired = \"${YES}\"\nquiet_after = \"${N}s\"\nendpoint = \"${N}\"");
    let loaded = load_text(&filled, &[("N", "7"), ("YES", "false")]);
    assert!(!only(&loaded).sources[0].required);
    assert!(resolved_line(&loaded, "source.tide.top").contains(" 7 "));
    assert!(resolved_line(&loaded, "source.tide.endpoint").contains("\"7\""));
    assert!(resolved_line(&loaded, "source.tide.quiet_after").contains("\"7s\""));
    let quoted = load_text(&GOOD.replace("top = 1", "top = \"7\""), &[]);
    assert_eq!(quoted.report.errors(), 1, "{}", quoted.report.render(Look::default()));
}

#[test]
fn a_bad_file_is_refused_and_the_others_are_ready() {
    let folder = folder(&[
        ("a.toml", &GOOD.replace("NAME", "a")),
        ("b.toml", "moon"),
        ("c.toml", &GOOD.replace("NAME", "c")),
        ("d.toml", &GOOD.replace("NAME", "c")),
        ("e.toml", &GOOD.replace("NAME", "e").replace("[pipeline]", "[pipeline]\nenabled = false")),
        ("note.txt", "not a pipeline"),
    ]);
    let loaded = read(folder.path(), &[]);
    let ready: Vec<_> = loaded.pipelines.iter().map(|pipeline| (pipeline.name.as_str(), pipeline.enabled)).collect();
    assert_eq!(ready, [("a", true), ("c", true), ("e", false)]);
    let refused: Vec<_> = loaded.refused.iter().map(|refused| refused.why.rsplit('/').next().unwrap()).collect();
    assert_eq!(refused, ["b.toml:1:5: this is not TOML", "d.toml:2:8: two pipelines are called `c`"]);
    assert_eq!(loaded.report.exit_code(false), 2);
}

#[test]
fn a_bad_host_file_lets_nothing_run_and_everything_be_checked() {
    let folder = folder(&[("tidegate.toml", "listn = 1"), ("a.toml", &GOOD.replace("top", "topp"))]);
    let loaded = read(folder.path(), &[]);
    assert!(loaded.host.is_none());
    assert_eq!(loaded.report.errors(), 2, "{}", loaded.report.render(Look::default()));
}

#[test]
fn a_default_that_cannot_be_filled_refuses_the_pipelines_that_rest_on_it() {
    let folder = folder(&[("tidegate.toml", "[defaults.source]\nendpoint = \"${UNSET}\""), ("a.toml", GOOD)]);
    let loaded = read(folder.path(), &[]);
    assert!(loaded.host.is_none() && loaded.pipelines.is_empty());
    assert_eq!(loaded.refused[0].why, "a default of the host file is wrong");
    assert_eq!(loaded.report.errors(), 1, "{}", loaded.report.render(Look::default()));
}

#[test]
#[should_panic(expected = "`tide` has the key")]
fn a_component_with_a_key_of_its_driver_s_is_not_taken() {
    #[derive(Debug, Default, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Greedy {
        timeout: u32,
    }
    impl tidegate_core::catalog::Component for Greedy {
        const TYPE: &'static str = "tide";
        type Built = Box<dyn tidegate_core::sink::Sink>;
        fn build(&self) -> tidegate_core::Result<Self::Built> {
            Err(tidegate_core::Error::config("never built"))
        }
    }
    catalog().sink::<Greedy>();
}

#[test]
fn a_file_that_is_none_is_named_with_the_reason() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("empty.toml"), "").unwrap();
    fs::write(at("spaces.toml"), " \n\n").unwrap();
    fs::write(at("huge.toml"), vec![b' '; (4 << 20) + 1]).unwrap();
    fs::write(at("binary.toml"), b"\n\x7fELF\0\0").unwrap();
    fs::write(at("latin1.toml"), b"x = 1\ny = \"caf\xe9\"").unwrap();
    fs::write(at("deep.toml"), format!("x = {}", "[".repeat(100_000))).unwrap();
    fs::write(at("bom.toml"), "\u{feff}".to_owned() + GOOD).unwrap();
    fs::create_dir(at("folder.toml")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(at("pipe.toml")).status().unwrap();
    assert!(made.success());
    let said = |name: &str| {
        let loaded = load(&catalog(), Files::read(&[at(name)], None), &Environment::default());
        let lines: Vec<_> = loaded.report.lines().collect();
        assert_eq!(loaded.pipelines.len(), usize::from(lines.is_empty()));
        lines.first().cloned().unwrap_or_default().replace(folder.path().to_str().unwrap(), "")
    };
    assert_eq!(said("empty.toml"), "/empty.toml: `/empty.toml` is empty");
    assert_eq!(said("spaces.toml"), "/spaces.toml: `/spaces.toml` is empty");
    assert_eq!(said("huge.toml"), "/huge.toml: `/huge.toml` is larger than 4MiB");
    assert_eq!(said("binary.toml"), "/binary.toml: `/binary.toml` is not text: line 2 has the byte 0x7f");
    assert_eq!(said("latin1.toml"), "/latin1.toml: `/latin1.toml` is not UTF-8: line 2");
    assert_eq!(said("folder.toml"), "/folder.toml: `/folder.toml` is a folder without *.toml files");
    assert_eq!(said("none.toml"), "/none.toml: `/none.toml` cannot be read: there is no such file");
    assert_eq!(said("pipe.toml"), "/pipe.toml: `/pipe.toml` is no regular file");
    assert!(said("deep.toml").starts_with("/deep.toml:1:"), "{}", said("deep.toml"));
    assert_eq!(said("bom.toml"), "");
    let host = Files::read(&[at("bom.toml")], Some(folder.path()));
    let said = load(&catalog(), host, &Environment::default()).report.render(Look::default());
    assert!(said.contains("is a folder, not a file"), "{said}");
}

#[test]
fn many_mistakes_are_counted_and_the_first_hundred_shown() {
    let variables: Vec<String> = (0..2_000).map(|n| format!("\"${{UNSET_{n}}}\"")).collect();
    let text = GOOD.replace("top = 1", &format!("instruments = [{}]", variables.join(", ")));
    let said = load_text(&text, &[]).report.render(Look::default());
    assert_eq!(said.matches("error: ").count(), 100);
    assert!(said.contains("and 1900 more\n\n2000 errors in 1 of 1 file"), "{}", &said[said.len() - 200..]);
    let wrong = GOOD.replace("top = 1", &format!("instruments = [{}]", "\"LOW 1\", 5, ".repeat(2_000)));
    let said = load_text(&wrong, &[]).report.render(Look::default());
    assert_eq!(said.matches("`instruments` cannot be the number 5").count(), 10, "one mistake in one line");
    assert!(said.contains("[source.tide] has more mistakes than these") && said.contains("and 190 more\n"), "{said}");
}

#[test]
fn a_syntax_error_has_a_line_and_says_nothing_twice() {
    let lines = |text: &str| load_text(text, &[]).report.lines().collect::<Vec<_>>();
    let deep = format!("x = 1\ny = {}{}\n", "[".repeat(200), "]".repeat(200));
    let said = lines(&deep);
    assert!(said.len() == 1 && said[0].starts_with("x.toml:2:"), "{said:?}");
    let unclosed = GOOD.replace("top = 1", "instruments = [\"A\", { sea = \"B\" }");
    assert_eq!(lines(&unclosed).len(), 1, "{:?}", lines(&unclosed));
}

#[test]
fn a_file_that_is_named_twice_is_one_pipeline() {
    let folder = folder(&[("a.toml", GOOD), ("tidegate.toml", "data_dir = \"/x\"")]);
    let paths = [folder.path().join("a.toml"), folder.path().to_owned(), folder.path().join("./a.toml")];
    let loaded = load(&catalog(), Files::read(&paths, None), &Environment::default());
    assert_eq!(only(&loaded).name, "NAME");
    assert_eq!(loaded.host.unwrap().data_dir, Path::new("/x"), "the host file beside the first is found");
}

#[test]
fn a_sink_takes_the_tables_it_names_under_the_names_it_gives() {
    let text = GOOD.to_owned()
        + "tables = { trades = \"{pipeline}_{venue}_{table}\", tickers = {} }\n\
        [sink.second]\ntype = \"shelf\"\npath = \"y\"\ntables = [\"trades\"]\n[sink.third]\ntype = \"shelf\"\npath = \"z\"";
    let loaded = load_text(&text, &[]);
    let [second, shelf, third] = only(&loaded).sinks.as_slice() else { panic!("three sinks") };
    assert_eq!((second.name.as_str(), second.component.as_str()), ("second", "shelf"));
    assert_eq!((second.tables.takes("trades"), second.tables.takes("tickers")), (true, false));
    assert!(third.tables.takes("tickers"));
    let row = NameParts { pipeline: "p", venue: "v", table: "t", symbol: "s" };
    assert_eq!(shelf.tables.name("trades").unwrap().fill(row), "p_v_t");
    assert_eq!(shelf.tables.name("tickers"), None);
}

#[test]
fn a_source_that_is_no_protocol_has_no_connection_to_configure() {
    let text = GOOD.to_owned() + "[source.buoy]\ntype = \"poll\"\nevery = \"5s\"\nrequired = false";
    let loaded = load_text(&text, &[]);
    let buoy = &only(&loaded).sources[0];
    assert_eq!((buoy.name.as_str(), buoy.component.as_str(), buoy.required), ("buoy", "poll", false));
    assert!(matches!(buoy.feed, Feed::Source { .. }));
    assert_eq!(&*buoy.tables[0].name, "levels");
    let said = load_text(&(text + "\nsilence = { warn = \"1s\" }"), &[]).report.render(Look::default());
    assert!(said.contains("unknown key `silence` in [source.buoy]"), "{said}");
}

#[test]
fn two_sources_of_one_table_agree_on_its_columns() {
    let text = GOOD.to_owned() + "[source.buoy]\ntype = \"poll\"\ntable = \"trades\"";
    assert_eq!(load_text(&text, &[]).report.errors(), 0, "a part of the columns, of the same type");
    let said = load_text(&(text + "\nwhole = true"), &[]).report.render(Look::default());
    assert!(said.contains("`trades.price` has one type in [source.buoy] and another in [source.tide]"), "{said}");
}

#[test]
fn a_long_line_is_cut_to_the_width_and_still_shows_the_place() {
    let long = format!("instruments = [\"{}\"], colour = 1", "x".repeat(10_000));
    let text = format!("[pipeline]\nname = \"x\"\n[source]\ntide = {{ {long} }}\n[sink.shelf]\n");
    let said = load_text(&text, &[]).report.render(Look { colours: false, width: 80 });
    assert!(said.contains("unknown key `colour`") && said.contains("^^^^^^"), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    let coloured = load_text(&text, &[]).report.render(Look { colours: true, width: 80 });
    assert!(coloured.contains("\u{1b}["));
    assert!(!said.contains('\u{1b}'));
}

#[test]
fn the_files_of_the_syntax_folder_are_read_but_for_what_does_not_exist_yet() {
    let syntax = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/syntax");
    let variables =
        ["POLYGON_API_KEY", "EODHD_API_KEY", "DATABASE_URL", "SLACK_WEBHOOK_URL", "SMTP_USER", "ALERT_EMAIL"];
    let environment = Environment::new(variables.map(|name| (name, "x")));
    let loaded = load(&catalog(), Files::read(&[syntax], None), &environment);
    let lines: Vec<String> = loaded.report.lines().collect();
    assert!(!lines.is_empty());
    for line in lines {
        assert!(line.contains("is not in this version") || line.contains("is not in this build"), "{line}");
    }
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read(folder: &Path, variables: &[(&str, &str)]) -> Loaded {
    let environment = Environment::new(variables.iter().copied());
    load(&catalog(), Files::read(&[folder.to_owned()], None), &environment)
}

fn load_text(text: &str, variables: &[(&str, &str)]) -> Loaded {
    load(&catalog(), Files::of_text("x.toml", text), &Environment::new(variables.iter().copied()))
}

fn only(loaded: &Loaded) -> &Pipeline {
    assert_eq!(loaded.report.errors(), 0, "{}", loaded.report.render(Look::default()));
    assert_eq!(loaded.pipelines.len(), 1);
    &loaded.pipelines[0]
}

fn resolved_line(loaded: &Loaded, key: &str) -> String {
    let resolved = tidegate_core::config::resolved(loaded, Look { colours: false, width: usize::MAX });
    let line = resolved.lines().find(|line| line.split_whitespace().next() == Some(key));
    line.unwrap_or_else(|| panic!("no {key} in\n{resolved}")).to_owned()
}
