//! How a pipeline and its sinks have ended, in one line.

use std::{fmt, time::Duration};

use crate::{Result, delivery::Outcome, health::StageHealth};

/// How a pipeline ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub pipeline: String,
    /// Its sinks.
    pub sinks: Vec<SinkEnd>,
    /// How long it took to stop.
    pub took: Duration,
    /// Whether a source had ended that does not mend itself.
    pub source_failed: bool,
    /// Sinks that it had once and that are not in its TOML any more.
    pub vanished: Vec<String>,
    /// Whether it has a spool.
    pub has_spool: bool,
}

impl Ended {
    /// Returns whether nobody has to look after it: no source and no sink had failed.
    pub fn is_well(&self) -> bool {
        !self.source_failed && self.vanished.is_empty() && self.sinks.iter().all(|sink| sink.failure.is_none())
    }
}

/// How a sink ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkEnd {
    /// Its name.
    pub name: String,
    /// Rows that it stored since the start.
    pub rows_stored: u64,
    /// Rows that it takes and that stay in the spool.
    pub rows_left: u64,
    /// Whether there are more than were counted.
    pub more_left: bool,
    /// Why a person is needed.
    pub failure: Option<String>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped {} in {:.2} s: connections closed", self.pipeline, self.took.as_secs_f64())?;
        for sink in &self.sinks {
            write!(f, "; {}: {} rows stored since the start", sink.name, sink.rows_stored)?;
            let (verb, them) = if sink.rows_left == 1 { ("row stays", "it") } else { ("rows stay", "them") };
            match (sink.rows_left, sink.more_left) {
                (0, false) if !self.has_spool => {}
                (0, false) => f.write_str(", nothing left in the spool")?,
                (0, true) => f.write_str(", nobody knows what is left in the spool")?,
                (n, false) => write!(f, ", {n} {verb} in the spool")?,
                (n, true) => write!(f, ", more than {n} {verb} in the spool")?,
            }
            match &sink.failure {
                Some(failure) => write!(f, " ({failure})")?,
                None if sink.rows_left > 0 => write!(f, ", the next start sends {them}")?,
                None => {}
            }
        }
        for name in &self.vanished {
            write!(f, "; {name}: not in the TOML any more")?;
        }
        Ok(())
    }
}

impl SinkEnd {
    pub(super) fn new(name: String, ended: Result<Outcome>, health: &StageHealth) -> Self {
        match ended {
            Ok(Outcome { rows_stored, rows_left, more_left, failure, balance: _ }) => {
                Self { name, rows_stored, rows_left, more_left, failure }
            }
            Err(error) => {
                let why = error.chain();
                health.failed(format!("{why}; the next start goes on"));
                Self { name, rows_stored: 0, rows_left: 0, more_left: true, failure: Some(why) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        caught::caught,
        health::{Registry, StageId, Status},
    };

    #[tokio::test]
    async fn a_delivery_that_panicked_to_the_end_is_a_failed_sink() {
        let health = Registry::new().stage(StageId::sink("eth", "sqlite"));
        health.healthy("stored");
        let ended = caught("the delivery", async { panic!("a fault of the program") }).await;
        let end = SinkEnd::new("sqlite".to_owned(), ended, &health);
        assert_eq!(health.status(), Status::Failed);
        let ended = ended_with(end);
        assert!(!ended.is_well());
        assert!(ended.to_string().ends_with("(the delivery panicked: a fault of the program)"), "{ended}");
    }

    #[test]
    fn rows_that_stay_are_sent_at_the_next_start_only_where_nobody_has_to_act() {
        let end = |rows_left, failure: Option<&str>| {
            let (name, failure) = ("sqlite".to_owned(), failure.map(str::to_owned));
            ended_with(SinkEnd { name, rows_stored: 7, rows_left, more_left: false, failure }).to_string()
        };
        let said = |text: String| text.split_once("; ").expect("sinks come last").1.to_owned();
        assert_eq!(said(end(0, None)), "sqlite: 7 rows stored since the start, nothing left in the spool");
        let one = "sqlite: 7 rows stored since the start, 1 row stays in the spool, the next start sends it";
        assert_eq!(said(end(1, None)), one);
        let failed = "sqlite: 7 rows stored since the start, 3 rows stay in the spool (the password was revoked)";
        assert_eq!(said(end(3, Some("the password was revoked"))), failed);
    }

    fn ended_with(sink: SinkEnd) -> Ended {
        let (pipeline, took) = ("eth".to_owned(), Duration::ZERO);
        Ended { pipeline, sinks: vec![sink], took, source_failed: false, vanished: Vec::new(), has_spool: true }
    }
}
