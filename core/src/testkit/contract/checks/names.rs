//! Names of tables and columns that a store has to quote.

use super::{
    super::{
        Verdict, broken,
        case::{Case, EVERYTHING, is_transient, new_log},
        rows::NAMES,
        stored::Contents,
    },
    position::with,
};
use crate::spool::SpoolPosition;

/// Keywords, spaces, quotes, Persian letters: as a table's name, and as columns'.
pub(super) async fn names(case: &mut Case) -> Verdict {
    for name in NAMES {
        begin_anew(case, name);
        let is_refused = case.bench.refuses_table(name);
        opens_or_refuses(case, name, is_refused).await.map_err(|stop| with(&stop, &format!("table `{name}`")))?;
    }
    begin_anew(case, "everything");
    case.cx.tables.truncate(2);
    case.with_strange_names();
    case.cx.tables[2].name = case.bench.table_name("strange");
    let refused = NAMES.into_iter().find(|name| case.bench.refuses_column(name));
    case.feed_strange();
    opens_or_refuses(case, refused.unwrap_or_default(), refused.is_some()).await.map_err(|stop| with(&stop, "columns"))
}

async fn opens_or_refuses(case: &mut Case, name: &str, is_refused: bool) -> Verdict {
    let mut sink = case.bench.sink();
    match sink.open(&case.cx).await {
        Err(error) if is_refused && !is_transient(&error) => {
            return if error.chain().contains(name) {
                Ok(())
            } else {
                broken(format!("`open` refuses a name and does not say which: {}", error.chain()))
            };
        }
        Err(error) => return broken(format!("`open` fails: {}", error.chain())),
        Ok(_) if is_refused => return broken("`open` takes a name that the bench says is refused"),
        Ok(_) => {}
    }
    for _ in 0..2 {
        case.feed(5);
        let chunk = case.chunk();
        case.commit(&mut *sink, &chunk).await?;
        case.open(&mut *sink).await?;
    }
    sink.close().await?;
    case.holds().await
}

/// Goes on as another pipeline, which calls its first table `name`, and has written nothing yet.
pub(super) fn begin_anew(case: &mut Case, name: &str) {
    let n = case.number();
    case.cx.owner.pipeline = format!("contract{n}");
    case.cx.tables[EVERYTHING].name = case.bench.table_name(name);
    case.cx.tables[1].name = case.bench.table_name(&format!("others{n}"));
    case.cx.known = None;
    case.log = new_log();
    case.at = SpoolPosition::START;
    for number in 0..case.cx.tables.len() {
        *case.contents(number) = Contents::default();
    }
}
