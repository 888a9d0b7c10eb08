//! Two who take a store for theirs: one of them is shut out, for good.

use std::time::Instant;

use super::super::{
    Verdict, broken,
    case::{Case, TICK, is_transient},
    left_out,
};
use crate::{
    Error,
    sink::{Sink, SinkContext, Written},
};

/// A younger owner shuts the older one out, or is kept out by it as long as that lives. Never both write.
pub(super) async fn two_owners(case: &mut Case) -> Verdict {
    case.needs_position()?;
    if !case.bench.fences() {
        return left_out("the store cannot tell two owners apart, the bench says");
    }
    let mut older = case.opened().await?;
    case.feed(5);
    let chunk = case.chunk();
    case.commit(&mut *older, &chunk).await?;
    let mut younger = case.bench.sink();
    if let Err(error) = younger.open(&case.cx).await {
        case.note("the younger is kept out");
        case.feed(5);
        let chunk = case.chunk();
        case.commit(&mut *older, &chunk).await?;
        older.close().await?;
        drop(older);
        case.open(&mut *younger).await.map_err(|stop| {
            super::position::with(
                &stop,
                &format!("after the older one has ended, which had kept it out ({})", error.chain()),
            )
        })?;
    } else {
        case.note("the older is shut out");
        shut_out(case, &mut *older).await?;
    }
    case.feed(5);
    let chunk = case.chunk();
    case.commit(&mut *younger, &chunk).await?;
    younger.check().await?;
    case.holds().await
}

/// The older one writes nothing more, says so when it is asked, and does not take the store back.
async fn shut_out(case: &mut Case, older: &mut dyn Sink) -> Verdict {
    case.feed(5);
    let chunk = case.chunk();
    match older.write(&chunk).await {
        Ok(Written::Committed) => {
            return broken("the older owner commits after a younger one has taken over");
        }
        Ok(Written::Accepted | Written::Refused(_)) | Err(_) => {}
    }
    case.holds().await?;
    if older.check().await.is_ok() {
        return broken("`check` of the older owner says that all is well");
    }
    match permanent(case, older).await? {
        Some(_) => Ok(()),
        None => broken("the older owner takes the store back: the two will shut each other out for ever"),
    }
}

/// A position that belongs to another spool is not taken, and stays as it is.
pub(super) async fn another_spool(case: &mut Case) -> Verdict {
    case.needs_position()?;
    let mut sink = case.opened().await?;
    case.feed(5);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    sink.close().await?;
    drop(sink);
    let ours = case.cx.clone();
    let mut owner = ours.owner.clone();
    owner.spool ^= 0xffff;
    case.cx = SinkContext { owner, known: None, ..ours.clone() };
    let mut stranger = case.bench.sink();
    let refused = permanent(case, &mut *stranger).await?;
    drop(stranger);
    case.cx = ours;
    if refused.is_none() {
        return broken("`open` takes a position that belongs to another spool");
    }
    let mut sink = case.opened().await?;
    case.feed(5);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    case.holds().await
}

/// Opens until it is done or a person is needed: then returns why.
pub(super) async fn permanent(case: &mut Case, sink: &mut dyn Sink) -> Verdict<Option<Error>> {
    let deadline = case.deadline();
    loop {
        match sink.open(&case.cx).await {
            Ok(_) => return Ok(None),
            Err(error) if !is_transient(&error) => return Ok(Some(error)),
            Err(error) if Instant::now() >= deadline => {
                return broken(format!("it goes on as if waiting would mend it: {}", error.chain()));
            }
            Err(_) => tokio::time::sleep(TICK).await,
        }
    }
}
