//! The rules that the claim rests on, by name: the bench of histories (`sim`, in this crate's tests) leaves out one at a
//! time, and has to find out. Everywhere else all of them hold, and the compiler knows it.

/// A rule. Each is asked for once, where it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "one is a rule of stores, which only the bench has here"))]
pub(crate) enum Rule {
    /// A transaction moves the position from where the store stands, or changes nothing.
    Guard,
    /// After a call that failed the store is opened again, and tells where it is.
    OpenAgain,
    /// What a store has only accepted counts once it is durable.
    AcceptedIsNotStored,
    /// A store without a position is no new one where a position was known.
    KnownBeside,
    /// A position that was noted counts once its file's name is durable.
    KnownIsDurable,
    /// Dead letters are durable before their chunk is written without them.
    LettersFirst,
    /// Dead letters of rows that come again are thrown away.
    LettersComeAgain,
    /// Nobody reads what is not fsynced.
    SyncedOnly,
    /// A file whose fsync has failed is never asked again.
    MendAnew,
    /// What a killed process has left to the system is written once more before it counts as durable.
    Harden,
    /// What was fsynced and cannot be read is lost, and no torn tail.
    TornOrRot,
    /// Each opening of a spool is told from all others.
    FreshBoot,
    /// A restart needs a durable head with a snapshot: what stands before that goes, and nothing else.
    RestartPoint,
    /// The spool keeps what any sink still needs.
    SlowestSink,
    /// Continuity goes on from the snapshot in a head.
    Snapshot,
    /// What was not written has not happened.
    RollBack,
    /// Where rows are left out their session ends.
    FullEndsSession,
    /// An answer whose rows were left out is none.
    LeftOutIsNoAnswer,
    /// A link that throws away what it has collected says so.
    OverflowIsSaid,
    /// What nobody listens to is missing, behind the last record, until an answer says otherwise.
    OpenRightEnd,
    /// A stream is owed from its first confirmation on, before its first record.
    Baseline,
    /// Where two lines carry a stream each of them may have had a record that the other one never gets.
    EachLine,
    /// An answer counts for the question as it was put.
    AskNumber,
    /// What seems never to have been made is looked at twice.
    LookTwice,
    /// A history is asked when it has caught up.
    HistoryLag,
    /// What is proved equal is there already.
    DropRepeats,
    /// A record of before the venue numbered anew is told by its time.
    OldNumbering,
}

/// Returns whether a rule holds: always, but for the one that a test leaves out.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn holds(_: Rule) -> bool {
    true
}

#[cfg(test)]
pub(crate) use mutant::{holds, leave_out};

#[cfg(test)]
mod mutant {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static LEFT_OUT: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Returns whether a rule holds in this thread.
    pub(crate) fn holds(rule: Rule) -> bool {
        LEFT_OUT.get() != Some(rule)
    }

    /// From now on this thread does without a rule.
    pub(crate) fn leave_out(rule: Option<Rule>) {
        LEFT_OUT.set(rule);
    }

    impl Rule {
        /// All of them.
        pub(crate) const ALL: [Self; 27] = [
            Self::Guard,
            Self::OpenAgain,
            Self::AcceptedIsNotStored,
            Self::KnownBeside,
            Self::KnownIsDurable,
            Self::LettersFirst,
            Self::LettersComeAgain,
            Self::SyncedOnly,
            Self::MendAnew,
            Self::Harden,
            Self::TornOrRot,
            Self::FreshBoot,
            Self::RestartPoint,
            Self::SlowestSink,
            Self::Snapshot,
            Self::RollBack,
            Self::FullEndsSession,
            Self::LeftOutIsNoAnswer,
            Self::OverflowIsSaid,
            Self::OpenRightEnd,
            Self::Baseline,
            Self::EachLine,
            Self::AskNumber,
            Self::LookTwice,
            Self::HistoryLag,
            Self::DropRepeats,
            Self::OldNumbering,
        ];
    }
}
