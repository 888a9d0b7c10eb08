//! Where a sink goes on: the store's position, the last one known beside the log, and the log are held against each
//! other. Nothing is repaired silently.

use crate::{
    rules::{Rule, holds},
    spool::{SpoolPosition, Standing},
};

/// What a log holds: offsets behind `first`, up to and including `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The position before the oldest row.
    pub first: SpoolPosition,
    /// The newest position that a sink may see.
    pub last: SpoolPosition,
}

/// What an opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// A sink that was never written to.
    Start,
    /// Everything up to here is stored; go on behind it.
    Again(SpoolPosition),
    /// They do not fit together: a person has to choose. Says why.
    Mismatch(&'static str),
}

/// Holds the three against each other; the standings are what the log says of the two.
///
/// `keeps_none` is set for a store that keeps no position of its own: then the one beside the log counts.
pub fn compare(
    store: Option<(SpoolPosition, Standing)>,
    known: Option<(SpoolPosition, Standing)>,
    keeps_none: bool,
) -> Opening {
    let (at, standing) = match (store, known) {
        (None, None) => return Opening::Start,
        (None, Some(_)) if !keeps_none && !holds(Rule::KnownBeside) => return Opening::Start,
        (None, Some(_)) if !keeps_none => {
            return Opening::Mismatch(
                "the store has no position any more: it was emptied, replaced or restored, or another one is addressed",
            );
        }
        (Some(place), _) | (None, Some(place)) => place,
    };
    misfit(standing).map_or(Opening::Again(at), Opening::Mismatch)
}

/// Names the three positions.
pub(crate) fn three(store: Option<SpoolPosition>, known: Option<SpoolPosition>, log: Extent) -> String {
    let show = |position: Option<SpoolPosition>| position.map_or_else(|| "none".to_owned(), |at| at.to_string());
    let (store, known) = (show(store), show(known));
    let Extent { first, last } = log;
    format!("store: {store}; last known beside the spool: {known}; spool: behind {first} up to {last}")
}

/// Names the three positions of a part of a log that is no spool.
pub(crate) fn three_of_part(store: Option<SpoolPosition>, known: Option<SpoolPosition>, log: Extent) -> String {
    three(store, known, log).replace("beside the spool", "on this host").replace("; spool:", "; log:")
}

/// Returns the same of a part of a log that is no spool.
pub(crate) fn misfit_of_part(why: &str) -> &str {
    match why {
        AHEAD => "the store is ahead of the log, which has lost its newest messages",
        OTHER_BOOT => "the store was written from another history of the log, which was deleted and made again since",
        NO_LONGER => "the log no longer has what the store lacks",
        other => other,
    }
}

const AHEAD: &str = "the store is ahead of the spool: the spool was restored from an older copy";
const OTHER_BOOT: &str =
    "the store was written from another history of the spool: it was copied, restored or made anew";

/// The options of `tidegate adopt`.
pub(crate) const FROM_LOG: &str = "from-log";
pub(crate) const FROM_STORE: &str = "from-store";

/// Why a store that went back cannot be fed again.
pub(crate) const NO_LONGER: &str = "the spool no longer has what the store lacks";

/// Returns why a position does not fit the log, if it does not.
pub(crate) fn misfit(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Ahead => Some(AHEAD),
        Standing::OtherBoot => Some(OTHER_BOOT),
        Standing::Gone => Some(NO_LONGER),
        Standing::Retained | Standing::Dropped => None,
    }
}

/// Returns why a spool is none that has written all of a store, which holds rows of it up to a place that stands so.
pub(crate) fn overtaken(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Ahead | Standing::OtherBoot => misfit(standing),
        Standing::Retained | Standing::Dropped | Standing::Gone => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Opening::*, *};
    use crate::spool::{Boot, Standing::*};

    const LOG: Extent = Extent { first: at(100), last: at(900) };

    #[test]
    fn a_store_and_a_log_that_fit_go_on_where_the_store_is() {
        assert_eq!(compare(Some((at(500), Retained)), Some((at(500), Retained)), false), Again(at(500)));
        assert_eq!(compare(Some((at(600), Retained)), Some((at(500), Retained)), false), Again(at(600)));
        assert_eq!(compare(Some((at(600), Retained)), None, false), Again(at(600)), "killed before it was noted");
    }

    #[test]
    fn a_store_that_went_back_is_fed_again_as_long_as_the_log_has_it() {
        assert_eq!(compare(Some((at(200), Retained)), Some((at(800), Retained)), false), Again(at(200)));
        assert_eq!(compare(Some((at(50), Dropped)), Some((at(50), Dropped)), false), Again(at(50)), "by choice");
        assert_mismatch(compare(Some((at(20), Gone)), Some((at(800), Retained)), false), "no longer has");
    }

    #[test]
    fn none_is_a_fresh_start_only_where_none_was_known() {
        assert_eq!(compare(None, None, false), Start);
        assert_mismatch(compare(None, Some((at(800), Retained)), false), "no position any more");
    }

    #[test]
    fn a_store_that_keeps_no_position_goes_by_the_one_beside_the_log() {
        assert_eq!(compare(None, Some((at(800), Retained)), true), Again(at(800)));
        assert_mismatch(compare(None, Some((at(8), Gone)), true), "no longer has");
        assert_mismatch(compare(None, Some((at(8_000), Ahead)), true), "ahead of the spool");
    }

    #[test]
    fn another_history_is_a_mismatch_and_all_three_are_named() {
        assert_mismatch(compare(Some((at(1_000), Ahead)), Some((at(950), Ahead)), false), "ahead");
        let text = three(Some(at(1_000)), Some(at(950)), LOG);
        for position in [at(1_000), at(950), at(100), at(900)] {
            assert!(text.contains(&position.to_string()), "{text} lacks {position}");
        }
        assert_mismatch(compare(Some((at(500), OtherBoot)), None, false), "another history");
    }

    fn assert_mismatch(opening: Opening, what: &str) {
        let Mismatch(why) = opening else { panic!("{opening:?}") };
        assert!(why.contains(what), "{why}");
    }

    const fn at(offset: u64) -> SpoolPosition {
        SpoolPosition { boot: Boot(7), offset }
    }
}
