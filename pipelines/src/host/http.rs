//! The process's own HTTP: `/health`, `/health/ready`, `/health/live`, `/metrics`.

use std::net::SocketAddr;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tidegate_core::{Error, Result, health::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::listener::Limited;

/// The server, bound and not yet serving.
pub(crate) struct Server {
    listener: Limited,
    router: Router,
}

#[derive(Clone)]
struct Shared {
    registry: Registry,
    metrics: PrometheusHandle,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    ///
    /// `Config` when the address is taken or not ours, or is reachable from other machines: what it shows is for us.
    pub(crate) async fn bind(listen: SocketAddr, registry: Registry, metrics: PrometheusHandle) -> Result<Self> {
        if !listen.ip().is_loopback() {
            let text =
                format!("`listen = \"{listen}\"` is reachable from other machines, and this version has no token");
            return Err(Error::config(format!("{text}: use 127.0.0.1 and a proxy in front")));
        }
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            let remedy = "set `listen` in tidegate.toml to another port, or to port 0 for a free one";
            Error::config(format!("cannot listen on {listen}: {error}; {remedy}"))
        })?;
        let router = Router::new()
            .route("/health", get(health))
            .route("/health/ready", get(ready))
            .route("/health/live", get(live))
            .route("/metrics", get(render_metrics))
            .layer(map_response(last_answer))
            .with_state(Shared { registry: registry.clone(), metrics });
        Ok(Self { listener: Limited::new(listener, registry), router })
    }

    /// Returns the address, with the port that a port 0 became.
    ///
    /// # Errors
    ///
    /// `Transient` if the system does not say.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|error| Error::transient("cannot read the listening address").because(error))
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    ///
    /// `Transient` when the listener fails.
    pub(crate) async fn serve(self, stop: CancellationToken) -> Result<()> {
        let served = axum::serve(self.listener, self.router).with_graceful_shutdown(stop.cancelled_owned()).await;
        served.map_err(|error| Error::transient("the health server has ended").because(error))
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
