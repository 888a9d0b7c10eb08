//! The HTTP half: both REST hosts, on connections that the server hands over.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, mpsc},
    time::sleep,
};
use tracing::error;

use super::{
    history::Host,
    methods,
    rpc::{Params, Request, RpcError, reply},
    session::reset,
    shared::Shared,
    venue::Venue,
};

/// Serves the connections that come through `connections` until the venue stops.
pub(super) async fn serve(shared: Arc<Shared>, connections: mpsc::Receiver<Connection>, address: SocketAddr) {
    let router = Router::new().fallback(on_request).with_state(Arc::clone(&shared));
    let stopped = shared.stop.clone().cancelled_owned();
    let serving = axum::serve(Connections { connections, address }, router).with_graceful_shutdown(stopped);
    if let Err(failed) = serving.await {
        error!(error = %failed, "the simulated rest hosts stopped");
    }
}

async fn on_request(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, body: Bytes) -> Response {
    let (slow, answer) = {
        let mut venue = shared.venue();
        let now = venue.now();
        (venue.conditions.slow(now.instant), answer(&mut venue, &method, &uri, &body))
    };
    if let Some(by) = slow {
        sleep(by).await;
    }
    answer
}

fn answer(venue: &mut Venue, verb: &Method, uri: &Uri, body: &Bytes) -> Response {
    let now = venue.now();
    if venue.conditions.rest_fails(now.instant) {
        return (StatusCode::SERVICE_UNAVAILABLE, "<html>service unavailable</html>").into_response();
    }
    if let Some(retry_after) = venue.conditions.too_many(now.instant) {
        return too_many_requests(venue, retry_after);
    }
    let Some((host, method)) = route(venue, uri) else {
        return (StatusCode::NOT_FOUND, "not found").into_response();
    };
    let request = if verb == Method::POST { posted(body) } else { queried(uri, method) };
    let (id, result) = match request {
        Ok(request) if !venue.address_credits.pay(methods::pool_of(&request.method), now.instant) => {
            return too_many_requests(venue, Duration::from_secs(1));
        }
        Ok(request) => (request.id, methods::answer(venue, host, &request.method, &request.params, now)),
        Err(error) => (None, Err(error)),
    };
    let status = if result.is_ok() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    json(status, reply(id.as_deref(), &result, venue.stamp(now)))
}

/// Returns the host and method of an address; a posted request carries its method itself.
fn route<'a>(venue: &Venue, uri: &'a Uri) -> Option<(Host, &'a str)> {
    let path = uri.path();
    let (host, path) = match path.strip_prefix("/history") {
        Some(rest) => (Host::History, rest),
        None => (venue.main_host(venue.now()), path),
    };
    let method = path.strip_prefix("/api/v2")?;
    Some((host, method.strip_prefix('/').unwrap_or(method)))
}

fn queried(uri: &Uri, method: &str) -> Result<Request, RpcError> {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return Err(RpcError::of(11050, "bad_request"));
    };
    Ok(Request { id: None, method: method.to_owned(), params: Params::of_query(pairs) })
}

fn posted(body: &Bytes) -> Result<Request, RpcError> {
    let text = std::str::from_utf8(body).map_err(|_| RpcError::of(-32700, "Parse error"))?;
    Request::parse(text)
}

fn too_many_requests(venue: &Venue, retry_after: Duration) -> Response {
    let error = Err(RpcError::of(10028, "too_many_requests"));
    let mut response = json(StatusCode::TOO_MANY_REQUESTS, reply(None, &error, venue.stamp(venue.now())));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs()));
    response
}

fn json(status: StatusCode, body: String) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (status, headers, body).into_response()
}

/// A connection whose first bytes have been looked at and not taken.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) shared: Arc<Shared>,
    /// Held for as long as the connection is open.
    pub(super) _permit: OwnedSemaphorePermit,
}

struct Connections {
    connections: mpsc::Receiver<Connection>,
    address: SocketAddr,
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(connection) => (connection, self.address),
            // The server has stopped accepting; the shutdown signal ends this wait.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    /// Fails with a reset while the REST host is down, whatever was asked.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let down = {
            let venue = self.shared.venue();
            venue.conditions.rest_down(venue.now().instant)
        };
        if down {
            reset(&self.stream);
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
