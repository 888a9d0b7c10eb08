//! A venue behind TLS: whom the program trusts, and what it says where it trusts nobody.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use serde_json::Value;
use support::{Bench, busy};
use tidegate::testkit::{Proxy, certificates};

#[tokio::test(flavor = "multi_thread")]
async fn the_systems_roots_are_trusted_over_both_doors_and_nobody_else() {
    let bench = Bench::start(busy(500.0), "", "").await;
    for authority in ["ca", "other"] {
        certificates::authority(bench.folder(), authority);
    }
    certificates::for_server(bench.folder(), "ca", "server");
    let (certificate, key) = (bench.path("server.pem"), bench.path("server.key"));
    let (_, behind) =
        bench.venue.http_url().split_once("://").map(|(scheme, rest)| (scheme.to_owned(), rest.to_owned())).unwrap();
    let address = behind.split('/').next().unwrap().to_owned();
    let proxy = Proxy::with_tls(address.clone(), &certificate, &key).await.unwrap();
    let encrypted = |url: String, scheme: &str| {
        let (_, rest) = url.split_once("://").unwrap();
        assert!(rest.starts_with(&address), "{url} is at {address}");
        format!("{scheme}://{}", rest.replacen(&address, &proxy.address().to_string(), 1))
    };
    let (ws, http) = (encrypted(bench.venue.ws_url(), "wss"), encrypted(bench.venue.http_url(), "https"));
    let endpoint = format!("endpoint = {{ ws = \"{ws}\", http = \"{http}\" }}\n");
    bench.write("eth.toml", &bench.pipeline(&endpoint, ""));

    // The variable names the system's roots, for OpenSSL and for us.
    let root = |name: &str| bench.path(name).display().to_string();
    let mut program = bench.run_with(&[("SSL_CERT_FILE", &root("other.pem"))]);
    let refused = |report: &Value| {
        let source = &report["checks"]["eth/source.deribit"];
        source["status"] == "degraded" && source["reason"].as_str().is_some_and(|why| why.contains("certificate"))
    };
    program.until("the certificate is not trusted, and that is said", refused).await;
    program.stop().await;
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 0, "nothing came of somebody who is not trusted");

    let mut program = bench.run_with(&[("SSL_CERT_FILE", &root("ca.pem"))]);
    program.until_committed(500).await;
    // History, too, came over the other door.
    bench.settle(&mut program).await.assert_exact(&program.log());
    program.stop().await;
}
