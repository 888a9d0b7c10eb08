//! The program `tidegate` with the components that this build has.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::main_with(|_catalog| {})
}
