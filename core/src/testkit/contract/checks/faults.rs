//! What fails between a sink and its store: whatever it is, each row is there once in the end.

use std::{future::Future, pin::pin, task::Poll, time::Duration, time::Instant};

use super::{
    super::{
        Verdict, broken,
        case::{Case, EVERYTHING, TICK, is_transient},
        left_out,
        stored::{Contents, rows_of},
    },
    position::with,
};
use crate::{
    Error, Result,
    chunk::Chunk,
    sink::{Sink, Written},
    spool::SpoolPosition,
    testkit::Way,
};

/// Drops `write` after its n-th poll, for every n until it ends by itself; every second time the process dies, too.
pub(super) async fn write_given_up(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    let (mut given_up, mut landed, mut ended) = (0, 0, 0);
    for polls in 0..MOST_POLLS {
        case.feed(4);
        let chunk = case.chunk();
        let answer = given_up_after(polls, sink.write(&chunk)).await;
        if polls % 2 == 1 {
            drop(sink);
            sink = case.bench.sink();
        }
        let is_there = case.settle(&mut *sink, &chunk).await?;
        match answer {
            Some(Ok(Written::Committed)) if !is_there && case.keeps_position() => {
                return broken(format!("a commit that was answered is not there: `open` says {}", case.at));
            }
            Some(Ok(Written::Refused(_))) => return broken("`write` refuses plain rows"),
            Some(Ok(Written::Committed | Written::Accepted) | Err(_)) => ended += 1,
            None => {
                given_up += 1;
                landed += u32::from(is_there);
            }
        }
        if !is_there {
            case.insist(&mut *sink, &chunk).await?;
        }
        case.holds().await.map_err(|stop| with(&stop, &format!("given up after {polls} polls")))?;
        if ended > 4 {
            break;
        }
    }
    case.note(format!("{given_up} given up, {landed} of them had landed"));
    Ok(())
}

/// Drops `open` after its n-th poll: first of a new store, each time from what the last one left, then of one that is there.
pub(super) async fn open_given_up(case: &mut Case) -> Verdict {
    let mut sink = case.bench.sink();
    let mut given_up = 0;
    for polls in 0..MOST_POLLS {
        if given_up_after(polls, sink.open(&case.cx)).await.is_some_and(|opened| opened.is_ok()) {
            break;
        }
        given_up += 1;
        if polls % 2 == 1 {
            drop(sink);
            sink = case.bench.sink();
        }
    }
    let mut ended = 0;
    for polls in 0..MOST_POLLS {
        let opened = given_up_after(polls, sink.open(&case.cx)).await;
        ended += u32::from(opened.is_some());
        case.open(&mut *sink)
            .await
            .map_err(|stop| with(&stop, &format!("after an `open` given up at poll {polls}")))?;
        case.feed(3);
        let chunk = case.chunk();
        case.commit(&mut *sink, &chunk).await?;
        if ended > 4 {
            break;
        }
    }
    case.note(format!("{given_up} given up on a new store"));
    case.holds().await
}

/// Cuts the connection after so many bytes of a commit, in each direction: before, within and behind it.
pub(super) async fn cut_anywhere(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    let Some(before) = passed(case) else { return left_out("the bench has no proxy") };
    case.feed(ROWS);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    let Some(after) = passed(case) else { return left_out("the bench has no proxy any more") };
    let (mut landed, mut lost) = (0, 0);
    for (n, way) in [Way::ToServer, Way::ToClient].into_iter().enumerate() {
        let bytes = after[n] - before[n];
        // In between, and close to the end: there the commit is.
        let steps = (0..16).map(|step| bytes * step / 16).chain((1..=8).map(|back| bytes.saturating_sub(back * back)));
        for bytes in steps {
            case.feed(ROWS);
            let chunk = case.chunk();
            if let Some(proxy) = case.bench.proxy() {
                proxy.cut_after(way, bytes);
            }
            let answer = attempt(case, &mut *sink, &chunk).await;
            if let Some(proxy) = case.bench.proxy() {
                proxy.heal();
            }
            let is_there = case.settle(&mut *sink, &chunk).await?;
            match answer {
                Ok(()) if !is_there && case.keeps_position() => {
                    return broken(format!("a commit that was answered is not there: `open` says {}", case.at));
                }
                Ok(()) => {}
                Err(error) if !is_transient(&error) => {
                    return broken(format!("a connection that is cut needs a person: {}", error.chain()));
                }
                Err(_) if is_there => landed += 1,
                Err(_) => lost += 1,
            }
            if !is_there {
                case.insist(&mut *sink, &chunk).await?;
            }
            case.holds().await.map_err(|stop| with(&stop, &format!("cut after {bytes} bytes {way:?}")))?;
        }
    }
    case.note(format!("{lost} commits cut off, {landed} answers lost"));
    let is_seen = lost > 0 && (landed > 0 || !case.keeps_position());
    if !is_seen && !case.bench.heals_itself() {
        return broken(format!("{lost} commits were cut off and {landed} answers lost: the check has shown nothing"));
    }
    Ok(())
}

/// Lets every byte arrive late.
pub(super) async fn slow_store(case: &mut Case) -> Verdict {
    let Some(proxy) = case.bench.proxy() else { return left_out("the bench has no proxy") };
    proxy.delay(Duration::from_millis(10));
    let mut sink = case.opened().await?;
    for count in [1, ROWS] {
        case.feed(count);
        let chunk = case.chunk();
        case.commit(&mut *sink, &chunk).await?;
    }
    sink.check().await?;
    sink.close().await?;
    case.holds().await
}

/// A store that answers nothing: the driver gives the call up, and the store goes on later.
pub(super) async fn frozen_store(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    for what in ["a write", "an open", "a write by a process that dies"] {
        case.feed(ROWS);
        let chunk = case.chunk();
        if !freeze(case).await {
            return left_out("the bench can freeze neither its store nor the way to it");
        }
        let waited = if what == "an open" {
            tokio::time::timeout(GIVEN_UP_AFTER, sink.open(&case.cx)).await.map(|opened| opened.map(drop))
        } else {
            tokio::time::timeout(GIVEN_UP_AFTER, sink.write(&chunk)).await.map(|written| written.map(drop))
        };
        if what == "a write by a process that dies" {
            drop(sink);
            sink = case.bench.sink();
        }
        thaw(case).await;
        if let Ok(Err(error)) = waited
            && !is_transient(&error)
        {
            return broken(format!("a store that answers nothing needs a person: {}", error.chain()));
        }
        if !case.settle(&mut *sink, &chunk).await? {
            case.insist(&mut *sink, &chunk).await?;
        }
        case.holds().await.map_err(|stop| with(&stop, what))?;
    }
    Ok(())
}

/// A store that takes no connection: every call says so, as something that waiting mends.
pub(super) async fn store_down(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    case.feed(5);
    let chunk = case.chunk();
    let Some(proxy) = case.bench.proxy() else { return left_out("the bench has no proxy") };
    proxy.take_down();
    let patience = case.bench.patience();
    let checked = tokio::time::timeout(patience, sink.check()).await.map(|checked| checked.map(drop));
    let written = Ok(attempt(case, &mut *sink, &chunk).await);
    let opened = tokio::time::timeout(patience, sink.open(&case.cx)).await.map(|opened| opened.map(drop));
    for (call, ended) in [("check", checked), ("write", written), ("open", opened)] {
        match ended {
            Err(_) => return broken(format!("`{call}` does not end, of a store that takes no connection")),
            Ok(Ok(())) => {
                return broken(format!("`{call}` says that all is well, of a store that takes no connection"));
            }
            Ok(Err(error)) if is_transient(&error) => {}
            Ok(Err(error)) => {
                return broken(format!("`{call}` needs a person where waiting would do: {}", error.chain()));
            }
        }
    }
    if let Some(proxy) = case.bench.proxy() {
        proxy.heal();
    }
    if !case.settle(&mut *sink, &chunk).await? {
        case.insist(&mut *sink, &chunk).await?;
    }
    case.holds().await
}

/// A store that is killed and started again: while nothing is written, and under way.
pub(super) async fn restarted_store(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    case.feed(ROWS);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    if !case.bench.restart().await {
        return left_out("the bench cannot restart its store");
    }
    case.feed(3);
    let chunk = case.chunk();
    case.insist(&mut *sink, &chunk).await?;
    case.holds().await?;
    for _ in 0..3 {
        case.feed(20 * ROWS);
        let chunk = case.chunk();
        let patience = case.bench.patience();
        let written = tokio::time::timeout(patience, sink.write(&chunk));
        // What it answers is not asked: `open` is.
        let (_, _) = tokio::join!(written, case.bench.restart());
        if !case.settle(&mut *sink, &chunk).await? {
            case.insist(&mut *sink, &chunk).await?;
        }
        case.holds().await?;
    }
    Ok(())
}

/// A table that is gone is not made anew silently: what was in it is lost, and somebody has to know.
pub(super) async fn table_dropped(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    case.feed(10);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    let table = case.cx.tables[EVERYTHING].clone();
    if !case.bench.drop_table(&table).await {
        return left_out("the bench cannot drop a table");
    }
    case.feed(10);
    let chunk = case.chunk();
    match until_permanent(case, &mut *sink, &chunk).await? {
        None => broken("rows are committed after their table was dropped: nobody is told that it was"),
        Some(error) if error.chain().contains(&table.name) => Ok(()),
        Some(error) => broken(format!("the table that was dropped is not named: {}", error.chain())),
    }
}

/// A column that is gone is made again, or named to a person; no row is written without its value.
pub(super) async fn column_dropped(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    case.feed(10);
    let first = case.chunk();
    case.commit(&mut *sink, &first).await?;
    let table = case.cx.tables[EVERYTHING].clone();
    if !case.bench.drop_column(&table, "number").await {
        return left_out("the bench cannot drop a column");
    }
    case.feed(10);
    let chunk = case.chunk();
    if let Some(error) = until_permanent(case, &mut *sink, &chunk).await? {
        let text = error.chain();
        case.note("a person is told");
        return if text.contains("number") { Ok(()) } else { broken(format!("the column is not named: {text}")) };
    }
    let mut left = Contents::default();
    let form = case.form(EVERYTHING);
    for row in first.tables.iter().filter(|part| part.table == EVERYTHING).flat_map(|part| rows_of(&part.rows)) {
        let row = row.into_iter().filter(|(name, _)| name != "number").collect();
        left.add(form.text(&row));
    }
    *case.contents(EVERYTHING) = left;
    let other = rows_of_other(case, &first);
    *case.contents(1) = other;
    case.counts(&chunk);
    case.note("it is made again");
    case.holds().await
}

fn rows_of_other(case: &Case, chunk: &Chunk) -> Contents {
    let mut contents = Contents::default();
    let form = case.form(1);
    for row in chunk.tables.iter().filter(|part| part.table == 1).flat_map(|part| rows_of(&part.rows)) {
        contents.add(form.text(&row));
    }
    contents
}

/// Writes as the driver does until the chunk is there, or a person is needed: then returns why.
async fn until_permanent(case: &mut Case, sink: &mut dyn Sink, chunk: &Chunk) -> Verdict<Option<Error>> {
    let deadline = case.deadline();
    let mut is_open = true;
    loop {
        let tried = if is_open { case.attempt(sink, chunk).await } else { Ok(()) };
        let error = match tried {
            Ok(()) if is_open => return Ok(None),
            Err(error) if !is_transient(&error) => return Ok(Some(error)),
            Ok(()) | Err(_) => match sink.open(&case.cx).await {
                Ok(positions) => {
                    let at = positions.first().map(|(_, at)| *at);
                    if at.is_some_and(|at: SpoolPosition| at == chunk.to) {
                        return Ok(None);
                    }
                    is_open = true;
                    continue;
                }
                Err(error) if !is_transient(&error) => return Ok(Some(error)),
                Err(error) => error,
            },
        };
        is_open = false;
        if Instant::now() >= deadline {
            return broken(format!("it goes on as if waiting would mend it: {}", error.chain()));
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn attempt(case: &mut Case, sink: &mut dyn Sink, chunk: &Chunk) -> Result<()> {
    let patience = case.bench.patience();
    let ended = tokio::time::timeout(patience, case.attempt(sink, chunk)).await;
    ended.unwrap_or_else(|_| Err(Error::transient("the call was given up")))
}

fn passed(case: &Case) -> Option<[u64; 2]> {
    let proxy = case.bench.proxy()?;
    Some([proxy.passed(Way::ToServer), proxy.passed(Way::ToClient)])
}

async fn freeze(case: &mut Case) -> bool {
    if case.bench.freeze().await {
        return true;
    }
    let Some(proxy) = case.bench.proxy() else { return false };
    proxy.freeze();
    true
}

async fn thaw(case: &mut Case) {
    case.bench.thaw().await;
    if let Some(proxy) = case.bench.proxy() {
        proxy.heal();
    }
}

/// Polls a future so many times, then drops it; none if it had not ended by then.
async fn given_up_after<T>(polls: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = future.as_mut().poll(cx).map(Some);
        if polled.is_pending() && left == 0 {
            cx.waker().wake_by_ref();
        }
        polled
    })
    .await
}

/// How many rows a chunk has whose way to the store is cut.
const ROWS: u64 = 60;

/// More often no call is polled before it is given up: then it waits for something that does not come from its own doing.
const MOST_POLLS: u32 = 400;

/// How long a driver waits for a store that answers nothing, in tests.
const GIVEN_UP_AFTER: Duration = Duration::from_millis(300);
