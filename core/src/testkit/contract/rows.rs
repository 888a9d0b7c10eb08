//! The rows of the contract: every column type, each value that a store may not be able to hold, names that have to be quoted.

use std::sync::LazyLock;

use crate::row::{Cells, Label, Level, Mark, Position, Row, Table, Timestamp};

/// A row with a column of each type. All may be absent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Everything<'a> {
    flag: Option<bool>,
    signed: Option<i64>,
    unsigned: Option<u64>,
    number: Option<f64>,
    text: Option<&'a str>,
    label: Option<Label<'a>>,
    moment: Option<Timestamp>,
    levels: Option<&'a [Level]>,
    codes: Option<&'a [i64]>,
}

crate::row!(Everything<'_> => "everything", [flag, signed, unsigned, number, text, label, moment, levels, codes]);

/// The same columns, in another table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Others<'a>(pub(super) Everything<'a>);

impl Row for Others<'_> {
    const TABLE: &'static str = "others";

    fn cells(&self, cells: &mut impl Cells) {
        self.0.cells(cells);
    }
}

/// A row whose columns have names that a store has to quote.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Strange {
    pub(super) number: f64,
}

/// Names of tables and columns, each with something that breaks a statement in which it is not quoted.
pub(super) const NAMES: [&str; 7] =
    ["select", "two words", "o'clock", "a \"quoted\" name", "semi;colon -- and comment", "معامله‌ها", "Mixed_Case"];

impl Row for Strange {
    const TABLE: &'static str = "strange";

    fn cells(&self, cells: &mut impl Cells) {
        for (n, name) in NAMES.into_iter().enumerate() {
            cells.cell(name, &(self.number + n as f64));
        }
    }
}

/// Returns the tables of the contract.
pub(super) fn tables() -> Vec<Table> {
    vec![Table::of::<Everything<'_>>(), Table::of::<Others<'_>>(), Table::of::<Strange>()]
}

/// A plain row, which every store takes: number `n` of the test.
pub(super) fn plain(n: u64) -> Everything<'static> {
    Everything {
        flag: Some(n.is_multiple_of(2)),
        signed: Some(n.cast_signed()),
        unsigned: Some(n),
        number: Some(n as f64 + 0.25),
        text: Some("plain"),
        label: Some(Label(if n.is_multiple_of(2) { "buy" } else { "sell" })),
        moment: Some(at(n).ts_event),
        levels: Some(&[Level { price: 1.5, size: 2.0 }, Level { price: 1.25, size: 8.0 }]),
        codes: Some(&[1, -2]),
    }
}

/// The mark of row number `n`: numbered, at a whole microsecond of our time.
pub(super) fn at(n: u64) -> Mark<'static> {
    let ts_event = Timestamp(BASE + n.cast_signed() * 1_000);
    Mark { symbol: "ETH-PERPETUAL", position: Position::Sequence(n), ts_event }
}

/// November 2025.
const BASE: i64 = 1_764_000_000_000_000_000;

/// A row with one value in it that a store may not be able to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extreme {
    pub(super) row: Everything<'static>,
    pub(super) mark: Mark<'static>,
}

/// Returns all of them, numbered from `n` on.
pub(super) fn extremes(n: u64) -> Vec<Extreme> {
    let (mark, plain) = (at(n), plain(n));
    let mut all = vec![Everything::default(), plain];
    let mut add = |row| all.push(row);
    [true, false].into_iter().for_each(|flag| add(Everything { flag: Some(flag), ..plain }));
    SIGNED.into_iter().for_each(|signed| add(Everything { signed: Some(signed), ..plain }));
    UNSIGNED.into_iter().for_each(|unsigned| add(Everything { unsigned: Some(unsigned), ..plain }));
    NUMBERS.into_iter().for_each(|number| add(Everything { number: Some(number), ..plain }));
    TEXTS.into_iter().for_each(|text| add(Everything { text: Some(text), ..plain }));
    TEXTS.into_iter().for_each(|text| add(Everything { label: Some(Label(text)), ..plain }));
    TIMES.into_iter().for_each(|time| add(Everything { moment: Some(Timestamp(time)), ..plain }));
    for levels in [&[][..], &ODD_LEVELS, &MANY_LEVELS] {
        add(Everything { levels: Some(levels), ..plain });
    }
    let none = [Level { price: f64::NAN, size: f64::INFINITY }];
    add(Everything { levels: Some(Box::leak(Box::new(none))), ..plain });
    for codes in [&[][..], &SIGNED] {
        add(Everything { codes: Some(codes), ..plain });
    }
    // Each value absent, by itself.
    add(Everything { flag: None, ..plain });
    add(Everything { signed: None, ..plain });
    add(Everything { unsigned: None, ..plain });
    add(Everything { number: None, ..plain });
    add(Everything { text: None, ..plain });
    add(Everything { label: None, ..plain });
    add(Everything { moment: None, ..plain });
    add(Everything { levels: None, ..plain });
    add(Everything { codes: None, ..plain });
    let mut extremes: Vec<Extreme> = all.into_iter().map(|row| Extreme { row, mark }).collect();
    for time in TIMES {
        extremes.push(Extreme { row: plain, mark: Mark { ts_event: Timestamp(time), ..mark } });
    }
    for seq in UNSIGNED {
        extremes.push(Extreme { row: plain, mark: Mark { position: Position::Sequence(seq), ..mark } });
    }
    let unnumbered = Mark { position: Position::Unnumbered, symbol: "unnumbered", ..mark };
    extremes.push(Extreme { row: plain, mark: unnumbered });
    for symbol in TEXTS {
        extremes.push(Extreme { row: plain, mark: Mark { symbol, ..mark } });
    }
    // At the end, since everything is read again after each.
    extremes.push(Extreme { row: Everything { text: Some(LONG.as_str()), ..plain }, mark });
    extremes
}

const SIGNED: [i64; 6] = [0, -1, i64::MIN, i64::MIN + 1, i64::MAX, (1 << 53) + 1];

const UNSIGNED: [u64; 5] = [0, (1 << 53) + 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX];

const NUMBERS: [f64; 14] = [
    0.0,
    -0.0,
    5e-324,
    -2.225_073_858_507_201e-308,
    f64::MIN_POSITIVE,
    f64::MAX,
    f64::MIN,
    0.1 + 0.2,
    1.0 / 3.0,
    123_456_789_012_345.67,
    1e23,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
];

const TEXTS: [&str; 12] = [
    "",
    " ",
    "null",
    "\\N",
    "it's \"quoted\", with\ttab\\ and\r\nlines",
    "نماد ۱۲۳",
    "e\u{301} 🦀 \u{10ffff}",
    "\u{feff}mark",
    "\u{1}\u{1f}\u{7f}",
    "NUL \0 within",
    "\0",
    "💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹💹",
];

static LONG: LazyLock<String> = LazyLock::new(|| "a long text: ä ".repeat(70_000));

/// UTC nanoseconds: around 1970, the ends of what they can say, each digit, and the last second of a year.
const TIMES: [i64; 8] =
    [0, 1, -1, i64::MIN, i64::MAX, 1_234_567_890_123_456_789, -2_208_988_800_000_000_001, 1_767_225_599_999_999_999];

static ODD_LEVELS: [Level; 2] =
    [Level { price: -0.0, size: 0.0 }, Level { price: 5e-324, size: 1.797_693_134_862_315_7e308 }];

static MANY_LEVELS: [Level; 1_000] = [Level { price: 0.1, size: 1e-9 }; 1_000];
