//! HTTP and TLS for everything that calls a venue: one TLS configuration for WebSocket and REST.

mod hosts;

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject},
};

pub(crate) use self::hosts::{Hosts, Rate, Turn};
use crate::{Error, Result, protocol::Request};

/// Calls venues over HTTP. Clones share their connections, and what a host allows.
///
/// Trusts the system's certificates, read when the first `https` address is called.
#[derive(Debug, Clone)]
pub struct HttpClient {
    shared: Arc<Shared>,
    hosts: Arc<Hosts>,
}

#[derive(Debug)]
struct Shared {
    extra_roots: Vec<CertificateDer<'static>>,
    tls: OnceLock<Arc<ClientConfig>>,
    plain: OnceLock<reqwest::Client>,
    secure: OnceLock<reqwest::Client>,
}

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The pause that the peer asked for.
    pub retry_after: Option<Duration>,
    /// The body, as it came.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// It did not come in time.
    TimedOut(Duration),
    /// The peer was not reached, or the connection broke.
    Unreachable(String),
}

impl HttpClient {
    /// Returns a client that trusts the system's certificates.
    pub fn new() -> Self {
        Self { shared: Shared::trusting(Vec::new()), hosts: Arc::default() }
    }

    /// Returns a client that also trusts the certificates of a PEM file, and makes its calls in turn with those of this one.
    ///
    /// # Errors
    ///
    /// `Config` when the file cannot be read or holds no certificate.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. A file that never ends, as a pipe, holds up a thread that may wait.
    pub async fn with_ca(&self, file: &Path) -> Result<Self> {
        let shown = file.display();
        let pem = tokio::fs::read(file).await;
        let pem = pem.map_err(|error| Error::config(format!("`extra_ca`: `{shown}`: {error}")))?;
        let roots = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let roots = roots.map_err(|error| Error::config(format!("`extra_ca`: `{shown}` is no PEM file: {error}")))?;
        if roots.is_empty() {
            return Err(Error::config(format!("`extra_ca`: `{shown}` holds no certificate")));
        }
        Ok(Self { shared: Shared::trusting(roots), hosts: Arc::clone(&self.hosts) })
    }

    /// Returns what hosts allow, for who waits for a turn apart from the call.
    pub(crate) fn hosts(&self) -> &Arc<Hosts> {
        &self.hosts
    }

    /// Returns the TLS configuration, for connections that are no HTTP. Reads the system's certificates at the first time.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn tls(&self) -> Arc<ClientConfig> {
        if let Some(tls) = self.shared.tls.get() {
            return Arc::clone(tls);
        }
        let shared = Arc::clone(&self.shared);
        // Some hundred files, which is no work for the runtime's threads.
        let read = tokio::task::spawn_blocking(move || shared.trusted()).await;
        read.unwrap_or_else(|_| self.shared.trusted())
    }

    /// Makes a call, and reads at most [`LONGEST_BODY`] bytes of the answer. It waits for its turn, within its time: all
    /// clones together keep to the request's [pool](Request::pool), have at most [`MOST_AT_ONCE`] calls out to one host, and
    /// leave it alone for as long as it asked for.
    ///
    /// # Errors
    ///
    /// Only when there is no answer: a status of 500 is one.
    pub async fn call(&self, request: &Request, timeout: Duration) -> Result<Answer, NoAnswer> {
        let answer = within(timeout, async { self.answer(self.hosts.turn(request).await, request).await }).await?;
        if let Some(pause) = answer.pause() {
            self.hosts.pause(&request.host(), pause);
        }
        Ok(answer)
    }

    /// Makes a call whose turn has come. What the answer says about a pause is the caller's to pass on.
    ///
    /// # Errors
    ///
    /// Only when there is no answer.
    pub(crate) async fn call_in(&self, turn: Turn, request: &Request, timeout: Duration) -> Result<Answer, NoAnswer> {
        within(timeout, self.answer(turn, request)).await
    }

    async fn answer(&self, _turn: Turn, request: &Request) -> Result<Answer, NoAnswer> {
        let client = self.client(&request.url).await?;
        let mut call = match &request.body {
            None => client.get(&request.url),
            Some(body) => client.post(&request.url).body(body.clone()),
        };
        for (name, value) in &request.headers {
            call = call.header(name, value);
        }
        let mut response = call.send().await.map_err(unreachable)?;
        let mut answer =
            Answer { status: response.status().as_u16(), retry_after: retry_after(&response), body: Vec::new() };
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            if answer.body.len() + part.len() > LONGEST_BODY {
                return Err(NoAnswer::Unreachable(format!("the answer is longer than {LONGEST_BODY} bytes")));
            }
            answer.body.extend_from_slice(&part);
        }
        Ok(answer)
    }

    /// Returns the client for an address, for calls that are none of a venue's and keep to no turn: a store's. Reading the
    /// system's certificates takes longer than a call on loopback, so a plain address does without.
    ///
    /// # Errors
    ///
    /// Only when no client can be made.
    pub async fn client(&self, url: &str) -> Result<&reqwest::Client, NoAnswer> {
        let is_plain = url.starts_with("http://");
        let place = if is_plain { &self.shared.plain } else { &self.shared.secure };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let tls = if is_plain { configuration(RootCertStore::empty()) } else { (*self.tls().await).clone() };
        // Without a proxy, as the WebSocket connections are: a variable of the environment must not split a venue in two.
        let builder = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).user_agent(USER_AGENT);
        let builder = builder.pool_idle_timeout(IDLE).pool_max_idle_per_host(MOST_AT_ONCE).tcp_nodelay(true);
        let client = builder.build().map_err(unreachable)?;
        Ok(place.get_or_init(|| client))
    }
}

impl Answer {
    /// Returns whether the peer is not well, or does not want to be asked now.
    pub(crate) fn is_put_off(&self) -> bool {
        self.status == TOO_MANY_REQUESTS || self.status >= 500
    }

    /// Returns for how long the peer wants to be left alone, if it does. Who asks too much and is not told how long to wait
    /// waits for a second.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let least = (self.status == TOO_MANY_REQUESTS).then_some(UNSAID_PAUSE);
        self.retry_after.filter(|_| self.is_put_off()).or(least)
    }
}

impl Shared {
    fn trusting(extra_roots: Vec<CertificateDer<'static>>) -> Arc<Self> {
        let (tls, plain, secure) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Arc::new(Self { extra_roots, tls, plain, secure })
    }

    fn trusted(&self) -> Arc<ClientConfig> {
        Arc::clone(self.tls.get_or_init(|| Arc::new(secure(&self.extra_roots))))
    }
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut(after) => write!(f, "no answer for {}", humantime::format_duration(*after)),
            Self::Unreachable(why) => f.write_str(why),
        }
    }
}

async fn within(limit: Duration, call: impl Future<Output = Result<Answer, NoAnswer>>) -> Result<Answer, NoAnswer> {
    tokio::time::timeout(limit, call).await.unwrap_or(Err(NoAnswer::TimedOut(limit)))
}

/// Returns the pause of a `Retry-After` header: whole seconds. The date form is not used by venues.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// The address may hold a key, so it is left out; the cause behind the error says what was wrong.
fn unreachable(error: reqwest::Error) -> NoAnswer {
    NoAnswer::Unreachable(root_cause(&error.without_url()))
}

/// Returns the innermost cause, which is what a person can act on: `connection refused`.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Returns a configuration that trusts the system's certificates and these.
fn secure(extra: &[CertificateDer<'static>]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    roots.add_parsable_certificates(extra.iter().cloned());
    if roots.is_empty() {
        tracing::warn!("no certificates found on this system: no `wss` or `https` address can be verified");
    }
    configuration(roots)
}

fn configuration(roots: RootCertStore) -> ClientConfig {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The longest answer that is read, in bytes.
pub const LONGEST_BODY: usize = 64 << 20;
/// Venues count the connections of a machine, HTTP and WebSocket together (Deribit: 32), so none is kept for later.
const IDLE: Duration = Duration::from_secs(3);
/// Calls to one host that are out at once.
pub const MOST_AT_ONCE: usize = 4;
const TOO_MANY_REQUESTS: u16 = 429;
const UNSAID_PAUSE: Duration = Duration::from_secs(1);
const USER_AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
