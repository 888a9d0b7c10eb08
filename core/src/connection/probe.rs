//! One look at a venue without collecting anything: what `tidegate check --connect` does.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{
    capture,
    transport::{NotConnected, Sockets, Transport},
};
use crate::{
    Error, Result,
    catalog::Factory,
    config::ConnectionConfig,
    http::{HttpClient, NoAnswer},
    protocol::{Discovery, Outbox, Protocol, Reply, Request},
    row::{Origin, Timestamp},
};

/// Discovers the channels and opens a connection, once, and says in a few words what came of it. Subscribes to nothing.
///
/// # Errors
///
/// `Config` and `Permanent` as the protocol says, `Transient` when a peer cannot be reached.
pub async fn probe(factory: &Factory<Box<dyn Protocol>>, config: &ConnectionConfig) -> Result<String> {
    if let Some(replay) = &config.replay {
        capture::read(&replay.from)?;
        return Ok(format!("plays the capture `{}`, dials nobody", replay.from.display()));
    }
    let http = match &config.extra_ca {
        Some(file) => HttpClient::new().with_ca(file)?,
        None => HttpClient::new(),
    };
    let max_message = usize::try_from(config.max_message.0).unwrap_or(usize::MAX);
    let sockets = Sockets { http, max_message };
    let mut protocol = factory()?;
    let channels = discover(&sockets, &mut *protocol, config.rest.timeout.0).await?;
    let group = channels.first().map(|channel| protocol.group(channel).to_owned()).unwrap_or_default();
    let endpoint = protocol.endpoint(&group, Timestamp::now())?;
    let (shown, began) = (endpoint.shown(), Instant::now());
    let limit = config.connect_timeout.0;
    match timeout(limit, sockets.connect(endpoint)).await {
        Ok(Ok(_)) => {
            let took = began.elapsed().as_millis();
            Ok(format!("{shown} answers in {took} ms; {} channels to subscribe to", channels.len()))
        }
        Ok(Err(NotConnected::Answered { status, .. })) => {
            Err(Error::transient(format!("{shown} answers with HTTP status {status} instead of a WebSocket")))
        }
        Ok(Err(NotConnected::Failed(why))) => Err(Error::transient(format!("{shown}: {why}"))),
        Err(_) => Err(Error::transient(format!("{shown} does not answer within {limit:?}"))),
    }
}

async fn discover(sockets: &Sockets, protocol: &mut dyn Protocol, limit: Duration) -> Result<Vec<String>> {
    let mut out = Outbox::new(protocol.tables());
    out.begin(Timestamp::now(), Origin::Live);
    let mut step = protocol.discover(None, &mut out)?;
    loop {
        let request = match step {
            Discovery::Channels(channels) => return Ok(channels),
            Discovery::Fetch(request) => request,
        };
        let answer = sockets.http.call(&request, limit).await.map_err(|error| unanswered(&request, error))?;
        let reply = Reply { request: &request, status: answer.status, body: &answer.body };
        step = protocol.discover(Some(&reply), &mut out)?;
    }
}

fn unanswered(request: &Request, error: NoAnswer) -> Error {
    let shown = request.shown();
    Error::transient(match error {
        NoAnswer::TimedOut(after) => format!("{shown} does not answer within {after:?}"),
        NoAnswer::Unreachable(why) => format!("{shown}: {why}"),
    })
}
