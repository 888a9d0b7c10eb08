//! What is wrong with a source right now, and which of it a person should read first.

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
    /// The venue's HTTP interface fails.
    pub(super) rest: Option<String>,
    /// The recording has ended before the feed.
    pub(super) capture: Option<String>,
    /// The source works, and how.
    pub(super) well: Option<String>,
}

impl Standing {
    /// Shows it: the worst of what is wrong, or that the source is well, or nothing while it starts.
    pub(super) fn show(&self, health: &StageHealth) {
        let Self { line, discovery, lacking, silence, channels, rest, capture, .. } = self;
        let wrong = [line, discovery, silence, channels, lacking, rest, capture];
        if let Some(worst) = wrong.into_iter().flatten().next() {
            health.degraded(worst);
        } else if let Some(well) = &self.well {
            health.healthy(well);
        }
    }
}
