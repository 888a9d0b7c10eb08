//! The process's own HTTP: `/health`, `/health/ready`, `/health/live`, `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    middleware::{from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tidegate_core::{Error, Result, health::Registry};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    listener::Limited,
    token::{self, Token},
};

/// The server, bound and not yet serving.
pub(crate) struct Server {
    listener: std::net::TcpListener,
    router: Router,
    registry: Registry,
}

#[derive(Clone)]
struct Shared {
    registry: Registry,
    metrics: PrometheusHandle,
}

impl Server {
    /// Binds the address. With a token, all paths but `/health/live` ask for it.
    ///
    /// # Errors
    ///
    /// `Config` when the address is taken or not ours.
    pub(crate) async fn bind(
        listen: SocketAddr,
        token: Option<String>,
        registry: Registry,
        metrics: PrometheusHandle,
    ) -> Result<Self> {
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            let remedy = "set `listen` in tidegate.toml to another port, or to port 0 for a free one";
            Error::config(format!("cannot listen on {listen}: {error}; {remedy}"))
        })?;
        let mut router = Router::new()
            .route("/health", get(health))
            .route("/health/ready", get(ready))
            .route("/metrics", get(render_metrics));
        if let Some(token) = token {
            router = router.layer(from_fn_with_state(Arc::new(Token::new(token)), token::ask));
        }
        let router = router
            // Whoever only starts it anew when it hangs need not know the token.
            .route("/health/live", get(live))
            .layer(map_response(last_answer))
            .with_state(Shared { registry: registry.clone(), metrics });
        let listener = listener.into_std().map_err(|error| Error::permanent("cannot listen").because(error))?;
        Ok(Self { listener, router, registry })
    }

    /// Returns the address, with the port that a port 0 became.
    ///
    /// # Errors
    ///
    /// `Transient` if the system does not say.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|error| Error::transient("cannot read the listening address").because(error))
    }

    /// Serves until `stop`, on a thread with a runtime of its own: where that of the pipelines is stuck, `/health/live` says so.
    ///
    /// # Errors
    ///
    /// `Transient` when the listener fails.
    pub(crate) async fn serve(self, stop: CancellationToken) -> Result<()> {
        let (tell, ended) = oneshot::channel();
        let serving = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.and_then(|runtime| runtime.block_on(self.serve_here(stop)));
            // Whoever waited may have gone.
            drop(tell.send(served));
        });
        let served = match serving {
            Ok(_) => ended.await.unwrap_or_else(|_| Err(std::io::Error::other("it has panicked"))),
            Err(error) => Err(error),
        };
        served.map_err(|error| Error::transient("the health server has ended").because(error))
    }

    async fn serve_here(self, stop: CancellationToken) -> std::io::Result<()> {
        let listener = Limited::new(TcpListener::from_std(self.listener)?, self.registry);
        axum::serve(listener, self.router).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

/// One answer ends a connection, so that a time for the connection is one for the request.
async fn last_answer(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn health(State(shared): State<Shared>) -> Response {
    let report = shared.registry.report();
    answer(report.is_up(), &report)
}

async fn ready(State(shared): State<Shared>) -> Response {
    let readiness = shared.registry.ready();
    answer(readiness.ready, &readiness)
}

async fn live(State(shared): State<Shared>) -> Response {
    let live = shared.registry.live();
    answer(live, &serde_json::json!({ "live": live }))
}

async fn render_metrics(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.render())
}

fn answer(well: bool, body: &impl Serialize) -> Response {
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        sync::mpsc,
        time::{Duration, Instant},
    };

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn of_a_runtime_that_is_stuck_it_is_said_that_it_does_not_live() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (registry, stop) = (Registry::new(), CancellationToken::new());
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = runtime.block_on(Server::bind(anywhere, None, registry.clone(), metrics)).unwrap();
        let address = server.address().unwrap();
        runtime.spawn(server.serve(stop.clone()));
        let beating = stop.clone();
        runtime.spawn(async move { registry.heartbeat(beating).await });
        until(address, "200");

        let (free, stuck) = mpsc::channel::<()>();
        runtime.spawn(async move { assert!(stuck.recv().is_err(), "nobody sends anything") });
        until(address, "503");
        drop(free);
        until(address, "200");
        stop.cancel();
    }

    /// Asks until this status comes.
    fn until(address: SocketAddr, status: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut answer = String::new();
            let mut socket = TcpStream::connect(address).unwrap();
            socket.write_all(b"GET /health/live HTTP/1.0\r\n\r\n").unwrap();
            socket.read_to_string(&mut answer).unwrap();
            if answer.split(' ').nth(1) == Some(status) {
                return;
            }
            assert!(Instant::now() < deadline, "never {status}: {answer}");
        }
    }
}
