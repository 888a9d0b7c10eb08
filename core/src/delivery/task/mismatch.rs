//! What is said where a store and a spool do not fit: the three positions, and what a person can do about them.

use super::{
    super::{
        event::Event,
        log::Log,
        opening::{Extent, FROM_LOG, FROM_STORE, misfit_of_part, three, three_of_part},
    },
    Delivery,
};
use crate::{Error, Kind, spool::SpoolPosition};

impl<L: Log> Delivery<L> {
    /// Returns what a person has to know where a store is not opened since it was fed from another spool, or has lost tables;
    /// `None` where something else is in the way.
    pub(super) async fn claimed_otherwise(&mut self, error: &Error, known: Option<SpoolPosition>) -> Option<Event> {
        if error.kind() != Kind::Permanent || !self.part.is_spool() {
            return None;
        }
        let (owner, extent) = (self.context(known).owner, self.feeder().log().extent());
        let (sink, mut guard) = self.sink("asking whose the store is", self.config.timeout.0).ok()?;
        let claim = guard.call(sink.claim(&owner)).await.ok()??;
        if claim.spool == owner.spool && claim.gone.is_empty() {
            return None;
        }
        Some(self.mismatch(&error.chain(), Some(claim.position), known, extent))
    }

    /// Says why a store and a spool do not fit, names the three positions, and what to do.
    pub(super) fn mismatch(
        &self,
        why: &str,
        store: Option<SpoolPosition>,
        known: Option<SpoolPosition>,
        log: Extent,
    ) -> Event {
        let (why, found, remedy) = if self.part.is_spool() {
            (why, three(store, known, log), self.remedy())
        } else {
            (misfit_of_part(why), three_of_part(store, known, log), self.remedy_of_part())
        };
        Event::Mismatch(format!("{why}. {found}. {remedy}"))
    }

    /// Says what to do about a store and a part of another log that do not fit. There is no command for it: whoever runs on
    /// other hosts reads the same part, and only the store is common to all.
    fn remedy_of_part(&self) -> String {
        let Self { pipeline, name, part, directory, .. } = self;
        format!(
            "Nothing of `{0}` is written until they fit: bring back what belongs to the other; or stop all loaders, remove \
             `{file}.json` on each host, and say in the store itself where to go on: the row of pipeline `{pipeline}`, sink \
             `{name}` and part `{0}` in its table of positions; without the row the part is stored from its beginning, rows \
             that are there a second time",
            part.0,
            file = directory.display(),
        )
    }

    /// Says what to do about a store and a spool that do not fit.
    fn remedy(&self) -> String {
        format!(
            "Nothing is written until they fit: bring back the store or the spool that belongs to the other, and start \
             again; or stop, and say which of the two is to be gone by. Both commands say what they will do, in numbers, \
             before they do it: {} feeds the store from what the spool still has, {} goes on where the store is",
            self.commands.adopt(&self.name, FROM_LOG),
            self.commands.adopt(&self.name, FROM_STORE)
        )
    }
}
