//! Chunks in order, each once: what `open` says is the end of the last one that counts.

use super::super::{
    Stop, Verdict, broken,
    case::{Case, is_transient, shown},
    left_out,
};
use crate::{
    sink::Written,
    spool::{Boot, SpoolPosition},
};

/// A store that is known to have been written to, and has no position, is not begun anew: it is another one.
pub(super) async fn emptied_store(case: &mut Case) -> Verdict {
    case.needs_position()?;
    case.cx.known = Some(SpoolPosition { boot: Boot(7), offset: 1_000 });
    let mut sink = case.bench.sink();
    let positions = sink.open(&case.cx).await?;
    if let Some((_, at)) = positions.first() {
        return broken(format!("`open` answers {at}, of a store that has nothing"));
    }
    drop(sink);
    if let Some(claim) = case.bench.sink().claim(&case.cx.owner).await? {
        return broken(format!("`open` has begun a position in a store that was emptied: {claim:?}"));
    }
    case.holds_rows().await
}

/// A store that was never written to has no position and no rows.
pub(super) async fn new_store(case: &mut Case) -> Verdict {
    let mut sink = case.bench.sink();
    for time in ["first", "second"] {
        let positions = sink.open(&case.cx).await?;
        if !positions.is_empty() {
            let at = shown(positions.first().map(|(_, at)| *at));
            return broken(format!("`open` answers {at} the {time} time, of a store that was never written to"));
        }
    }
    case.holds_rows().await?;
    let said = sink.guarantee();
    if said.to_string().is_empty() {
        return broken("`guarantee` says nothing");
    }
    sink.close().await?;
    drop(sink);
    case.feed(3);
    let mut sink = case.opened().await?;
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    case.holds().await
}

/// Chunks of both tables, over three openings of the spool, by one session and by one after the other.
pub(super) async fn chunks_in_order(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    for boot in [0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0001, 1] {
        for count in [1, 7, 100] {
            case.feed(count);
            let chunk = case.chunk();
            case.commit(&mut *sink, &chunk).await?;
            case.holds().await?;
        }
        case.open(&mut *sink).await?;
        drop(sink);
        case.log.reboot_as(Boot(boot));
        sink = case.opened().await?;
    }
    sink.check().await.map_err(|error| Stop::Broken(format!("`check` fails: {}", error.chain())))?;
    case.holds().await
}

/// The same chunk by the same session, by the same one opened again, and by another.
pub(super) async fn same_chunk_twice(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    case.feed(20);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    for again in ["at once", "after `open`", "by a new sink"] {
        match again {
            "at once" => {}
            "after `open`" => case.open(&mut *sink).await?,
            _ => {
                drop(sink);
                sink = case.opened().await?;
            }
        }
        let written = sink.write(&chunk).await;
        if let (Ok(Written::Committed), true) = (&written, case.keeps_position()) {
            case.holds_rows().await.map_err(|stop| with(&stop, &format!("the same chunk {again}")))?;
            return broken(format!("the same chunk {again} is committed: the store does not guard its position"));
        }
        if let Ok(Written::Accepted) = written {
            case.wait_applied(&mut *sink, chunk.to).await?;
        }
        case.open(&mut *sink).await?;
        case.holds().await.map_err(|stop| with(&stop, &format!("the same chunk {again}")))?;
    }
    case.feed(3);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    case.holds().await
}

/// A chunk that begins where the store does not stand: further on, behind, in another history.
pub(super) async fn chunk_from_elsewhere(case: &mut Case) -> Verdict {
    case.needs_position()?;
    let mut sink = case.opened().await?;
    case.feed(10);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    case.feed(10);
    let fits = case.chunk();
    let further = SpoolPosition { offset: fits.from.offset + 1, ..fits.from };
    let behind = SpoolPosition { offset: fits.from.offset - 1, ..fits.from };
    let other = SpoolPosition { boot: Boot(fits.from.boot.0 ^ 1), ..fits.from };
    for (what, from) in [("further on", further), ("behind", behind), ("in another history", other)] {
        let mut elsewhere = fits.clone();
        elsewhere.from = from;
        match sink.write(&elsewhere).await {
            Err(error) if is_transient(&error) => {}
            Err(error) => {
                return broken(format!("a missed guard is not transient, and `open` decides: {}", error.chain()));
            }
            Ok(written) => {
                return broken(format!(
                    "a chunk that begins {what} than the store stands is answered with {written:?}"
                ));
            }
        }
        case.open(&mut *sink).await?;
        case.holds().await?;
    }
    case.commit(&mut *sink, &fits).await?;
    case.holds().await
}

/// An empty chunk moves the position, and nothing else.
pub(super) async fn empty_chunk(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    for count in [0, 3, 0] {
        case.feed(count);
        let chunk = case.chunk();
        if !chunk.is_empty() {
            case.commit(&mut *sink, &chunk).await?;
        }
        let empty = case.empty_chunk();
        case.commit(&mut *sink, &empty).await?;
        case.open(&mut *sink).await?;
        case.holds().await?;
    }
    Ok(())
}

/// One chunk of very many rows.
pub(super) async fn huge_chunk(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    case.feed(case.bench.huge());
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    case.holds().await?;
    drop(sink);
    let mut sink = case.opened().await?;
    case.feed(1);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    case.holds().await
}

/// Many chunks, each written as soon as the last one was accepted.
pub(super) async fn back_pressure(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    let mut is_accepting = false;
    for round in ["waited for", "given up"] {
        case.feed(200);
        let chunks = case.chunks(5);
        for chunk in &chunks {
            match sink.write(chunk).await? {
                Written::Committed => {}
                Written::Accepted => is_accepting = true,
                Written::Refused(_) => return broken("`write` refuses rows that it took before"),
            }
        }
        if !is_accepting {
            chunks.iter().for_each(|chunk| case.counts(chunk));
            case.holds().await?;
            return left_out("no write was accepted: each is committed at once");
        }
        let last = chunks.last().map_or(case.at, |chunk| chunk.to);
        if round == "waited for" {
            case.wait_applied(&mut *sink, last).await?;
            chunks.iter().for_each(|chunk| case.counts(chunk));
        } else {
            drop(sink);
            sink = case.bench.sink();
            let at = case.stands(&mut *sink).await?.unwrap_or(case.at);
            let ends = chunks.iter().map(|chunk| chunk.to).chain([case.at]);
            if !ends.clone().any(|end| end == at) {
                return broken(format!("`open` answers {at}, which is not the end of a chunk"));
            }
            let (there, lost): (Vec<_>, Vec<_>) = chunks.iter().partition(|chunk| chunk.to.offset <= at.offset);
            there.into_iter().for_each(|chunk| case.counts(chunk));
            for chunk in lost {
                case.commit(&mut *sink, chunk).await?;
            }
        }
        case.holds().await?;
    }
    Ok(())
}

/// `close` makes everything durable that was accepted; the sink can be opened again.
pub(super) async fn shutdown(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    case.feed(30);
    for chunk in case.chunks(10) {
        if let Written::Refused(_) = sink.write(&chunk).await? {
            return broken("`write` refuses plain rows");
        }
        case.counts(&chunk);
    }
    sink.close().await?;
    case.holds().await?;
    drop(sink);
    let mut sink = case.opened().await?;
    sink.close().await?;
    case.open(&mut *sink).await?;
    case.feed(2);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    sink.close().await?;
    case.holds().await
}

/// Says in which part of a check it was.
pub(super) fn with(stop: &Stop, part: &str) -> Stop {
    match stop {
        Stop::Broken(what) => Stop::Broken(format!("{part}: {what}")),
        Stop::LeftOut(why) => Stop::LeftOut(why.clone()),
    }
}
