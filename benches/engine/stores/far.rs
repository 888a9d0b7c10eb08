//! A store that is some milliseconds away: how large a chunk has to be.

use std::{net::SocketAddr, time::Duration};

use tidegate_core::testkit::Proxy;

use super::{Bench, CHUNK, Filled, Store};
use crate::table::{Table, thousands};

/// Rows of a chunk.
const SIZES: [usize; 3] = [CHUNK, 20_000, 50_000];

/// Round trips, in milliseconds.
const ROUND_TRIPS: [u32; 2] = [5, 25];

/// How much of the rate of a store at hand one is to have that is 5 ms away.
const WANTED: f64 = 0.5;

impl<S: Store> Bench<'_, S> {
    pub(super) fn far(&mut self, number: &str, logs: &[Filled]) {
        let all = logs.iter().flat_map(|log| SIZES.map(|size| (log, size)));
        let cases: Vec<(&Filled, usize)> = all.filter(|(log, size)| *size == CHUNK || 2 * size <= log.rows).collect();
        let at_hand: Vec<Duration> = cases.iter().map(|(log, size)| self.best_of(log, *size, None)).collect();
        let address = address_of(self.store.server().url());
        let proxy = self.runtime.block_on(Proxy::to(address)).expect("a port is free");
        self.store.stands_behind(proxy.address());
        let mut table = Table::new(&["rows, rows a chunk", "at hand", "5 ms away", "of that", "25 ms away", "of that"]);
        let mut enough: Vec<String> = Vec::new();
        for ((log, size), at_hand) in cases.iter().zip(at_hand) {
            let rate = |time: Duration| thousands(log.rows, time.as_secs_f64());
            let mut line = vec![format!("{}, {size}", log.kind.name()), rate(at_hand)];
            for round_trip in ROUND_TRIPS {
                proxy.delay(Duration::from_millis(round_trip.into()) / 2);
                let away = self.best_of(log, *size, Some(proxy.address()));
                let share = at_hand.as_secs_f64() / away.as_secs_f64();
                line.extend([rate(away), format!("{share:.2}")]);
                let is_first = !enough.iter().any(|said| said.starts_with(log.kind.name()));
                if round_trip == ROUND_TRIPS[0] && share >= WANTED && is_first {
                    enough.push(format!("{} from chunks of {size} rows on", log.kind.name()));
                }
            }
            table.line(line);
        }
        let enough = if enough.is_empty() { "not reached (MISSED)".to_owned() } else { enough.join(", ") };
        table.print(&format!(
            "{number}c. log → {} through a proxy that delays; {WANTED} of the rate at hand with 5 ms: {enough}",
            self.store.name()
        ));
    }

    fn best_of(&mut self, log: &Filled, size: usize, way: Option<SocketAddr>) -> Duration {
        let rounds = self.effort.rounds.div_ceil(3);
        let times = (0..rounds).map(|_| self.send_and_clear(log, size, way).stored.wall);
        times.min().unwrap_or_default()
    }
}

/// Returns host and port.
pub(super) fn address_of(url: &str) -> String {
    let behind = |text: &str, mark| text.split_once(mark).map(|(_, rest)| rest.to_owned());
    let rest = behind(url, "://").unwrap_or_else(|| url.to_owned());
    let rest = behind(&rest, "@").unwrap_or(rest);
    rest.split('/').next().unwrap_or_default().to_owned()
}
