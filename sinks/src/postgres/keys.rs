//! The unique indexes of keys: ours are made and dropped as the TOML says, those of other people serve as they are.

use tidegate_core::{Error, Result, chunk::SinkTable, sink::Owner};
use tokio_postgres::types::Type;

use super::{
    error::is_equal,
    link::Link,
    schema::{Maker, Target, key_columns, literal, quoted},
};

/// Makes the unique indexes that tables with a key lack, and drops those of this sink that nobody asks for any more. `making`
/// holds the statement while it runs.
///
/// # Errors
///
/// The inner one `Permanent`, naming the table, when it holds rows that the key forbids; the outer one is the server's.
pub(super) async fn keys(
    link: &Link,
    (schema, owner): (&str, &Owner),
    tables: &[(&SinkTable, Option<&Target>)],
    maker: &mut Maker,
    making: &mut Option<String>,
) -> Result<Result<()>, tokio_postgres::Error> {
    let label = label(owner);
    for (name, table, comment) in ours(link, schema, &label).await? {
        let is_wanted = tables.iter().any(|(wanted, _)| wanted.name == table && comment == described(&label, wanted));
        if !is_wanted {
            maker.make(link, format!("DROP INDEX {}.{}", quoted(schema), quoted(&name))).await?;
            maker.dropped.push(table);
        }
    }
    for (table, target) in tables.iter().filter(|(table, _)| !table.key.is_empty()) {
        let qualified = format!("{}.{}", quoted(schema), quoted(&table.name));
        let name = index_name(owner, table);
        let statement = format!(
            "{}; COMMENT ON INDEX {}.{} IS {}",
            statement(&name, &qualified, table),
            quoted(schema),
            quoted(&name),
            literal(&described(&label, table))
        );
        let Some(target) = target else {
            // The table is still to be made by somebody else.
            maker.make(link, statement).await?;
            continue;
        };
        if is_unique(link, target.oid, table).await? {
            continue;
        }
        if !target.is_ours {
            maker.leave(&table.name, of_their_own(&qualified, table));
            continue;
        }
        *making = Some(statement.clone());
        let made = maker.make(link, statement).await;
        *making = None;
        match made {
            Err(error) if is_equal(&error) => {
                let text = format!("table `{}` already holds rows that are equal in its key", table.name);
                return Ok(Err(Error::permanent(text).because(error)));
            }
            made => made?,
        }
    }
    Ok(Ok(()))
}

/// Returns the statement that makes the index of a table which somebody else has made, and which has none: it may be large,
/// and is not ours.
pub(super) async fn lacking(
    link: &Link,
    schema: &str,
    table: &SinkTable,
    target: &Target,
) -> Result<Option<String>, tokio_postgres::Error> {
    if table.key.is_empty() || target.is_ours || is_unique(link, target.oid, table).await? {
        return Ok(None);
    }
    Ok(to_be_made(schema, table))
}

/// Returns the statement that makes the index of a table's key, under a name that is none of ours.
pub(super) fn to_be_made(schema: &str, table: &SinkTable) -> Option<String> {
    let qualified = format!("{}.{}", quoted(schema), quoted(&table.name));
    (!table.key.is_empty()).then(|| of_their_own(&qualified, table))
}

/// Returns how the comments of this sink's indexes begin.
pub(super) fn label(owner: &Owner) -> String {
    format!("tidegate key of {}/{}: ", owner.pipeline, owner.sink)
}

/// Reads name, table and comment of this sink's indexes.
pub(super) async fn ours(
    link: &Link,
    schema: &str,
    label: &str,
) -> Result<Vec<(String, String, String)>, tokio_postgres::Error> {
    let sql = "SELECT i.relname::text, t.relname::text, d.description
        FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
        JOIN pg_catalog.pg_class t ON t.oid = x.indrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = i.relnamespace
        JOIN pg_catalog.pg_description d ON d.objoid = i.oid AND d.classoid = 'pg_catalog.pg_class'::regclass
        WHERE n.nspname = $1 AND starts_with(d.description, $2)";
    let rows = link.rows(sql, &[(&schema, Type::TEXT), (&label, Type::TEXT)]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

/// Asks the catalog whether no two rows of a table can be equal in its key: only then can the server be told what to do about
/// those that would be. Whoever made the index, and in whatever order.
async fn is_unique(link: &Link, table: u32, of: &SinkTable) -> Result<bool, tokio_postgres::Error> {
    let mut key = key_columns(of);
    key.sort_unstable();
    Ok(unique(link, table).await?.iter().any(|columns| {
        let mut columns: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
        columns.sort_unstable();
        columns == key
    }))
}

/// Reads the columns of all indexes of a table that no two of its rows can be equal in, whoever made them.
pub(super) async fn unique(link: &Link, table: u32) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
    let sql = "SELECT (SELECT array_agg(a.attname::text ORDER BY array_position(x.indkey::int2[], a.attnum))
            FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey[0:x.indnkeyatts - 1]))
        FROM pg_catalog.pg_index x
        WHERE x.indrelid = $1 AND x.indisunique AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL";
    let rows = link.rows(sql, &[(&table, Type::OID)]).await?;
    rows.iter().map(|row| Ok(row.try_get::<_, Option<_>>(0)?.unwrap_or_default())).collect()
}

fn of_their_own(qualified: &str, table: &SinkTable) -> String {
    let mut name = format!("{}_{}", table.name, table.key.join("_"));
    // Postgres would cut it off, with a notice that nobody reads.
    while name.len() > super::schema::LONGEST_NAME {
        name.pop();
    }
    statement(&name, qualified, table)
}

fn statement(index: &str, qualified: &str, table: &SinkTable) -> String {
    format!("CREATE UNIQUE INDEX {} ON {qualified} ({})", quoted(index), key_columns(table).join(", "))
}

fn described(label: &str, table: &SinkTable) -> String {
    format!("{label}{}", key_columns(table).join(", "))
}

/// Returns a name that no other sink's key has, and that is short enough however long the others are.
fn index_name(owner: &Owner, table: &SinkTable) -> String {
    let whole = format!("{}\0{}\0{}\0{}", owner.pipeline, owner.sink, table.name, key_columns(table).join("\0"));
    // FNV-1a: the name is stored, so the hash has to be one that never changes.
    let hash = whole
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("tidegate_key_{hash:016x}")
}
