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
    /// What a store without a position holds.
    pub(super) held: Held,
}

/// What a store holds that has lost its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Held {
    /// Nobody can tell.
    Unknown,
    /// Rows, in all tables but these.
    RowsBut(Vec<String>),
}

/// Where the sink goes on, and what it never gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) at: SpoolPosition,
    pub(super) losses: Vec<Loss>,
}

/// Offsets that a sink never gets; 0 to 0 is what came before the first one.
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
                    Course { at, losses: self.loss(1, at.offset, &self.gone, &why) }
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
                .map(|course| if shared.is_none() { course.after_another_spool() } else { course })
            }
            (None, Some((at, standing))) => Some(match (trust, standing) {
                (Trust::Log, _) => self.behind(None),
                (Trust::Store, Standing::Retained | Standing::Dropped | Standing::Gone) => {
                    self.without_what_is_gone(self.behind(Some(at)), at.offset)
                }
                (Trust::Store, Standing::Ahead | Standing::OtherBoot) => {
                    let had = self.shared.map_or(0, |shared| shared.offset);
                    let course = self.without_what_is_gone(self.past_all(self.shared), had);
                    if self.shared.is_none() { course.after_another_spool() } else { course }
                }
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
                let why = "the spool does not have it any more";
                Course { at: oldest, losses: self.loss(had + 1, oldest.offset, &[], why) }
            }
        }
    }

    /// Goes on behind all that there is, of which the store is known to have what lies up to a place.
    fn past_all(&self, shared: Option<SpoolPosition>) -> Course {
        let had = shared.map_or(0, |shared| shared.offset).max(self.log.first.offset);
        let why = "left out: the store was gone by";
        Course { at: self.log.last, losses: self.loss(had + 1, self.log.last.offset, &[], why) }
    }

    /// Adds what had been stored up to an offset, and is not there any more with the position, or nobody can tell that it is.
    fn without_what_is_gone(&self, mut course: Course, had: u64) -> Course {
        let (tables, why) = match &self.held {
            Held::RowsBut(empty) if empty.is_empty() => return course,
            Held::RowsBut(empty) => {
                let why = format!("the store has lost its position, and what was in `{}`", empty.join("`, `"));
                (empty.as_slice(), why)
            }
            Held::Unknown => (&[][..], "the store has lost its position, and nobody can tell what else".to_owned()),
        };
        course.losses.splice(0..0, self.loss(1, had, tables, &why));
        course
    }

    /// Returns the loss of these offsets: those that the spool has no more apart, since of them nobody can count the rows.
    fn loss(&self, first: u64, last: u64, tables: &[String], why: &str) -> Vec<Loss> {
        let oldest = self.log.first.offset;
        let parts = [(first, last.min(oldest)), (first.max(oldest + 1), last)];
        let loss = |(first, last)| Loss { first, last, tables: tables.to_vec(), why: why.to_owned() };
        parts.into_iter().filter(|(first, last)| first <= last).map(loss).collect()
    }
}

impl Course {
    /// Adds that nothing is known of what came before this spool: what the other one had not delivered, and what was made
    /// until this one began.
    fn after_another_spool(mut self) -> Self {
        let why =
            "the store was fed from another spool: what that had not delivered, and what was made until this one \
                   began, is unknown"
                .to_owned();
        self.losses.insert(0, Loss { first: 0, last: 0, tables: Vec::new(), why });
        self
    }
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
        assert_eq!(course(&facts, Trust::Store), (500, vec![]), "the rows are there");
        let emptied = Facts { held: Held::RowsBut(vec!["trades".to_owned()]), ..facts.clone() };
        assert_eq!(course(&emptied, Trust::Log), (100, vec![(1, 100)]));
        assert_eq!(course(&emptied, Trust::Store), (500, vec![(1, 100), (101, 500)]));
        assert_eq!(emptied.course(Trust::Store).unwrap().losses[1].tables, ["trades"]);
        let mute = Facts { held: Held::Unknown, ..facts };
        assert_eq!(course(&mute, Trust::Store), (500, vec![(1, 100), (101, 500)]), "at least that cannot be shown");
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
            let before = (0, 0);
            assert_eq!(course(&foreign, Trust::Log), (100, vec![before, (1, 100)]), "they share nothing");
            assert_eq!(course(&foreign, Trust::Store), (900, vec![before, (101, 900)]));
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
        let [no_more, there] = &losses[..] else { panic!("{losses:?}") };
        assert_eq!((at.offset, no_more.first, no_more.last, &no_more.tables), (500, 1, 100, &gone));
        assert_eq!((there.first, there.last, &there.tables), (101, 500, &gone));
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
        let held = Held::RowsBut(Vec::new());
        Facts { store, is_foreign: false, known, is_damaged: false, shared: None, log, gone: Vec::new(), held }
    }

    fn course(facts: &Facts, trust: Trust) -> (u64, Vec<(u64, u64)>) {
        let Course { at, losses } = facts.course(trust).expect("there is something to decide");
        (at.offset, losses.iter().map(|loss| (loss.first, loss.last)).collect())
    }

    const fn at(offset: u64) -> SpoolPosition {
        SpoolPosition { boot: Boot(7), offset }
    }
}
