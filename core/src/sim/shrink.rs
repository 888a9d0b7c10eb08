//! A history that fails is told without all that it fails without.

use super::{
    plan::{Op, Setting},
    world::World,
};

/// Returns the steps that are left when no part of them can be taken out without the history failing in another way, or
/// not at all.
pub(super) fn shrink(setting: &Setting, ops: &[Op], error: &str) -> Vec<Op> {
    let fails = |ops: &[Op]| World::run(setting, ops).1.is_err_and(|other| kind(&other) == kind(error));
    let mut left: Vec<Op> = ops.to_vec();
    // What happens later than the failure says nothing.
    let mut part = left.len().div_ceil(2);
    let mut runs = 0;
    while part > 0 {
        let mut at = 0;
        let mut has_shrunk = false;
        while at < left.len() && runs < MOST_RUNS {
            let mut without = left.clone();
            without.drain(at..(at + part).min(left.len()));
            runs += 1;
            if fails(&without) {
                left = without;
                has_shrunk = true;
            } else {
                at += part;
            }
        }
        if !has_shrunk || part > 1 {
            part /= 2;
        }
        if runs >= MOST_RUNS {
            break;
        }
    }
    left
}

/// Returns what two failures of one kind have in common.
fn kind(error: &str) -> String {
    error.chars().filter(|char| !char.is_ascii_digit()).take(32).collect()
}

const MOST_RUNS: u32 = 2_000;
