//! The address of a database: what `url` says, without a word that could hold the password.

use std::str::FromStr;

use tokio_postgres::config::{Config, Host, SslMode};
use url::form_urlencoded;

/// Where the database is, and whether by TLS.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) config: Config,
}

impl Address {
    /// Reads an address. TLS verifies the certificate always, so libpq's modes that differ in that are one here.
    ///
    /// # Errors
    ///
    /// A text that says what is wrong, and holds nothing of the address.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
        if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
            return Err("`url` has to look like `postgres://USER:PASSWORD@HOST:PORT/DATABASE`".to_owned());
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut mode = None;
        let mut rest = form_urlencoded::Serializer::new(String::new());
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "sslmode" => mode = Some(ssl_mode(&value)?),
                "sslrootcert" | "sslcert" | "sslkey" => {
                    return Err(format!(
                        "`url` has `{key}`: certificates are named in `tls`, `ca`, `certificate`, `key`"
                    ));
                }
                // Ours: by it older sessions of this sink are found.
                "application_name" | "fallback_application_name" => {}
                _ => drop(rest.append_pair(&key, &value)),
            }
        }
        // Postgres takes `+` as it stands, not as a space.
        let rest = rest.finish().replace('+', "%20");
        let joined = if rest.is_empty() { base.to_owned() } else { format!("{base}?{rest}") };
        // Its own words may quote the address.
        let mut config = Config::from_str(&joined).map_err(|_| {
            "`url` cannot be read: a password with `@ : / ? #` in it has to be percent-encoded".to_owned()
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("`url` names no host".to_owned());
        }
        let here = is_here(&config);
        config.ssl_mode(mode.unwrap_or(if here { SslMode::Disable } else { SslMode::Prefer }));
        Ok(Self { config })
    }

    /// Returns host, port and database, to be shown.
    pub(super) fn shown(&self) -> String {
        let ports = self.config.get_ports();
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(n, host)| {
                let port = ports.get(n).or_else(|| ports.first()).copied().unwrap_or(5432);
                match host {
                    Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
                    Host::Tcp(name) => format!("{name}:{port}"),
                    Host::Unix(path) => format!("{}:{port}", path.display()),
                }
            })
            .collect();
        let database = self.config.get_dbname().or_else(|| self.config.get_user()).unwrap_or("");
        format!("{}/{database}", hosts.join(","))
    }
}

/// Whether all hosts are this machine.
fn is_here(config: &Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
        Host::Unix(_) => true,
    })
}

fn ssl_mode(value: &str) -> Result<SslMode, String> {
    match value {
        "disable" => Ok(SslMode::Disable),
        "allow" | "prefer" => Ok(SslMode::Prefer),
        "require" | "verify-ca" | "verify-full" => Ok(SslMode::Require),
        _ => Err("`url` has an unknown `sslmode`: there are disable, prefer, require".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_taken_where_the_url_says_so_or_the_host_is_another() {
        for (url, mode) in [
            ("postgres://me@db.example/x", SslMode::Prefer),
            ("postgres://me@localhost/x", SslMode::Disable),
            ("postgresql://me@127.0.0.1:5433/x", SslMode::Disable),
            ("postgres://me@[::1]/x", SslMode::Disable),
            ("postgres://me@127.0.0.1/x?sslmode=require", SslMode::Require),
            ("postgres://me@db.example/x?sslmode=verify-full&connect_timeout=3", SslMode::Require),
            ("postgres://me@db.example/x?sslmode=disable", SslMode::Disable),
            ("postgres:///x?host=%2Frun%2Fpostgresql&user=me", SslMode::Disable),
        ] {
            assert_eq!(Address::parse(url).unwrap().config.get_ssl_mode(), mode, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_address() {
        for (url, said) in [
            ("mysql://me:hunter2@db/x", "has to look like"),
            ("postgres://me:hunter2@db:port/x", "percent-encoded"),
            ("postgres://me:hunter2@db/x?sslmode=hunter2", "unknown `sslmode`"),
            ("postgres://me:hunter2@db/x?sslrootcert=ca.pem", "named in `tls`"),
            ("postgres:///x", "names no host"),
        ] {
            let error = Address::parse(url).unwrap_err();
            assert!(error.contains(said) && !error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn it_is_shown_without_user_and_password() {
        for (url, shown) in [
            ("postgres://me:hunter2@db.example/x", "db.example:5432/x"),
            ("postgres://me:hunter2@[::1]:5433/", "[::1]:5433/me"),
            ("postgres://me:hunter2@a:1,b:2/x?target_session_attrs=read-write", "a:1,b:2/x"),
        ] {
            assert_eq!(Address::parse(url).unwrap().shown(), shown);
        }
    }
}
