//! One look at a venue without collecting anything: what `tidegate check --connect` does.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::{
    capture,
    transport::{NotConnected, Sockets, Transport},
};
use crate::{
    Error, Result,
    catalog::Factory,
    config::ConnectionConfig,
    error::Kind,
    http::{HttpClient, NoAnswer, root_cause},
    protocol::{Close, Command, Discovery, Frame, Outbox, Protocol, Reply, Request},
    row::{Origin, Timestamp},
};

/// Discovers the channels and opens a session, once, its handshake and login included, and says in a few words what came of
/// it. Subscribes to nothing.
///
/// # Errors
///
/// `Config` and `Permanent` as the protocol says, `Transient` when a peer cannot be reached or does not end the handshake.
pub async fn probe(factory: &Factory<Box<dyn Protocol>>, config: &ConnectionConfig) -> Result<String> {
    if let Some(replay) = &config.replay {
        capture::read(&replay.from)?;
        return Ok(format!("plays the capture `{}`, dials nobody", replay.from.display()));
    }
    let http = match &config.extra_ca {
        Some(file) => HttpClient::new().with_ca(file).await?,
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
        Ok(Ok(mut line)) => {
            let took = began.elapsed().as_millis();
            let late = |_| Error::transient(format!("{shown} does not end the handshake within {limit:?}"));
            timeout(limit, shake_hands(&mut line, &mut *protocol, &shown))
                .await
                .unwrap_or_else(|over| Err(late(over)))?;
            Ok(format!("{shown} answers in {took} ms; {} channels to subscribe to", channels.len()))
        }
        Ok(Err(NotConnected::Answered { status, .. })) => {
            Err(Error::transient(format!("{shown} answers with HTTP status {status} instead of a WebSocket")))
        }
        Ok(Err(NotConnected::Failed(why))) => Err(Error::transient(format!("{shown}: {why}"))),
        Err(_) => Err(Error::transient(format!("{shown} does not answer within {limit:?}"))),
    }
}

/// Does what a session begins with, until the protocol says that it is ready.
async fn shake_hands(line: &mut <Sockets as Transport>::Line, protocol: &mut dyn Protocol, shown: &str) -> Result<()> {
    let broken = |error| Error::transient(format!("{shown} ends the handshake: {}", root_cause(&error)));
    let mut out = Outbox::new(protocol.tables());
    out.begin(Timestamp::now(), Origin::Live);
    let mut outcome = protocol.on_open(&mut out);
    loop {
        let commands: Vec<Command> = out.take_commands().collect();
        for command in commands {
            if let Command::Send(text) | Command::SendSecret(text, _) = command {
                line.send(Message::text(text)).await.map_err(broken)?;
            } else if command == Command::Ready {
                return outcome;
            }
        }
        match outcome {
            Err(error) if error.kind() != Kind::Malformed => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let Some(message) = line.next().await else {
            return Err(Error::transient(format!("{shown} hangs up in the handshake")));
        };
        outcome = match message.map_err(broken)? {
            Message::Text(text) => out.frame(protocol, Frame::Text(&text), Timestamp::now()),
            Message::Binary(bytes) => out.frame(protocol, Frame::Binary(&bytes), Timestamp::now()),
            Message::Close(frame) => {
                let (code, reason) = frame.as_ref().map_or((NO_CODE, ""), |f| (u16::from(f.code), f.reason.as_str()));
                Err(protocol.on_close(&Close { code, reason }))
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        };
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

/// A peer that closes without a code, by RFC 6455.
const NO_CODE: u16 = 1005;
