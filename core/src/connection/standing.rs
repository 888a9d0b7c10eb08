//! What is wrong with a source right now, and which of it a person should read first.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::driver::shown;
use crate::health::StageHealth;

/// Everything that can be wrong at the same time. The worst is shown.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The connection is down.
    pub(super) line: Option<String>,
    /// The venue's channels are not known.
    pub(super) discovery: Option<String>,
    /// The venue does not have all that is wanted.
    pub(super) lacking: Option<String>,
    /// Frames come, but no rows.
    pub(super) silence: Option<String>,
    /// Some channels are not subscribed to.
    pub(super) channels: Option<String>,
    /// Hosts of the venue's HTTP interface that fail.
    pub(super) rest: BTreeMap<String, Waiting>,
    /// The recording has ended before the feed.
    pub(super) capture: Option<String>,
    /// The source works, and how.
    pub(super) well: Option<String>,
}

/// Why calls to a host wait, and until when.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) why: String,
    pub(super) next: Instant,
}

impl Waiting {
    /// Says it as of now: it is shown again with whatever else happens in the meantime.
    fn said(&self) -> String {
        let left = self.next.saturating_duration_since(Instant::now());
        let next = if left.is_zero() { "now".to_owned() } else { format!("in {}", shown(left)) };
        format!("{}, next try {next}", self.why)
    }
}

impl Standing {
    /// Shows it: the worst of what is wrong, or that the source is well, or nothing while it starts.
    pub(super) fn show(&self, health: &StageHealth) {
        let Self { line, discovery, lacking, silence, channels, rest, capture, .. } = self;
        let session = [line, discovery, silence, channels, lacking].into_iter().flatten().next();
        let waiting = rest.values().next().filter(|_| session.is_none()).map(Waiting::said);
        // How many they are is said by whoever counts them.
        health.gaps_wait(waiting.is_some());
        if let Some(worst) = session.cloned().or(waiting).or_else(|| capture.clone()) {
            health.degraded(worst);
        } else if let Some(well) = &self.well {
            health.healthy(well);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn how_long_calls_wait_is_said_as_of_now() {
        let waiting = Waiting {
            why: "http://venue: connection refused".to_owned(),
            next: Instant::now() + Duration::from_secs(60),
        };
        assert_eq!(waiting.said(), "http://venue: connection refused, next try in 1m");
        tokio::time::advance(Duration::from_secs(25)).await;
        assert_eq!(waiting.said(), "http://venue: connection refused, next try in 35s");
        tokio::time::advance(Duration::from_secs(35)).await;
        assert_eq!(waiting.said(), "http://venue: connection refused, next try now");
    }
}
