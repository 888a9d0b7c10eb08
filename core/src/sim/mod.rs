//! The bench of histories.

mod check;
mod engine;
pub(crate) mod machine;
pub(crate) mod market;
mod plan;
pub(crate) mod random;
mod recorder;
mod store;
mod venue;
mod world;

use self::world::World;

fn run(seed: u64) -> (World, Result<(), String>) {
    let (setting, ops) = plan::draw(seed);
    World::run(&setting, &ops)
}

#[test]
fn fresh_seeds() {
    let from: u64 = std::env::var("SIM_FROM").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let seeds: u64 = std::env::var("SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let began = std::time::Instant::now();
    let mut failed = 0;
    for seed in from..from + seeds {
        let (world, result) = run(seed);
        if let Err(error) = result {
            failed += 1;
            println!("seed {seed}: {error} {:?}", world.summary);
            if failed == 1 || std::env::var("SIM_STORY").is_ok() {
                println!("{:?}", world.setting);
                for line in &world.story {
                    println!("{line}");
                }
            }
        } else if seeds < 20 {
            println!("seed {seed}: {:?}", world.summary);
        }
    }
    println!("{seeds} seeds in {:?}, {failed} failed", began.elapsed());
    assert_eq!(failed, 0);
}
