//! The rules that a reader of docs/tables.md goes by.

use super::*;

fn sheet() -> Sheet {
    let line = Line {
        b: Some(true),
        i: Some(7),
        j: -3,
        u: Some(u64::MAX),
        f: Some(2.5),
        g: 0.0,
        t: Some("O:SPY251219C00650000"),
        l: Some("buy"),
        m: "ETH-27NOV26-3000-C",
        at: 1_795_513_263_000_000_000,
    };
    Sheet::of(&[line, Line { m: "ETH-PERPETUAL", ..Line::default() }, Line { i: Some(i64::MAX), ..Line::default() }])
}

/// Evaluates for the first row.
fn first(text: &str) -> String {
    let sheet = sheet().row(0);
    match sheet.plan(text) {
        Ok(node) => match sheet.evaluate(&node) {
            Ok(values) => values[0].to_string(),
            Err(failure) => format!("{}: {}", failure.text, failure.why),
        },
        Err(mistakes) => format!("refused: {}", mistakes[0].title),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn each_expression_has_the_value_that_the_reference_says() {
    for (text, value) in [
        ("i + 1", "8"),
        ("i / 2", "3"),
        ("j / 2", "-1"),
        ("j % 2", "-1"),
        ("f * 2", "5.0"),
        ("f / 2", "1.25"),
        ("-f", "-2.5"),
        ("- 9223372036854775808", "-9223372036854775808"),
        ("1 + 2 * 3 - 4", "3"),
        ("(1 + 2) * 3", "9"),
        ("7 % 4", "3"),
        ("2.5 * 2", "5.0"),
        ("u > i", "true"),
        ("u > j", "true"),
        ("u = 18446744073709551615", "true"),
        ("i = 7.0", "true"),
        ("i < 7.5", "true"),
        ("u > 1e30", "false"),
        ("cast(u as f64) = 18446744073709551616.0", "true"),
        ("u = 18446744073709551616.0", "false"),
        ("g = -0.0", "true"),
        ("i between 7 and 8", "true"),
        ("i not between 8 and 9", "true"),
        ("i in (1, 7)", "true"),
        ("i in (1, 2)", "false"),
        ("i in (1, null)", "null"),
        ("i not in (1, null)", "null"),
        ("f in (2.5, 1)", "true"),
        ("l in ('buy', 'sell')", "true"),
        ("i in (j, i)", "true"),
        ("null and false", "false"),
        ("null or true", "true"),
        ("not b", "false"),
        ("b is true", "true"),
        ("null is not true", "true"),
        ("l is null", "false"),
        ("l is not null", "true"),
        ("t like 'O:SPY%'", "true"),
        ("t like 'o:spy%'", "false"),
        ("t like '%C________'", "true"),
        ("t not like '%P%'", "false"),
        ("'a%b' like 'a!%b' escape '!'", "true"),
        ("'axb' like 'a!%b' escape '!'", "false"),
        ("case when i > 5 then 'big' else 'small' end", "'big'"),
        ("case l when 'sell' then -1 when 'buy' then 1 end", "1"),
        ("case when i > 50 then 1 end", "null"),
        ("cast(f as i64)", "2"),
        ("cast(-2.9 as bigint)", "-2"),
        ("cast('12' as u64) + 1", "13"),
        ("cast(i as text) || 'x'", "'7x'"),
        ("cast(f as text)", "'2.5'"),
        ("cast(b as i64)", "1"),
        ("cast('true' as boolean)", "true"),
        ("'1.5'::f64 + 1", "2.5"),
        ("cast(at as text)", "'2026-11-24T09:41:03.000000000Z'"),
        ("at = '2026-11-24T09:41:03Z'", "true"),
        ("at between '2026-11-24T00:00:00Z' and '2026-11-25T00:00:00Z'", "true"),
        (
            "at - '2026-11-24T09:41:00Z' = interval '3s'",
            "refused: `at` is time and `'2026-11-24T09:41:00Z'` is text: there is no such sum",
        ),
        ("at - cast('2026-11-24T09:41:00Z' as time) = interval '3s'", "true"),
        ("at + interval '1m'", "'2026-11-24T09:42:03.000000000Z'"),
        ("abs(j)", "3"),
        ("round(f)", "3.0"),
        ("round(-2.5)", "-3.0"),
        ("round(2.675, 2)", "2.67"),
        ("round(0.125, 2)", "0.13"),
        ("floor(-f)", "-3.0"),
        ("ceil(f)", "3.0"),
        ("ceiling(f)", "3.0"),
        ("least(i, j, 3)", "-3"),
        ("greatest(f, 3)", "3.0"),
        ("greatest(null, i)", "7"),
        ("coalesce(null, l, 'x')", "'buy'"),
        ("nullif(i, 7)", "null"),
        ("nullif(l, 'sell')", "'buy'"),
        ("upper(l) || lower('X')", "'BUYx'"),
        ("length('سلام')", "4"),
        ("substr('abcdef', 2, 3)", "'bcd'"),
        ("substring('abcdef' from 2 for 3)", "'bcd'"),
        ("substr('abcdef', 0, 2)", "'a'"),
        ("substr('abcdef', 4)", "'def'"),
        ("left('abc', 2)", "'ab'"),
        ("left(substr(t, 3), -15)", "'SPY'"),
        ("right(t, 8)", "'00650000'"),
        ("cast(right(t, 8) as f64) / 1000", "650.0"),
        ("left(right(t, 9), 1)", "'C'"),
        ("split_part(m, '-', 3)", "'3000'"),
        ("split_part(m, '-', -1)", "'C'"),
        ("split_part(m, '-', 9)", "''"),
        ("'it''s'", "'it''s'"),
        ("\"i\" + 1", "8"),
        ("I + 1", "8"),
    ] {
        assert_eq!(first(text), value, "{text}");
    }
}

#[test]
fn what_has_no_value_names_the_part_and_the_reason() {
    for (text, why) in [
        ("1 + i / (j + 3)", "i / (j + 3): division by zero"),
        ("f / g", "f / g: division by zero"),
        ("f % g", "f % g: division by zero"),
        ("i % (j + 3)", "i % (j + 3): division by zero"),
        ("i * 9223372036854775807", "i * 9223372036854775807: the result does not fit into 64 bits"),
        ("u + u", "u + u: the result does not fit into 64 bits"),
        ("u - u - u", "u - u - u: the result does not fit into 64 bits"),
        ("f * 1e308 * 10", "f * 1e308: the result is no finite number"),
        ("cast(t as i64)", "cast(t as i64): 'O:SPY251219C00650000' is no i64"),
        ("cast(u as i64)", "cast(u as i64): 18446744073709551615 does not fit into i64"),
        ("cast(j as u64)", "cast(j as u64): -3 does not fit into u64"),
        ("split_part(m, '-', i - 7)", "split_part(m, '-', i - 7): the first part is 1, and there is no part 0"),
        ("substr(m, 1, j)", "substr(m, 1, j): -3 characters are less than none"),
    ] {
        assert_eq!(first(text), why, "{text}");
    }
}

#[test]
fn what_might_change_a_number_is_refused_before_the_first_row() {
    for text in
        ["i + f", "i + u", "u * f", "i + 1.5", "u - j", "coalesce(i, f)", "case when b then i else f end", "f + i"]
    {
        assert!(first(text).contains("refused"), "{text}: {}", first(text));
    }
    for text in ["f + 9007199254740993", "u + -1"] {
        assert!(first(text).contains("refused"), "{text}: {}", first(text));
    }
    for text in ["i = f", "u > f", "i < u", "u in (1, 2)", "f + 1", "u + 1", "f in (1, 2)"] {
        assert!(!first(text).contains("refused"), "{text}: {}", first(text));
    }
}

#[test]
fn what_is_decided_does_not_ask_the_rest() {
    let sheet = Sheet::of(&[
        Line { j: 0, g: 1.0, ..Line::default() },
        Line { j: 2, g: 9.0, ..Line::default() },
        Line { j: 0, g: 3.0, ..Line::default() },
    ]);
    for text in [
        "j <> 0 and 10 / j > 1",
        "not (j = 0 or 10 / j < 1)",
        "case when j = 0 then false else 10 / j > 1 end",
        "coalesce(case when j = 0 then false end, 10 / j > 1)",
    ] {
        let node = sheet.plan(text).unwrap();
        let values = sheet.evaluate(&node).unwrap_or_else(|failure| panic!("{text}: {failure:?}"));
        assert_eq!(values, [Literal::Bool(false), Literal::Bool(true), Literal::Bool(false)], "{text}");
    }
    let node = sheet.plan("10 / j > 1 and j <> 0").unwrap();
    assert!(sheet.evaluate(&node).is_err(), "read from left to right");
}

#[test]
fn a_label_stays_one_and_its_absent_values_stay_absent() {
    let lines: Vec<Line> =
        [Some("buy"), None, Some("sell"), Some("buy"), None].map(|l| Line { l, m: "x", ..Line::default() }).to_vec();
    let sheet = Sheet::of(&lines);
    for (text, is_label) in [
        ("l", true),
        ("upper(l)", true),
        ("coalesce(l, 'none')", true),
        ("case when l is null then 'none' else l end", true),
        ("l || '!'", true),
        ("coalesce(t, l)", false),
        ("cast(l as text)", false),
        ("cast(t as label)", true),
        ("substr(l, j)", false),
    ] {
        assert_eq!(sheet.plan(text).unwrap().is_label, is_label, "{text}");
    }
    let text = |text: &str| {
        let values = sheet.evaluate(&sheet.plan(text).unwrap()).unwrap();
        values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(text("upper(l)"), "'BUY' null 'SELL' 'BUY' null");
    assert_eq!(text("coalesce(upper(l), 'none')"), "'BUY' 'none' 'SELL' 'BUY' 'none'");
    assert_eq!(text("l is null"), "false true false false true");
    assert_eq!(text("l = 'buy'"), "true null false true null");
    assert_eq!(text("l in ('sell')"), "false null true false null");
}

#[test]
fn a_variable_is_one_literal_and_never_a_part_of_the_expression() {
    let sheet = sheet().row(0);
    let scope = Scope { table: "sheet", fields: &sheet.fields };
    let says = |text: &str, values: &[&str]| {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let source = Source::new(text, &values);
        let condition = Condition::read(source).map_err(|mistake| mistake.title)?;
        let filled = condition.text();
        let node = condition.plan(&scope).map_err(|mistakes| mistakes[0].title.clone())?;
        Ok::<_, String>((sheet.evaluate(&node).map_err(|failure| failure.why.to_string())?[0].to_string(), filled))
    };
    let said = |text: &str, values: &[&str]| says(text, values).unwrap();
    assert_eq!(said("f >= ${MIN:-2}", &["2"]), ("true".into(), "f >= 2".into()));
    assert_eq!(said("f >= ${MIN}", &["2.75"]), ("false".into(), "f >= 2.75".into()));
    assert_eq!(said("i > ${MIN} or b = ${B}", &["-1e3", "true"]), ("true".into(), "i > -1000.0 or b = true".into()));
    let evil = "x' or 1 = 1 or l = 'x";
    assert_eq!(said("l = ${L}", &[evil]), ("false".into(), "l = 'x'' or 1 = 1 or l = ''x'".into()));
    assert_eq!(said("l = '${L}'", &[evil]), ("false".into(), "l = 'x'' or 1 = 1 or l = ''x'".into()));
    assert_eq!(said("l = '${A}${B}'", &["b", "uy"]), ("true".into(), "l = 'buy'".into()));
    assert_eq!(said("t like '${ROOT}%' -- ${ROOT}\n and b", &["O:SPY", "'"]).0, "true");
    assert_eq!(said("l <> '$${L}'", &[]).0, "true");
    assert_eq!(said("'${N}' = '7' and i = ${N}", &["7", "7"]).0, "true");
    assert!(says("l${A} = 'x'", &["1"]).is_err());
    assert!(says("f > $1", &[]).unwrap_err().contains("`$`"));
    assert!(says("l = ${N}", &["7"]).unwrap_err().contains("they cannot be compared"));
    // Its value stands nowhere in what is said.
    let secret = says("f > ${SECRET}", &["hunter2"]).unwrap_err();
    assert!(!secret.contains("hunter2") && secret.contains("${SECRET}"), "{secret}");
}

#[test]
fn places_are_those_of_the_text_also_behind_letters_of_several_bytes() {
    let sheet = sheet();
    let scope = Scope { table: "sheet", fields: &sheet.fields };
    for (text, part) in [
        ("l = 'سلام' and prise > 0", "prise"),
        ("l = 'سلام'\n  or 'é' = m\n and (prise + 1) > 0", "prise"),
        ("l = '${A}${BC}' and i > ${A} and prise > 0", "prise"),
        ("case when i > 0 then prise end > 0", "prise"),
        ("lower(prise) = 'x'", "prise"),
        ("cast(prise as f64) > 0", "prise"),
        ("i in (1, prise)", "prise"),
    ] {
        let values = ["x".to_owned(), "y".to_owned(), "1".to_owned()];
        let condition = Condition::read(Source::new(text, &values)).unwrap();
        let mistakes = condition.plan(&scope).unwrap_err();
        assert_eq!(&text[mistakes[0].span.clone()], part, "{text}");
    }
}

#[test]
fn whatever_is_nested_or_long_is_refused_and_breaks_nothing() {
    let deep = format!("{}1{} > 0", "(".repeat(5_000), ")".repeat(5_000));
    let chain = format!("i{} > 0", "+1".repeat(195));
    let ands = format!("b{}", " and b".repeat(195));
    let nots = format!("{} b", "not ".repeat(1_500));
    let longer = format!("i{} > 0", "+1".repeat(2_000));
    let calls = format!("i{} > 0", " + least(1, 2)".repeat(270));
    let list = format!("i in (1{})", ", 1".repeat(900));
    let cases = format!("{}1{} > 0", "case when b then ".repeat(60), " end".repeat(60));
    let sheet = sheet();
    for (text, is_fine) in [
        (deep, false),
        (chain, false),
        (longer, false),
        (calls, false),
        (list, true),
        (ands, true),
        (nots, false),
        (cases, false),
    ] {
        assert_eq!(sheet.plan(&text).is_ok(), is_fine, "{}…", &text[..40]);
    }
}

#[test]
fn the_expressions_of_the_four_pipelines_mean_what_they_say() {
    use crate::row::{Column, ColumnType, Table, kinds};

    let fields = |table: &Table| {
        let schema = table.schema();
        let field = |field: &Arc<arrow_schema::Field>| {
            let (kind, is_label) = Kind::of(field.data_type()).unwrap();
            Field { name: field.name().clone(), kind, is_label, nullable: field.is_nullable() }
        };
        schema.fields().iter().map(field).collect::<Vec<_>>()
    };
    let column = |name: &str, column_type| Column { name: name.into(), column_type, nullable: true };
    let tickers = Table::of::<kinds::Ticker<'_>>();
    let mut trades = Table::of::<kinds::Trade<'_>>();
    let of_polygon = [
        ("premium", ColumnType::F64),
        ("cancelled", ColumnType::Bool),
        ("underlying", ColumnType::Label),
        ("conditions", ColumnType::ListI64),
        ("exchange", ColumnType::Label),
        ("tape", ColumnType::Label),
    ];
    trades.columns.extend(of_polygon.map(|(name, column_type)| column(name, column_type)));
    let mut bars = Table::of::<kinds::Bar>();
    let of_bars = ["composite", "news", "technical", "duration_s"].map(|name| column(name, ColumnType::F64));
    bars.columns.extend(of_bars);
    bars.columns.extend(["ts", "ts_first", "ts_last"].map(|name| column(name, ColumnType::Time)));
    bars.columns.push(column("number", ColumnType::U64));
    let read = |text: &str| Source::new(text, &["10000".to_owned()]);
    let files = ["deribit-eth-options-timescale", "eodhd-qld-postgres", "polygon-option-trades-questdb"];
    let mut planned = 0;
    for file in files {
        // As `tests/fixtures/syntax` has them.
        let text = std::fs::read_to_string(format!("src/table/expression/tests/{file}.toml")).unwrap();
        let toml = toml::de::DeTable::parse(&text).unwrap();
        for (_, table) in toml.get_ref()["table"].get_ref().as_table().unwrap() {
            let table = table.get_ref().as_table().unwrap();
            let text = |key: &str| Some(table.get(key)?.get_ref().as_str().unwrap().to_owned());
            let of = match text("from").unwrap().as_str() {
                "tickers" => &tickers,
                _ if table.contains_key("bars") => &bars,
                _ => &trades,
            };
            let fields = fields(of);
            let scope = Scope { table: &of.name, fields: &fields };
            if let Some(condition) = text("where") {
                Condition::read(read(&condition)).unwrap().plan(&scope).unwrap();
            }
            Selection::read(read(&text("select").unwrap())).unwrap().plan(&scope).unwrap();
            planned += 1;
        }
    }
    assert_eq!(planned, 5);
}
