//! The checks, by what they are about.

mod faults;
mod names;
mod owners;
mod position;
mod refusals;
mod remedies;
mod values;

use futures_util::future::LocalBoxFuture;

use super::{Verdict, case::Case};

/// A check.
pub(super) type Check = for<'a> fn(&'a mut Case) -> LocalBoxFuture<'a, Verdict>;

/// All of them, under the names that a report shows.
pub(super) const ALL: &[(&str, Check)] = &[
    ("new store", |case| Box::pin(position::new_store(case))),
    ("emptied store", |case| Box::pin(position::emptied_store(case))),
    ("chunks in order", |case| Box::pin(position::chunks_in_order(case))),
    ("same chunk twice", |case| Box::pin(position::same_chunk_twice(case))),
    ("chunk from elsewhere", |case| Box::pin(position::chunk_from_elsewhere(case))),
    ("empty chunk", |case| Box::pin(position::empty_chunk(case))),
    ("huge chunk", |case| Box::pin(position::huge_chunk(case))),
    ("back-pressure", |case| Box::pin(position::back_pressure(case))),
    ("shutdown", |case| Box::pin(position::shutdown(case))),
    ("column types", |case| Box::pin(values::column_types(case))),
    ("refused rows", |case| Box::pin(refusals::refused_rows(case))),
    ("refused row in several tables", |case| Box::pin(refusals::in_several_tables(case))),
    ("names", |case| Box::pin(names::names(case))),
    ("write given up at every await", |case| Box::pin(faults::write_given_up(case))),
    ("open given up at every await", |case| Box::pin(faults::open_given_up(case))),
    ("connection cut anywhere", |case| Box::pin(faults::cut_anywhere(case))),
    ("slow store", |case| Box::pin(faults::slow_store(case))),
    ("frozen store", |case| Box::pin(faults::frozen_store(case))),
    ("store that is down", |case| Box::pin(faults::store_down(case))),
    ("restarted store", |case| Box::pin(faults::restarted_store(case))),
    ("table dropped", |case| Box::pin(faults::table_dropped(case))),
    ("column dropped", |case| Box::pin(faults::column_dropped(case))),
    ("two owners", |case| Box::pin(owners::two_owners(case))),
    ("another spool", |case| Box::pin(owners::another_spool(case))),
    ("look without a trace", |case| Box::pin(remedies::look_without_a_trace(case))),
    ("audit", |case| Box::pin(remedies::audit(case))),
    ("adopt", |case| Box::pin(remedies::adopt(case))),
    ("rename", |case| Box::pin(remedies::rename(case))),
    ("keys", |case| Box::pin(values::keys(case))),
];
