//! `capture numbers`: what a column of f64 does to the numbers that a venue sent.

use std::{cmp::Reverse, collections::BTreeMap, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use tidegate_core::connection::capture::{self, Form, Numbers};

use super::{Outcome, print};
use crate::page::in_one_line;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct CaptureArgs {
    #[command(subcommand)]
    command: CaptureCommand,
}

#[derive(Debug, Subcommand)]
enum CaptureCommand {
    /// Say which numbers that the venue sent have more than 15 significant digits, and which of them are rounded.
    #[command(after_help = NUMBERS_HELP)]
    Numbers(NumbersArgs),
}

const EXAMPLE: &str = "\
Example:
  tidegate capture numbers data/eth/sources/deribit/capture";

const NUMBERS_HELP: &str = "\
Example:
  tidegate capture numbers data/eth/sources/deribit/capture

A line for each channel and field, the rounded ones first. A number with a
fraction is stored as the nearest f64. Up to 15 significant digits come back
as they were sent; of more it depends on the number, and those that do not
come back are `rounded`. The form is one of
  number
  text     between quotes; whole numbers there are names, which stay texts
  whole    above 2^53 and within 64 bits, such as ids: exact in a column of
           whole numbers, rounded in one of f64; a line for all channels

Exit code 1 if a number is rounded, or a line of the capture cannot be read;
2 where there is no capture.";

#[derive(Debug, Args)]
struct NumbersArgs {
    /// What a source with `capture = {}` has written: its folder, data_dir/PIPELINE/sources/SOURCE/capture, or one file of it.
    #[arg(value_name = "DIR")]
    from: PathBuf,
}

pub(super) fn capture(args: &CaptureArgs) -> Outcome {
    let CaptureCommand::Numbers(NumbersArgs { from }) = &args.command;
    let numbers = capture::numbers(capture::read(from)?)?;
    print(page(&numbers))?;
    Ok(ExitCode::from(u8::from(numbers.rounded() > 0)))
}

fn page(numbers: &Numbers) -> String {
    let (whole, mut long): (Vec<_>, Vec<_>) = numbers.long.iter().partition(|(place, _)| place.form == Form::Whole);
    long.sort_by_key(|(_, long)| Reverse((long.rounded, long.count)));
    let mut rows = Vec::from([["channel", "field", "form", "numbers", "rounded", "example"].map(str::to_owned)]);
    for (place, long) in &long {
        let form = if place.form == Form::Text { "text" } else { "number" };
        let example =
            if long.rounded == 0 { long.example.clone() } else { format!("{} → {}", long.example, long.read_as) };
        let [count, rounded] = [long.count, long.rounded].map(|count| count.to_string());
        rows.push([in_one_line(&place.channel), in_one_line(&place.field), form.to_owned(), count, rounded, example]);
    }
    // Numbers of trades and times, which every channel has.
    let mut fields: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for (place, long) in whole {
        fields.entry(&place.field).or_insert((0, &long.example)).0 += long.count;
    }
    for (field, (count, example)) in fields {
        rows.push(["all", &in_one_line(field), "whole", &count.to_string(), "-", example].map(str::to_owned));
    }
    let mut page = if rows.len() == 1 { String::new() } else { in_columns(&rows) };
    let long: u64 = long.iter().map(|(_, long)| long.count).sum();
    let (all, texts, rounded) = (numbers.numbers, numbers.texts, numbers.rounded());
    page += &format!(
        "{all} numbers in {texts} frames and replies: {long} have more than 15 significant digits, {rounded} of them are \
         rounded\n"
    );
    if numbers.unreadable > 0 {
        page += &format!("{} frames and replies are no JSON, or too deep: not looked through\n", numbers.unreadable);
    }
    if numbers.missing > 0 {
        page += &format!("{} lines or more are missing in the capture\n", numbers.missing);
    }
    page
}

/// Sets rows in columns, counts to the right.
fn in_columns(rows: &[[String; 6]]) -> String {
    let wide = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(wide);
    let mut text = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            text += &if column < 3 { format!("{cell:width$}  ") } else { format!("{cell:>width$}  ") };
        }
        text += &row[5];
        text.push('\n');
    }
    text
}
