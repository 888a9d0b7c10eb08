//! The contract on a store of its own: what is right is kept, and each check finds the sink that breaks it.

mod bench;
mod how;
mod look;
mod server;
mod sink;

use bench::Bench;
use sink::{Flaw, Kind};

use super::{Report, check, checks, run};

#[tokio::test]
async fn a_sink_of_each_kind_that_does_it_right_keeps_the_contract() {
    for (kind, left_out) in [
        (Kind::Transaction, vec!["back-pressure"]),
        (Kind::Accepting, vec!["keys"]),
        (Kind::Keyed, KEYED.to_vec()),
        (Kind::AtLeastOnce, AT_LEAST_ONCE.to_vec()),
    ] {
        let report = check(async || Bench::start(kind, None).await).await;
        assert!(report.broken().is_empty(), "{kind:?}: {report}");
        assert_eq!(report.left_out(), left_out, "{kind:?}: {report}");
    }
}

/// What a store without a position of its own is not asked.
const KEYED: [&str; 7] =
    ["emptied store", "chunk from elsewhere", "two owners", "another spool", "adopt", "rename", "keys"];

const AT_LEAST_ONCE: [&str; 8] = [
    "emptied store",
    "chunk from elsewhere",
    "back-pressure",
    "two owners",
    "another spool",
    "adopt",
    "rename",
    "keys",
];

#[tokio::test]
async fn each_check_finds_the_sink_that_breaks_it() {
    let (mut wrong, mut unproved) = (Vec::new(), checks::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (name, kind, flaw, says) in FLAWS {
        let (known, check) = checks::ALL.iter().find(|(known, _)| *known == name).unwrap();
        let mut report = Report::default();
        let ended = run(known, *check, Box::new(Bench::start(kind, Some(flaw)).await)).await;
        report.add(known, ended);
        match report.broken().first() {
            Some((_, what)) if what.contains(says) => {}
            Some((_, what)) => wrong.push(format!("{flaw:?}: `{name}` says something else: {what}")),
            None => wrong.push(format!("{flaw:?} is not found by `{name}`: {report}")),
        }
        unproved.retain(|unproved| *unproved != name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(unproved, [""; 0], "checks that were never seen to fail");
}

/// Each check, a sink that breaks it, and what has to be said about it.
const FLAWS: [(&str, Kind, Flaw, &str); 41] = [
    ("new store", Kind::Transaction, Flaw::InventsAPosition, "never written to"),
    ("emptied store", Kind::Transaction, Flaw::BeginsAnew, "was emptied"),
    ("chunks in order", Kind::Transaction, Flaw::CutsTheBoot, "boot"),
    ("chunks in order", Kind::Transaction, Flaw::LosesOneInSeven, "rows where"),
    ("same chunk twice", Kind::Transaction, Flaw::DoesNotGuard, "the same chunk at once"),
    ("same chunk twice", Kind::Keyed, Flaw::HasNoKeys, "2 times instead of 1"),
    ("chunk from elsewhere", Kind::Transaction, Flaw::GuardsTheOffsetOnly, "in another history"),
    ("chunk from elsewhere", Kind::Transaction, Flaw::MissedGuardIsPermanent, "is not transient"),
    ("empty chunk", Kind::Transaction, Flaw::SkipsEmptyChunks, "`open` answers"),
    ("huge chunk", Kind::Transaction, Flaw::CutsHugeChunks, "rows where 2000 were written"),
    ("back-pressure", Kind::Accepting, Flaw::AppliesTooSoon, "rows where"),
    ("back-pressure", Kind::Accepting, Flaw::NeverApplies, "`applied` still answers"),
    ("shutdown", Kind::Accepting, Flaw::ClosesWithoutAWord, "rows where"),
    ("column types", Kind::Transaction, Flaw::ClampsUnsigned, "U64(9223372036854775808)"),
    ("column types", Kind::Transaction, Flaw::DropsTheSignOfZero, "number=-0.0"),
    ("column types", Kind::Transaction, Flaw::EmptyIsAbsent, "text=Text(\"\")"),
    ("column types", Kind::Transaction, Flaw::CutsTimes, "Timestamp(1)"),
    ("column types", Kind::Transaction, Flaw::NanIsAbsent, "`number` is F64(NaN)"),
    ("column types", Kind::Transaction, Flaw::RefusesLongTexts, "refused that has to be stored"),
    ("refused rows", Kind::Transaction, Flaw::RefusesTheFirstOnly, "not among the refused"),
    ("refused rows", Kind::Transaction, Flaw::WritesBesideRefusals, "after a chunk that was refused"),
    ("refused rows", Kind::Transaction, Flaw::FailsOverARow, "instead of refusing"),
    ("refused row in several tables", Kind::Transaction, Flaw::RefusesInOneTable, "not among the refused"),
    ("names", Kind::Transaction, Flaw::DoesNotQuote, "table `two words`"),
    ("write given up at every await", Kind::Transaction, Flaw::PositionApart, "given up after"),
    ("open given up at every await", Kind::Transaction, Flaw::OpensInTwoSteps, "after an `open` given up"),
    ("connection cut anywhere", Kind::Transaction, Flaw::RepeatsByItself, "2 times instead of 1"),
    ("slow store", Kind::Transaction, Flaw::IsImpatient, "fail"),
    ("frozen store", Kind::Transaction, Flaw::SilenceIsPermanent, "needs a person"),
    ("store that is down", Kind::Transaction, Flaw::ChecksNothing, "`check` says that all is well"),
    ("restarted store", Kind::Transaction, Flaw::ForgetsAtRestart, "`open` answers"),
    ("table dropped", Kind::Transaction, Flaw::MakesTablesAnew, "after their table was dropped"),
    ("column dropped", Kind::Transaction, Flaw::LeavesColumnsOut, "number="),
    ("two owners", Kind::Transaction, Flaw::HasNoEpoch, "the older owner commits"),
    ("two owners", Kind::Transaction, Flaw::TakesBack, "takes the store back"),
    ("another spool", Kind::Transaction, Flaw::AsksForNoSpool, "another spool"),
    ("look without a trace", Kind::Transaction, Flaw::ReachTakesOver, "in a new store"),
    ("audit", Kind::Transaction, Flaw::CountsOneLess, "`sums`"),
    ("adopt", Kind::Transaction, Flaw::AdoptsTwice, "`claim`"),
    ("rename", Kind::Transaction, Flaw::RenamesTwice, "`claim`"),
    ("keys", Kind::Transaction, Flaw::ReplaceAppends, "Replace: "),
];
