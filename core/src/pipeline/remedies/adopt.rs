//! `tidegate adopt`: a store and a spool that do not fit are made to, by the word of one of them.

use std::{fmt, path::PathBuf};

use super::{
    Rows, Stopped,
    course::{Course, Facts, Held, Loss, Trust},
    known_of,
    losses::{Count, Counted},
};
use crate::{
    Error, Result,
    chunk::Plan,
    delivery::{Extent, Noted, Opening, compare, overtaken},
    row::Timestamp,
    sink::{Claim, Owner, Sink, SinkContext},
    spool::{Control, SpoolPosition, SpoolReader, Standing},
};

/// What will happen, in numbers. Shown by `Display`.
#[derive(Debug)]
pub struct Adoption {
    stage: String,
    sink: String,
    trust: Trust,
    claim: Option<Claim>,
    keeps_position: bool,
    known: Option<SpoolPosition>,
    log: Extent,
    spool: u64,
    why: String,
    /// `None` where all fits.
    course: Option<Course>,
    rows: Vec<Rows>,
    entries: Vec<Control>,
    again: Rows,
    first: Rows,
    /// The store has rows of a time that the spool knows nothing of: gaps of it are asked for, and the answers are new to it.
    is_behind_store: bool,
}

impl Stopped {
    /// Looks at store, note and spool, and says what going by one of them means.
    ///
    /// # Errors
    ///
    /// `Config` for a sink that is not in the file; whatever the store says when it cannot be looked at.
    pub async fn adoption(&self, sink: &str, trust: Trust) -> Result<Adoption> {
        let stage = self.sink(sink)?;
        let (plan, owner) = (self.plan(stage)?, self.owner(stage)?);
        let mut store = (stage.factory)()?;
        let keeps_position = store.guarantee().keeps_position();
        let claim = store.claim(&owner).await?;
        let reader = self.reader();
        let (known, damage) = known_of(&self.folder.sinks(), sink);
        let (mut facts, why) = facts(&reader, &owner, claim.as_ref(), keeps_position, (known.noted().position, damage));
        if facts.store.is_none() && facts.known.is_some() {
            facts.held = held(&mut *store, &plan, owner.clone(), self.folder.sinks().join(sink)).await;
        }
        let course = facts.course(trust);
        let standing = facts.store.or(facts.known).map(|(_, standing)| standing);
        let is_behind_store = matches!(standing, Some(Standing::Ahead | Standing::OtherBoot));
        let had = [facts.known, facts.store.filter(|_| !facts.is_foreign)];
        let is_here = |(at, standing): (SpoolPosition, Standing)| (standing == Standing::Retained).then_some(at.offset);
        let counted = match &course {
            None => Counted::default(),
            Some(course) => Count {
                sink,
                sent_behind: Some(course.at.offset),
                had: had.into_iter().flatten().filter_map(is_here).max().unwrap_or(0),
                losses: &course.losses,
                names_of: &|source, table| plan.store_names(source, table),
            }
            .take(&reader)?,
        };
        let Counted { lost: rows, entries, again, first } = counted;
        Ok(Adoption {
            stage: format!("{}/sink.{sink}", self.pipeline.name),
            sink: sink.to_owned(),
            trust,
            claim,
            keeps_position,
            known: known.noted().position,
            log: facts.log,
            spool: owner.spool,
            why,
            course,
            rows,
            entries,
            again,
            first,
            is_behind_store,
        })
    }

    /// Does it: what the sink never gets is written down, the store's position is set, and so is the note beside the spool.
    ///
    /// # Errors
    ///
    /// Whatever the spool, the store or the disk says. The same command goes on from there.
    pub async fn adopt(self, adoption: Adoption) -> Result<()> {
        let Adoption { sink, course: Some(Course { at, .. }), entries, keeps_position, claim, .. } = adoption else {
            return Ok(());
        };
        let (stage, owner) = (self.sink(&sink)?.clone(), self.owner(self.sink(&sink)?)?);
        let (mut known, _) = known_of(&self.folder.sinks(), &sink);
        // Held until the end: nobody starts the pipeline on what is half done.
        let spool = self.keep(&entries)?;
        if keeps_position || claim.is_some() {
            let mut store = (stage.factory)()?;
            store.adopt(&owner, at).await?;
        }
        let entered = known.noted().entered;
        let noted = if at == SpoolPosition::START {
            // Whatever `start` says: nothing that the spool has is left out.
            Noted { begins_at: Some(at), entered, ..Noted::default() }
        } else {
            let begins_at = known.noted().begins_at.map(|began| if at.offset < began.offset { at } else { began });
            Noted { position: Some(at), begins_at, chain: Some(owner.chain), entered, changed: Some(at.offset) }
        };
        known.write(noted)?;
        drop(spool);
        Ok(())
    }
}

/// Puts together what is known, and why it does not fit.
fn facts(
    reader: &SpoolReader,
    owner: &Owner,
    claim: Option<&Claim>,
    keeps_position: bool,
    (known, damage): (Option<SpoolPosition>, Option<String>),
) -> (Facts, String) {
    let log = Extent { first: reader.oldest(), last: reader.end() };
    let place = |at: SpoolPosition| (at, reader.check(at));
    let known = known.map(place);
    let is_foreign = claim.is_some_and(|claim| claim.spool != owner.spool);
    let written = claim.filter(|claim| claim.position != SpoolPosition::START || is_foreign);
    let store = match written {
        Some(claim) if is_foreign => Some((claim.position, Standing::OtherBoot)),
        Some(claim) if keeps_position => Some(place(claim.position)),
        // Where the store keeps none, the note is its position; what it holds may still be more than the spool ever had.
        Some(claim) => Some(place(claim.position)).filter(|(_, standing)| overtaken(*standing).is_some()).or(known),
        None => known.filter(|_| !keeps_position),
    };
    let named = store.or(known).and_then(|(at, _)| reader.end_of(at.boot).filter(|end| end.offset <= at.offset));
    let fits = |place: &(SpoolPosition, Standing)| place.1 == Standing::Retained;
    let shared = named.or_else(|| known.filter(fits).map(|(at, _)| at));
    let gone = claim.map(|claim| claim.gone.clone()).unwrap_or_default();
    let why = match (&damage, compare(store, known, !keeps_position)) {
        (Some(damage), _) => damage.clone(),
        (None, _) if is_foreign => "the store was fed from another spool".to_owned(),
        (None, Opening::Mismatch(why)) => why.to_owned(),
        (None, _) if !gone.is_empty() => format!("`{}` was in the store and is gone", gone.join("`, `")),
        (None, _) => String::new(),
    };
    let held = Held::Unknown;
    (Facts { store, is_foreign, known, is_damaged: damage.is_some(), shared, log, gone, held }, why)
}

/// Asks a store that has no position whether its tables hold rows. One that cannot be asked says nothing.
async fn held(store: &mut dyn Sink, plan: &Plan, owner: Owner, directory: PathBuf) -> Held {
    let cx = SinkContext { owner, tables: plan.tables().to_vec(), directory, known: None };
    let asked = async {
        let Some(mut audit) = store.audit(&cx).await? else { return Ok(Held::Unknown) };
        let (mut gone, mut empty, mut has_rows) = (Vec::new(), Vec::new(), false);
        for table in plan.tables() {
            match audit.sums(table, Timestamp(i64::MIN)).await? {
                None => gone.push(table.name.clone()),
                Some(sums) if sums.is_empty() => empty.push(table.name.clone()),
                Some(_) => has_rows = true,
            }
        }
        // Beside tables with rows, one that is there and has none may never have had any.
        gone.extend(empty.into_iter().filter(|_| !has_rows));
        Ok::<_, Error>(Held::RowsBut(gone))
    };
    asked.await.unwrap_or(Held::Unknown)
}

impl Adoption {
    /// Returns whether there is anything to do.
    pub fn changes_something(&self) -> bool {
        self.course.is_some()
    }
}

impl fmt::Display for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.stage)?;
        self.positions(f)?;
        let Some(Course { at, losses }) = &self.course else {
            return writeln!(f, "they fit: there is nothing to do");
        };
        writeln!(f, "why      {}", self.why)?;
        writeln!(f, "--{}: the store goes on behind offset {}", self.trust.option(), at.offset)?;
        match self.again.sum() {
            0 => writeln!(f, "again    nothing")?,
            _ => writeln!(f, "again    {}; those that the store has are there twice then", self.again)?,
        }
        match self.first.sum() {
            0 => writeln!(f, "sent     nothing")?,
            _ => writeln!(f, "sent     {}, for the first time", self.first)?,
        }
        if self.is_behind_store {
            writeln!(
                f,
                "venue    the store has rows that this spool never had: what the venue repeats of that time comes again,"
            )?;
            writeln!(f, "         and is there twice then, but in a table with a `key` and on_conflict = \"ignore\"")?;
        }
        if losses.is_empty() {
            writeln!(f, "lost     nothing")?;
        }
        for (Loss { first, last, why, .. }, rows) in losses.iter().zip(&self.rows) {
            let what = match (first, last) {
                (0, 0) => "what came before this spool".to_owned(),
                _ if *last <= self.log.first.offset => format!("offsets {first} to {last}, rows unknown"),
                _ => format!("offsets {first} to {last}, {rows}"),
            };
            writeln!(f, "lost     {what}; {why}; the ledger says so, lost at {}", self.sink)?;
        }
        Ok(())
    }
}

impl Adoption {
    fn positions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.claim {
            Some(Claim { spool, host, .. }) if !self.keeps_position => {
                let what = "keeps no position, the one beside the spool counts; it was fed";
                writeln!(f, "store    {what} from spool {spool:016x}, last of host `{host}`")?;
            }
            None if !self.keeps_position => {
                writeln!(f, "store    keeps no position: the one beside the spool counts")?;
            }
            Some(Claim { position, spool, host, .. }) if *position != SpoolPosition::START => {
                writeln!(f, "store    {position}, of spool {spool:016x}, last of host `{host}`")?;
            }
            Some(_) | None => writeln!(f, "store    no position")?,
        }
        match self.known {
            Some(known) => writeln!(f, "known    {known}, beside the spool")?,
            None => writeln!(f, "known    nothing, beside the spool")?,
        }
        writeln!(f, "spool    behind {} up to {}, spool {:016x}", self.log.first, self.log.last, self.spool)
    }
}
