//! One owned connection: no pool, so that health and breaker learn the true cause of a failure.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tidegate_core::{Error, Result, sink::Owner};
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, NoTls, Row, SimpleQueryMessage, config::SslMode, types::ToSql, types::Type};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    address::Address,
    config::{Settings, Tls},
    error::sorted,
};

/// A connection. When it is dropped it is cut, whatever is under way: the server rolls that back, unless it is committing.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    /// Reads and writes the socket. Owned here, and ended with it.
    driver: Option<JoinHandle<()>>,
    /// Host, port and database.
    pub(super) shown: String,
}

/// A parameter of a statement, with its type: nothing is prepared by name, which a PgBouncer would not keep.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl Link {
    /// Connects and logs in. `owner` names the session, by which an older one of the same sink can be found.
    ///
    /// # Errors
    ///
    /// `Config` when the server does not let us in, or its certificate is not trusted; else `Transient`.
    pub(super) async fn open(settings: &Settings, owner: Option<&Owner>) -> Result<Self> {
        let address = Address::parse(&settings.url.reveal()?).map_err(Error::config)?;
        let shown = address.shown();
        let mut config = address.config;
        if let Some(password) = &settings.password {
            config.password(password.reveal()?);
        }
        config
            .application_name(owner.map_or_else(|| "tidegate".to_owned(), session_name))
            .connect_timeout(settings.connect_timeout.0)
            .tcp_user_timeout(DEAD_AFTER)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
        // The client's own limit is for the TCP connection only: a frozen server accepts it, and says nothing.
        let limit = settings.connect_timeout.0;
        let connected = async {
            if config.get_ssl_mode() == SslMode::Disable {
                let (client, connection) = config.connect(NoTls).await.map_err(sorted)?;
                return Ok((client, tokio::spawn(driven(connection))));
            }
            let tls = MakeRustlsConnect::new(tls(&settings.tls)?);
            let (client, connection) = config.connect(tls).await.map_err(sorted)?;
            Ok((client, tokio::spawn(driven(connection))))
        };
        let connected = timeout(limit, connected).await.unwrap_or_else(|_| {
            Err(Error::transient(format!("the database did not answer within {}", settings.connect_timeout)))
        });
        let (client, driver) = connected.map_err(|error| at(&shown, error))?;
        Ok(Self { client, driver: Some(driver), shown })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Runs statements that were put together here.
    pub(super) async fn run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(sql).await
    }

    /// Asks something with parameters.
    pub(super) async fn rows(&self, sql: &str, with: &[Parameter<'_>]) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.client.query_typed(sql, with).await
    }

    /// Asks for one text, without parameters.
    pub(super) async fn text(&self, sql: &str) -> Result<Option<String>, tokio_postgres::Error> {
        let answers = self.client.simple_query(sql).await?;
        Ok(answers.iter().find_map(|answer| {
            let SimpleQueryMessage::Row(row) = answer else { return None };
            row.get(0).map(str::to_owned)
        }))
    }

    /// Says good-bye, and waits a moment for the socket to be closed.
    pub(super) async fn close(mut self) {
        let driver = self.driver.take();
        drop(self);
        if let Some(mut driver) = driver
            && timeout(GOOD_BYE, &mut driver).await.is_err()
        {
            driver.abort();
        }
    }

    /// Names the database in an error.
    pub(super) fn at(&self, error: Error) -> Error {
        at(&self.shown, error)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.abort();
        }
    }
}

/// The name that the server shows of a sink's session; no longer than the server keeps it.
pub(super) fn session_name(owner: &Owner) -> String {
    // The parts of a log have a session each: none may be taken for another's.
    let part = match &*owner.part.0 {
        _ if owner.part.is_spool() => String::new(),
        part if part.len() <= LONGEST_PART => format!("{part}/"),
        part => format!("{:016x}/", super::open::hash(&[part])),
    };
    let name = format!("tidegate/{part}{}/{}", owner.pipeline, owner.sink);
    let end = (0..=name.len().min(super::schema::LONGEST_NAME)).rev().find(|end| name.is_char_boundary(*end));
    // The server shows other characters as `?`.
    name[..end.unwrap_or(0)].chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// Runs a connection. Its error is that of the call which waits for an answer, too.
async fn driven<S, T>(connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    drop(connection.await);
}

fn at(shown: &str, error: Error) -> Error {
    let text = format!("{shown}: {error}");
    let named = match error.kind() {
        tidegate_core::Kind::Transient { .. } => Error::transient(text),
        tidegate_core::Kind::Malformed => Error::malformed(text),
        tidegate_core::Kind::Permanent => Error::permanent(text),
        tidegate_core::Kind::Config => Error::config(text),
    };
    match std::error::Error::source(&error) {
        Some(cause) => named.because(Cause::of(cause)),
        None => named,
    }
}

/// The words of an error that cannot be moved out of another.
#[derive(Debug)]
struct Cause(String);

impl Cause {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let next = inner.to_string();
            if !text.ends_with(&next) {
                text = format!("{text}: {next}");
            }
            cause = inner.source();
        }
        Self(text)
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

/// Returns what TLS trusts and shows. Files are read at each connection, so that a renewed certificate is found.
fn tls(wanted: &Tls) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match &wanted.ca {
        Some(file) => {
            roots.add_parsable_certificates(certificates(file, "ca")?);
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() {
        return Err(Error::config(
            "no authority is trusted: name one in `tls.ca`, or install the system's certificates",
        ));
    }
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&wanted.certificate, &wanted.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate, "certificate")?;
    let secret = pem(PrivateKeyDer::from_pem_file(key), key, "key")?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|error| Error::config("`tls.certificate` and `tls.key` do not belong together").because(error))
}

fn certificates(file: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(|found| found.collect::<std::result::Result<Vec<_>, _>>());
    pem(read, file, key)
}

fn pem<T>(read: std::result::Result<T, rustls::pki_types::pem::Error>, file: &Path, key: &str) -> Result<T> {
    let shown = file.display();
    read.map_err(|error| Error::config(format!("`tls.{key}`: `{shown}` cannot be read as PEM: {error}")))
}

/// A host that vanished is noticed after about 25 s, by either side: [`KEEPALIVE_SQL`] is the server's.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// What was sent and is not acknowledged for so long ends the connection.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// For one transaction: what was set for a session would stay with a connection of PgBouncer's.
pub(super) const KEEPALIVE_SQL: &str = "SET LOCAL tcp_keepalives_idle = 10; SET LOCAL tcp_keepalives_interval = 5; \
     SET LOCAL tcp_keepalives_count = 3; SET LOCAL tcp_user_timeout = '30s'";
/// A longer name of a part would push out what stands behind it, or be cut itself.
const LONGEST_PART: usize = 32;
const GOOD_BYE: Duration = Duration::from_secs(1);
