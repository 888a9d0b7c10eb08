//! What the driver needs of the outside world: connections, calls, and the wall clock.

use std::{future::Future, time::Duration};

use futures_util::{Sink, Stream};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, client_async_tls_with_config,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        error::{Error as WsError, UrlError},
        http::{HeaderName, HeaderValue},
        protocol::WebSocketConfig,
    },
};

use super::metered::{Line, Meter};
use crate::{
    http::{Answer, HttpClient, NoAnswer, Turn, root_cause},
    protocol::{Endpoint, Request},
    row::Timestamp,
};

/// The outside world. Tests have one of their own, with a script and paused time.
pub(super) trait Transport: Send + Sync + 'static {
    /// An open connection.
    type Line: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Unpin + Send;

    /// Opens a connection, handshakes included.
    fn connect(&self, endpoint: Endpoint) -> impl Future<Output = Result<Self::Line, NotConnected>> + Send + 'static;

    /// Makes an HTTP call whose turn has come.
    fn call(
        &self,
        turn: Turn,
        request: Request,
        timeout: Duration,
    ) -> impl Future<Output = Result<Answer, NoAnswer>> + Send + 'static;

    /// Returns the time of the wall clock.
    fn wall(&self) -> Timestamp;
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotConnected {
    /// The upgrade was answered with an HTTP status.
    Answered { status: u16, body: String },
    /// Anything else.
    Failed(String),
}

/// Real sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) http: HttpClient,
    pub(super) max_message: usize,
}

impl Transport for Sockets {
    type Line = Line<TcpStream>;

    fn connect(&self, endpoint: Endpoint) -> impl Future<Output = Result<Self::Line, NotConnected>> + Send + 'static {
        let http = self.http.clone();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(self.max_message))
            .max_frame_size(Some(self.max_message));
        let meter = Meter::new(self.max_message);
        async move {
            let request = upgrade(&endpoint)?;
            let is_secure = endpoint.url.starts_with("wss:");
            let connector = if is_secure { Connector::Rustls(http.tls().await) } else { Connector::Plain };
            let host = request.uri().host().unwrap_or_default();
            let port = request.uri().port_u16().unwrap_or(if is_secure { 443 } else { 80 });
            let socket = TcpStream::connect(format!("{host}:{port}")).await;
            let socket = socket.and_then(|socket| socket.set_nodelay(true).map(|()| socket));
            let socket = meter.socket(socket.map_err(|error| not_connected(WsError::Io(error)))?);
            let connected = client_async_tls_with_config(request, socket, Some(config), Some(connector)).await;
            connected.map(|(socket, _)| meter.line(socket)).map_err(not_connected)
        }
    }

    fn call(
        &self,
        turn: Turn,
        request: Request,
        timeout: Duration,
    ) -> impl Future<Output = Result<Answer, NoAnswer>> + Send + 'static {
        let http = self.http.clone();
        async move { http.call_in(turn, &request, timeout).await }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Returns the upgrade request. What is wrong with it is said without the address, which may hold a key.
fn upgrade(endpoint: &Endpoint) -> Result<tokio_tungstenite::tungstenite::handshake::client::Request, NotConnected> {
    let unreadable = || NotConnected::Failed(format!("`{}` is no WebSocket address", endpoint.shown()));
    let mut request = endpoint.url.as_str().into_client_request().map_err(|_| unreadable())?;
    for (name, value) in &endpoint.headers {
        let bad = || NotConnected::Failed(format!("the header `{name}` cannot be sent"));
        let header = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
        let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| bad())?;
        value.set_sensitive(true);
        request.headers_mut().insert(header, value);
    }
    Ok(request)
}

fn not_connected(error: WsError) -> NotConnected {
    if let WsError::Http(response) = &error {
        let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        let body = body.chars().take(SHOWN_BODY).collect();
        return NotConnected::Answered { status: response.status().as_u16(), body };
    }
    // Its text repeats the address.
    if let WsError::Url(UrlError::UnableToConnect(_)) = &error {
        return NotConnected::Failed("no address answers".to_owned());
    }
    NotConnected::Failed(root_cause(&error))
}

/// The buffer that a connection reads into.
const READ_BUFFER: usize = 128 << 10;
/// How much of an HTTP answer to an upgrade is kept.
const SHOWN_BODY: usize = 200;
