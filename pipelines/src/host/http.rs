//! The process's own HTTP: `/health`, `/health/ready`, `/health/live`, `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    middleware::{from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tidegate_core::{Error, Result, health::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    listener::Limited,
    token::{self, Token},
};

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
