//! Where a sink goes on when a person has said what to go by. Pure.

use crate::{
    delivery::Extent,
    spool::{SpoolPosition, Standing},
};

/// What is gone by where a store and a spool do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The spool: the store is fed from what it still has, behind the last place that both are known to share. Nothing that
    /// the spool has is left out; what the store has got otherwise may be there twice.
    Log,
    /// The store: it goes on behind its own position. Where that is no place of this spool, it is taken to have all that
    /// the spool has by now. Nothing is sent twice; what is left out is lost at the sink.
    Store,
}

impl Trust {
    /// Returns the option's name.
    pub fn option(self) -> &'static str {
        match self {
            Self::Log => crate::delivery::FROM_LOG,
            Self::Store => crate::delivery::FROM_STORE,
        }
    }
}

/// A position with its place in the spool.
pub(super) type Place = (SpoolPosition, Standing);

/// What is known before anything is decided.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Where the store says it is.
    pub(super) store: Option<Place>,
    /// Whether the store was fed from another spool.
    pub(super) is_foreign: bool,
    /// The last known position beside the spool.
    pub(super) known: Option<Place>,
    /// Whether the note of it cannot be read.
    pub(super) is_damaged: bool,
    /// The last place that the spool has of the boot that the store names, or else the note.
    pub(super) shared: Option<SpoolPosition>,
    pub(super) log: Extent,
    /// Tables of the store that were there and are gone.
    pub(super) gone: Vec<String>,
}

/// Where the sink goes on, and what it never gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) at: SpoolPosition,
    pub(super) losses: Vec<Loss>,
}

/// Offsets that a sink never gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The tables that it is about, by their names in the store; all where there are none.
    pub(super) tables: Vec<String>,
    pub(super) why: String,
}

impl Facts {
    /// Returns what to do; `None` where all fits, and there is nothing to decide.
    pub(super) fn course(&self, trust: Trust) -> Option<Course> {
        match (self.store, self.known) {
            (Some((at, Standing::Retained | Standing::Dropped)), _) if !self.gone.is_empty() => Some(match trust {
                Trust::Log => self.behind(None),
                Trust::Store => {
                    let gone = self.gone.join("`, `");
                    let why = format!("`{gone}` was gone from the store, which went on without what had been in there");
                    Course { at, losses: loss(1, at.offset, &self.gone, why) }
                }
            }),
            (Some((at, Standing::Retained | Standing::Dropped)), _) => {
                self.is_damaged.then_some(Course { at, losses: Vec::new() })
            }
            (Some((at, Standing::Gone)), _) => Some(self.behind(Some(at))),
            (Some((_, Standing::Ahead | Standing::OtherBoot)), _) => {
                let shared = self.shared.filter(|_| !self.is_foreign);
                Some(match trust {
                    Trust::Log => self.behind(shared),
                    Trust::Store => self.past_all(shared),
                })
            }
            (None, Some((at, standing))) => Some(match (trust, standing) {
                (Trust::Log, _) => self.behind(None),
                (Trust::Store, Standing::Retained | Standing::Dropped | Standing::Gone) => self.behind(Some(at)),
                (Trust::Store, Standing::Ahead | Standing::OtherBoot) => self.past_all(self.shared),
            }),
            (None, None) => self.is_damaged.then(|| match trust {
                Trust::Log => self.behind(None),
                Trust::Store => self.past_all(None),
            }),
        }
    }

    /// Goes on behind a place, or with the oldest row that there is.
    fn behind(&self, place: Option<SpoolPosition>) -> Course {
        let oldest = self.log.first;
        match place {
            Some(at) if at.offset >= oldest.offset => Course { at, losses: Vec::new() },
            _ => {
                let had = place.map_or(0, |place| place.offset);
                let why = "the spool does not have it any more".to_owned();
                Course { at: oldest, losses: loss(had + 1, oldest.offset, &[], why) }
            }
        }
    }

    /// Goes on behind all that there is, of which the store is known to have what lies up to a place.
    fn past_all(&self, shared: Option<SpoolPosition>) -> Course {
        let had = shared.map_or(0, |shared| shared.offset).max(self.log.first.offset);
        let why = "left out: the store was gone by".to_owned();
        Course { at: self.log.last, losses: loss(had + 1, self.log.last.offset, &[], why) }
    }
}

fn loss(first: u64, last: u64, tables: &[String], why: String) -> Vec<Loss> {
    if first > last { Vec::new() } else { vec![Loss { first, last, tables: tables.to_vec(), why }] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{Boot, Standing::*};

    #[test]
    fn what_fits_is_left_alone_whatever_is_gone_by() {
        for trust in [Trust::Log, Trust::Store] {
            assert_eq!(facts(Some((at(500), Retained)), Some((at(400), Retained))).course(trust), None);
            assert_eq!(facts(Some((at(50), Dropped)), None).course(trust), None, "dropped on purpose");
            assert_eq!(facts(None, None).course(trust), None, "a new sink");
        }
    }

    #[test]
    fn a_store_without_its_position_is_fed_with_all_there_is_or_goes_on_where_it_was() {
        let facts = facts(None, Some((at(500), Retained)));
        assert_eq!(course(&facts, Trust::Log), (100, vec![(1, 100)]), "what the spool has no more is lost there");
        assert_eq!(course(&facts, Trust::Store), (500, vec![]));
    }

    #[test]
    fn a_store_that_lacks_what_the_spool_has_no_more_loses_just_that() {
        let facts = facts(Some((at(20), Gone)), Some((at(800), Retained)));
        for trust in [Trust::Log, Trust::Store] {
            assert_eq!(course(&facts, trust), (100, vec![(21, 100)]));
        }
    }

    #[test]
    fn a_store_of_another_history_is_fed_behind_what_both_have_or_passes_over_all_there_is() {
        for standing in [Ahead, OtherBoot] {
            let facts =
                Facts { shared: Some(at(700)), ..facts(Some((at(1_000), standing)), Some((at(700), Retained))) };
            assert_eq!(course(&facts, Trust::Log), (700, vec![]));
            assert_eq!(course(&facts, Trust::Store), (900, vec![(701, 900)]));
            let foreign = Facts { is_foreign: true, ..facts };
            assert_eq!(course(&foreign, Trust::Log), (100, vec![(1, 100)]), "they share nothing");
            assert_eq!(course(&foreign, Trust::Store), (900, vec![(101, 900)]));
        }
    }

    #[test]
    fn a_note_that_cannot_be_read_is_done_without() {
        let damaged = |facts: Facts| Facts { is_damaged: true, ..facts };
        let with_store = damaged(facts(Some((at(500), Retained)), None));
        assert_eq!([Trust::Log, Trust::Store].map(|trust| course(&with_store, trust).0), [500, 500]);
        let with_nothing = damaged(facts(None, None));
        assert_eq!([Trust::Log, Trust::Store].map(|trust| course(&with_nothing, trust).0), [100, 900]);
    }

    #[test]
    fn a_table_that_is_gone_is_filled_again_with_all_others_or_lost_up_to_the_position() {
        let gone = vec!["trades".to_owned()];
        let facts = Facts { gone: gone.clone(), ..facts(Some((at(500), Retained)), Some((at(500), Retained))) };
        assert_eq!(course(&facts, Trust::Log), (100, vec![(1, 100)]));
        let Course { at, losses } = facts.course(Trust::Store).unwrap();
        assert_eq!((at.offset, losses[0].first, losses[0].last, &losses[0].tables), (500, 1, 500, &gone));
    }

    #[test]
    fn what_was_decided_once_fits_afterwards() {
        let standings = [Retained, Dropped, Ahead, OtherBoot, Gone];
        let places = |offset: u64| standings.map(|standing| Some((at(offset), standing))).into_iter().chain([None]);
        for (store, known, trust) in places(500)
            .flat_map(|store| places(600).map(move |known| (store, known)))
            .flat_map(|(store, known)| [Trust::Log, Trust::Store].map(|trust| (store, known, trust)))
        {
            let before = Facts { shared: Some(at(300)), ..facts(store, known) };
            let Some(Course { at: place, .. }) = before.course(trust) else { continue };
            assert!((100..=900).contains(&place.offset), "{before:?}");
            let after = facts(Some((place, Retained)), Some((place, Retained)));
            assert_eq!(after.course(trust), None, "{before:?}");
        }
    }

    /// Returns what is known of a store that was fed from this spool, which has what lies behind 100 up to 900.
    fn facts(store: Option<Place>, known: Option<Place>) -> Facts {
        let log = Extent { first: at(100), last: at(900) };
        Facts { store, is_foreign: false, known, is_damaged: false, shared: None, log, gone: Vec::new() }
    }

    fn course(facts: &Facts, trust: Trust) -> (u64, Vec<(u64, u64)>) {
        let Course { at, losses } = facts.course(trust).expect("there is something to decide");
        (at.offset, losses.iter().map(|loss| (loss.first, loss.last)).collect())
    }

    const fn at(offset: u64) -> SpoolPosition {
        SpoolPosition { boot: Boot(7), offset }
    }
}
