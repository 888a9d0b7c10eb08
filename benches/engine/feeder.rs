//! A Deribit that is fed frames by hand: protocol and link, as the connection driver has them.

use std::{sync::Arc, time::Duration};

use tidegate_core::{
    Result,
    catalog::Component,
    health::Registry,
    intake::{Link, Setup, SourceSetup, Step},
    protocol::{Frame, Protocol},
    row::{Table, Timestamp},
    spool::SourceInfo,
};
use tidegate_sources::deribit::{Channel, Choice, DeribitConfig};

use crate::frames::Feed;

/// A venue's protocol with its link.
pub(crate) struct Feeder {
    protocol: Box<dyn Protocol>,
    link: Link,
}

impl Feeder {
    /// Begins a session that covers all channels of `feed`.
    pub(crate) fn begin(mut link: Link, feed: &Feed) -> Self {
        let mut protocol = protocol();
        let mut channels: Vec<&str> = feed.frames.iter().filter_map(|frame| channel(frame)).collect();
        channels.sort_unstable();
        channels.dedup();
        link.step(Step::Opened);
        protocol.on_open(link.outbox()).expect("nothing is sent yet");
        protocol.subscribe(&channels, link.outbox()).expect("nothing is sent yet");
        for channel in channels {
            let streams = protocol.streams(channel);
            link.outbox().watch(channel, true);
            link.step(Step::Confirmed { streams, at: Timestamp::now() });
        }
        drop(link.outbox().take_commands());
        Self { protocol, link }
    }

    /// Reads a frame, as the driver does when it comes.
    #[inline]
    pub(crate) fn read(&mut self, frame: &str) {
        let frame = Frame::Text(frame);
        self.link.outbox().frame(&mut *self.protocol, frame, Timestamp::now()).expect("a frame that can be read");
    }

    /// Returns the way to the log.
    pub(crate) fn link(&mut self) -> &mut Link {
        &mut self.link
    }
}

/// Returns the tables of the rows.
pub(crate) fn tables() -> Vec<Table> {
    protocol().tables()
}

/// Returns what the pipeline knows of the source.
pub(crate) fn source() -> SourceInfo {
    SourceInfo { name: "deribit".into(), venue: "deribit".into(), tables: tables().into_iter().map(Arc::new).collect() }
}

/// Returns an intake's setup.
pub(crate) fn setup(folder: &std::path::Path) -> Setup {
    Setup {
        pipeline: "bench".to_owned(),
        folder: folder.to_owned(),
        config: tidegate_core::config::SpoolConfig::default(),
        sources: vec![SourceSetup { info: source(), history_lag: Duration::from_secs(1) }],
        registry: Registry::new(),
    }
}

fn protocol() -> Box<dyn Protocol> {
    let instruments = vec![Choice::Name("ETH-PERPETUAL".to_owned())];
    let config = DeribitConfig { channels: vec![Channel::Tickers, Channel::Trades], instruments, ..Default::default() };
    let built: Result<Box<dyn Protocol>> = config.build();
    built.expect("the configuration is sound")
}

fn channel(frame: &str) -> Option<&str> {
    let (_, rest) = frame.split_once(r#""channel":""#)?;
    rest.split_once('"').map(|(channel, _)| channel)
}
