//! SQLite as an oracle: thousands of random expressions over rows with NULLs, each value the same here and there.
//!
//! What is different on purpose, and so not generated: what has no value here (division by zero, overflow, a cast that
//! fails) is a NULL or another number there; integers and floats do not mix in sums here; `like` sees the case of letters
//! (`PRAGMA case_sensitive_like`); `%` of floats is no division of integers here; `substr` counts from the start alone;
//! `least` and `greatest` leave NULLs out; floats become texts in their shortest form here.

use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    super::kind::{Kind, Literal},
    Line, Sheet,
    random::Random,
};

#[tokio::test]
async fn thousands_of_random_expressions_have_the_values_that_sqlite_gives_them() {
    let seeds = std::env::var("TIDEGATE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(1_u64);
    let (mut compared, mut without_value, mut refused) = (0_u64, 0_u64, 0_u64);
    for seed in 1..=seeds {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
        let lines: Vec<Line> = (0..48).map(|_| random.line()).collect();
        let mut db = table(&lines).await;
        let sheet = Sheet::of(&lines);
        for _ in 0..3_000 {
            let kind = [Kind::Bool, Kind::Bool, Kind::I64, Kind::U64, Kind::F64, Kind::Text][random.below(6) as usize];
            let text = random.expression(kind, 3);
            let Ok(node) = sheet.plan(&text) else {
                // Two constants that have no value, say.
                refused += 1;
                continue;
            };
            let theirs = ask(&mut db, &text).await;
            for (row, theirs) in theirs.iter().enumerate() {
                let line = sheet.row(row);
                let ours = match line.evaluate(&node) {
                    Ok(ours) => ours[0].clone(),
                    Err(_) => {
                        without_value += 1;
                        continue;
                    }
                };
                assert!(is_same(&ours, theirs), "row {row} of seed {seed}: {text}: {ours} here, {theirs:?} there");
                compared += 1;
            }
            // All rows together have the values that each has alone.
            if let Ok(together) = sheet.evaluate(&node) {
                for (row, value) in together.iter().enumerate() {
                    assert!(is_equal(value, &sheet.row(row).evaluate(&node).unwrap()[0]), "row {row}: {text}");
                }
            }
        }
    }
    println!("{compared} values compared, {without_value} rows without a value, {refused} expressions refused");
    assert!(compared > 80_000 * seeds, "{compared} compared, {without_value} without a value, {refused} refused");
    assert!(without_value > 1_000 * seeds && refused < 600 * seeds, "{without_value}, {refused}");
}

/// A value of SQLite, read in every way that it can be.
#[derive(Debug)]
struct Theirs {
    kind: String,
    integer: Option<i64>,
    float: Option<f64>,
    text: Option<String>,
}

async fn table(lines: &[Line]) -> SqliteConnection {
    let mut db = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let sql = "PRAGMA case_sensitive_like = ON;
        CREATE TABLE sheet (n INTEGER, b INTEGER, i INTEGER, j INTEGER, u INTEGER, f REAL, g REAL, t TEXT, l TEXT, m TEXT)";
    sqlx::raw_sql(sql).execute(&mut db).await.unwrap();
    for (n, line) in lines.iter().enumerate() {
        sqlx::query("INSERT INTO sheet VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(n as i64)
            .bind(line.b)
            .bind(line.i)
            .bind(line.j)
            .bind(line.u.map(u64::cast_signed))
            .bind(line.f)
            .bind(line.g)
            .bind(line.t)
            .bind(line.l)
            .bind(line.m)
            .execute(&mut db)
            .await
            .unwrap();
    }
    db
}

async fn ask(db: &mut SqliteConnection, text: &str) -> Vec<Theirs> {
    let sql = format!("SELECT typeof(it), it FROM (SELECT n, {text} AS it FROM sheet) ORDER BY n");
    let rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch_all(db).await;
    let read = |row: &SqliteRow| Theirs {
        kind: row.get(0),
        integer: row.get_unchecked(1),
        float: row.get_unchecked(1),
        text: row.get_unchecked(1),
    };
    rows.unwrap_or_else(|error| panic!("{text}: {error}")).iter().map(read).collect()
}

fn is_same(ours: &Literal, theirs: &Theirs) -> bool {
    match ours {
        Literal::Null => theirs.kind == "null",
        Literal::Bool(value) => theirs.kind == "integer" && theirs.integer == Some(i64::from(*value)),
        Literal::I64(value) => theirs.kind == "integer" && theirs.integer == Some(*value),
        Literal::U64(value) => theirs.integer.map(i64::cast_unsigned) == Some(*value),
        Literal::F64(value) => theirs.float == Some(*value),
        Literal::Text(value) => theirs.kind == "text" && theirs.text.as_deref() == Some(value),
        Literal::Time(_) => false,
    }
}

fn is_equal(one: &Literal, other: &Literal) -> bool {
    one == other
}
