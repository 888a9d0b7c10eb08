//! What may stand in the table of a pipeline's file.

use serde_json::{Value, json};
use tidegate_core::{
    Error, Kind, Result,
    catalog::{Catalog, Component},
    config::{Environment, Files, Look},
};

use super::*;
use crate::deribit::{Interval, Kind as InstrumentKind, Measure, Selector, Venue};

fn read(json: &Value) -> Result<DeribitConfig, String> {
    serde_json::from_str(&json.to_string()).map_err(|error| error.to_string())
}

fn refused(json: &Value) -> String {
    let outcome = read(json).unwrap().build();
    let error: Error = outcome.map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    error.to_string()
}

#[test]
fn a_table_is_read_with_names_and_selectors() {
    let table = json!({
        "endpoint": "test",
        "channels": ["tickers", "trades", "quotes", "book_changes", "book_tops", "index_prices", "instrument_status"],
        "instruments": [
            "ETH-PERPETUAL",
            { "currency": "ETH", "kind": "option", "top": 50, "by": "volume", "leave_at": 60, "expires_in": "> 10m", "refresh": "30m" },
            { "currency": "BTC" },
        ],
        "interval": "agg2",
    });
    let config = read(&table).unwrap();
    assert_eq!(config.endpoint, Endpoint::Named(Venue::Test));
    assert_eq!(config.channels.len(), 7);
    assert_eq!(config.interval, Interval::Slow);
    let selectors: Vec<&Selector> = config.selectors().collect();
    assert_eq!(selectors[0].by, Some(Measure::Volume));
    assert_eq!(selectors[0].expires_in.map(|left| left.0.0.as_secs()), Some(600));
    assert_eq!(selectors[0].refresh.0.as_secs(), 1800);
    assert_eq!(
        (selectors[1].kind, selectors[1].top, selectors[1].refresh.0.as_secs()),
        (InstrumentKind::Option, None, 3600)
    );
    config.build().unwrap();
}

#[test]
fn what_is_read_is_written_the_same_way() {
    let table = json!({
        "endpoint": { "ws": "ws://127.0.0.1:9/ws", "http": "http://127.0.0.1:9/api", "history": null, "testnet": true },
        "channels": ["trades"],
        "instruments": ["ETH-PERPETUAL", { "currency": "ETH", "kind": "option", "top": 5, "by": null, "leave_at": null, "expires_in": ">10m", "refresh": "1h" }],
        "interval": "100ms",
        "client_id": null,
        "client_secret": null,
    });
    assert_eq!(serde_json::to_value(read(&table).unwrap()).unwrap(), table);
}

#[test]
fn the_defaults_and_the_example_are_a_configuration() {
    let mut config = DeribitConfig::default();
    assert_eq!(config.channels, [Channel::Tickers, Channel::Trades]);
    let instruments = r#"[{"currency":"ETH","kind":"option","top":50,"leave_at":60}]"#;
    assert_eq!(
        DeribitConfig::EXAMPLE.replace(" = ", ":").replace(' ', ""),
        format!(
            "instruments:{}",
            instruments
                .replace("\"currency\"", "currency")
                .replace("\"kind\"", "kind")
                .replace("\"top\"", "top")
                .replace("\"leave_at\"", "leave_at")
        )
    );
    config.instruments = serde_json::from_str(instruments).unwrap();
    config.build().unwrap();
}

#[test]
fn mistakes_are_named() {
    let with = |key: &str, value: Value| {
        let mut table = json!({ "instruments": ["ETH-PERPETUAL"] });
        table[key] = value;
        table
    };
    let cases = [
        (with("channels", json!([])), "`channels` is empty: nothing would be collected"),
        (with("instruments", json!([])), "`instruments` is empty: nothing would be collected"),
        (
            with("instruments", json!(["ETH PERPETUAL"])),
            "`ETH PERPETUAL` cannot be an instrument: their names are like `ETH-PERPETUAL` and `ETH-26SEP26-2760-C`",
        ),
        (
            with("instruments", json!([{ "currency": "eth" }])),
            "`eth` is no currency: they are like `ETH`, `USDC` or `any`",
        ),
        (
            with("instruments", json!([{ "currency": "any", "top": 5 }])),
            "`any` cannot be ranked: write a selector with `top` for each currency",
        ),
        (
            with("instruments", json!([{ "currency": "ETH", "by": "volume" }])),
            "`instruments` has `by` without `top`: nothing is ranked",
        ),
        (
            with("instruments", json!([{ "currency": "ETH", "leave_at": 60 }])),
            "`instruments` has `leave_at` without `top`: nothing is ranked",
        ),
        (
            with("instruments", json!([{ "currency": "ETH", "top": 50, "leave_at": 40 }])),
            "`instruments` has `leave_at` = 40, which is better than `top` = 50",
        ),
        (
            with("instruments", json!([{ "currency": "ETH", "refresh": "1s" }])),
            "`instruments` has a `refresh` below 10 s, which deribit's limits do not allow",
        ),
        (
            with("instruments", json!([{ "currency": "ETH", "kind": "spot", "expires_in": ">1h" }])),
            "`instruments` has `expires_in` with `kind = \"spot\"`, and no spot pair ever expires",
        ),
        (
            with("interval", json!("raw")),
            "`interval` is `raw`, which deribit refuses without `client_id` and `client_secret`",
        ),
        (with("client_id", json!("x")), "`client_id` needs `client_secret` beside it"),
        (with("client_secret", json!("x")), "`client_secret` needs `client_id` beside it"),
        (
            with("endpoint", json!({ "ws": "http://x/y", "http": "http://x/y" })),
            "`endpoint.ws` is no address that begins with `ws://` or `wss://` and ends without `/` or `?…`",
        ),
        (
            with("endpoint", json!({ "ws": "ws://localhost:port/ws", "http": "http://x/y" })),
            "`endpoint.ws` has something behind the `:` of its host that is no port",
        ),
        (
            with("endpoint", json!({ "ws": "ws://x/y", "http": "http://user:secret@x/y/" })),
            "`endpoint.http` is no address that begins with `http://` or `https://` and ends without `/` or `?…`",
        ),
        (
            with("endpoint", json!({ "ws": "ws://x/y", "http": "http://x/y", "history": "HTTP://X:80/y" })),
            "`endpoint.history` is the same address as `endpoint.http`: leave it out where no other host keeps more",
        ),
    ];
    for (table, message) in cases {
        assert_eq!(refused(&table), message, "{table}");
    }
    let table = json!({ "instruments": ["ETH-STRANGE"], "channels": ["instrument_status"] });
    assert!(refused(&table).contains("`ETH-STRANGE` does not tell its kind"));
}

#[test]
fn a_value_of_another_kind_is_answered_with_what_may_stand_there() {
    let cases = [
        (
            json!({ "instruments": [5] }),
            r#"expected the name of an instrument, or { currency = "ETH", kind = "option", top = 50 }"#,
        ),
        (json!({ "instruments": [{ "currency": "ETH", "tops": 5 }] }), "unknown field `tops`"),
        (json!({ "instruments": [{ "kind": "option" }] }), "missing field `currency`"),
        (json!({ "instruments": [{ "currency": "ETH", "top": 0 }] }), "expected a nonzero usize"),
        (
            json!({ "instruments": [{ "currency": "ETH", "expires_in": "10m" }] }),
            r#"expected what must be left of its life: ">10m""#,
        ),
        (
            json!({ "instruments": [{ "currency": "ETH", "expires_in": ">10" }] }),
            r#"expected what must be left of its life: ">10m""#,
        ),
        (json!({ "endpoint": 5 }), r#"expected "production", "test" or { ws = "…", http = "…", history = "…" }"#),
        (json!({ "endpoint": "testing" }), "unknown variant `testing`, expected `production` or `test`"),
        (json!({ "endpoint": { "ws": "ws://x" } }), "missing field `http`"),
        (json!({ "channels": ["ticker"] }), "unknown variant `ticker`"),
        (json!({ "interval": "10ms" }), "unknown variant `10ms`"),
        (json!({ "instrument": [] }), "unknown field `instrument`"),
    ];
    for (table, message) in cases {
        let told = read(&table).unwrap_err();
        assert!(told.contains(message), "{table}: {told}");
    }
}

/// Reads a pipeline's file, and returns what is said about the source.
fn report(source: &str, variables: &[(&str, &str)]) -> String {
    let mut catalog = Catalog::default();
    catalog.protocol::<DeribitConfig>();
    let files = Files::of_text("eth.toml", &format!("[pipeline]\nname = \"eth\"\n[source.deribit]\n{source}"));
    let environment = Environment::new(variables.iter().copied());
    tidegate_core::config::load(&catalog, files, &environment).report.render(Look::default())
}

#[test]
fn numbers_and_names_may_come_from_the_environment() {
    let source = r#"
        endpoint = "${ENDPOINT:-production}"
        instruments = [{ currency = "${CURRENCY:-ETH}", kind = "option", top = "${TOP:-50}", leave_at = "${LEAVE:-60}" }]
    "#;
    for variables in [&[][..], &[("ENDPOINT", "test"), ("CURRENCY", "BTC"), ("TOP", "5"), ("LEAVE", "7")]] {
        let told = report(source, variables);
        assert!(!told.contains("[source.deribit]") && !told.contains("instruments"), "{told}");
    }
    let told = report(source, &[("TOP", "many")]);
    assert!(told.contains("${TOP") && told.contains("instruments.top"), "{told}");
    let told = report(source, &[("TOP", "61")]);
    assert!(told.contains("`leave_at` = ${LEAVE}, which is better than `top` = ${TOP}"), "{told}");
}

#[test]
fn mistakes_in_a_file_are_shown_where_they_are() {
    let told = report(r#"instruments = [{ currency = "ETH", tops = 5 }, 7]"#, &[]);
    assert!(told.contains("unknown key `tops` in `instruments`") && told.contains("did you mean `top`?"), "{told}");
    let told = report(r#"instruments = ["ETH-PERPETUAL", 7]"#, &[]);
    assert!(told.contains("`instruments` cannot be the number 7"), "{told}");
    assert!(told.contains(r#"the name of an instrument, or { currency = "ETH""#), "{told}");
    let told = report("channels = [\"ticker\"]\ninstruments = [\"ETH-PERPETUAL\"]", &[]);
    assert!(told.contains("eth.toml:4:") && told.contains("`tickers`"), "{told}");
    let told = report("instruments = [\"ETH PERPETUAL\"]", &[]);
    assert!(told.contains("eth.toml:4:") && told.contains("cannot be an instrument"), "{told}");
}

#[test]
fn raw_needs_credentials_and_sends_them_to_the_raw_channels() {
    let table =
        json!({ "instruments": ["ETH-PERPETUAL"], "interval": "raw", "client_id": "id", "client_secret": "marker" });
    let config = read(&table).unwrap();
    config.build().unwrap();
    assert!(!format!("{config:?}").contains("marker"));
    let mut script = script(config);
    let (_, channels) = script.discover(|_| unreachable!()).unwrap();
    assert_eq!(channels, ["ticker.ETH-PERPETUAL.raw", "trades.ETH-PERPETUAL.raw"]);
}

#[test]
fn deribits_own_endpoints_are_known() {
    use tidegate_core::protocol::Protocol as _;
    let url = |venue| {
        let config = DeribitConfig { endpoint: Endpoint::Named(venue), ..everything() };
        Deribit::new(config).endpoint("", NOW).unwrap().url
    };
    assert_eq!(url(Venue::Production), "wss://www.deribit.com/ws/api/v2");
    assert_eq!(url(Venue::Test), "wss://test.deribit.com/ws/api/v2");
}
