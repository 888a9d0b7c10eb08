//! Everything that `tidegate` can do, and the sink.

use own_sink::PagesConfig;

fn main() -> std::process::ExitCode {
    tidegate::main_with(|catalog| _ = catalog.sink::<PagesConfig>())
}
