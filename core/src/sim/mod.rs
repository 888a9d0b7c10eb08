//! The bench of histories: what the claim says is tried on thousands of them, and each rule is left out once to see that it
//! is missed.
//!
//! ```text
//!  Plan ──one seed, 1,000 steps──→ World ── Venue (makes, forgets, lags, pages; knows all that it made)
//!                                    │        │ Link, Handover, Asks
//!                                    │      Engine: the real intake task, spool, delivery drivers, dead letters
//!                                    │        │ Sink                    │ Disk
//!                                    │      Store (fails, commits late) Machine (SimDisk, clocks, luck)
//!                                    └─ Recorder: every durable item, continuity and ledger folded from them
//! ```
//!
//! The engine is that of a pipeline, its tokio tasks included. They run on one thread with paused time, and what the engine
//! asks of its machine goes through [`outside`](crate::outside), so a seed is one history, whatever the computer does. A
//! kill drops the tasks where they stand, or has every change to a disk fail from a given one on; a power cut also takes
//! what was not fsynced, page by page. In the end all faults are over, what is missing has to come and to be delivered,
//! and a restart has to change nothing.
//!
//! It is a module and no test of the public interface, since it starts intake on disks of its own and looks at what
//! continuity and the ledger know; rules can be left out in this build of the crate only, without a feature or a flag.
//!
//! What is held, by the numbers of the design: I1 to I4, I14 to I16 and I20 in every history, I6 and I7 at each start, and
//! in one history of a thousand after each step. I8: what a flipped bit takes along the ledger does not claim. I12: no row
//! is stored and a dead letter. I17: a sink that finds less than it needs asks for a person, which is a failure unless
//! somebody has restored something. I5 is `intake/continuity/tests/history.rs`, every cut of a tail is `spool/tests`, I10
//! and I11 are the contract of each sink against its real store, I13 is `delivery/tests`. Derived tables (I9) and a second
//! owner (I18) do not exist here. Of streams whose records name each other none is here yet.
//!
//! What was dropped before the recorder had read it is read from the files that were removed.
//!
//! Rules that are out of reach: `OUT_OF_REACH` in `tests` says which tests hold them; those of Kafka and QuestDB are held
//! against real servers, beside their sinks.
//!
//! ```sh
//! SIM_SEED=97 …      one history, told without all that its failure does without
//! SIM_SECONDS=120 …  fresh ones, as many as fit; the first seed is printed
//! SIM_FROM=0 SIM_SEEDS=5000 SIM_ALL=1 …  these, all of them, and none is told
//! SIM_RULE=Guard … -- --ignored          only this rule is left out
//! SIM_ITEMS=1 …      the story also has what is entered into the log
//! SIM_WHOLE=1 …      the story has every fault, and is told at once
//! … = scripts/histories
//! ```

#![allow(clippy::wildcard_enum_match_arm, reason = "a step is one of many, and an item too; most look at few of them")]

mod check;
mod engine;
mod ledger;
mod listen;
pub(crate) mod machine;
pub(crate) mod market;
mod plan;
mod recorder;
mod shrink;
mod store;
mod tests;
mod venue;
mod world;
