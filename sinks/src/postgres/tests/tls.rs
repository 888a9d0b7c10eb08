//! Certificates and passwords, against a server that asks for them.

use std::{fs, path::Path};

use tidegate_core::{
    Kind,
    row::{Table, kinds::Trade},
    sink::Sink,
    testkit::certificates,
};

use super::{Bench, Postgres, assert_committed, link, server, settings};

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_verified_shown_and_asked_for_and_no_secret_is_in_any_word() {
    let mut server = server().await;
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let data = server.directory().join("data");
    for name in ["ca.pem", "server.pem", "server.key"] {
        fs::copy(folder.path().join(name), data.join(name)).unwrap();
    }
    let conf = "\nssl = on\nssl_ca_file = 'ca.pem'\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n";
    let old = fs::read_to_string(data.join("postgresql.conf")).unwrap();
    fs::write(data.join("postgresql.conf"), old + conf).unwrap();
    let setup = Bench::at(server.url(), vec![Table::of::<Trade<'_>>()]);
    setup.run("CREATE ROLE certified LOGIN SUPERUSER; CREATE ROLE secret LOGIN SUPERUSER PASSWORD 'hunter2'").await;
    let hba = "local all all trust\nhostnossl all postgres 127.0.0.1/32 trust\nhostssl all certified 127.0.0.1/32 cert\n\
               hostssl all secret 127.0.0.1/32 scram-sha-256\n";
    fs::write(data.join("pg_hba.conf"), hba).unwrap();
    server.restart();

    let at = server.url().split_once('@').unwrap().1;
    let file = |name: &str| folder.path().join(name).display().to_string();
    fs::write(folder.path().join("password"), "hunter2\n").unwrap();
    let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let with = |user: &str, mode: &str, more: &str| {
        settings(&format!(r#"{{"url":"postgres://{user}@{at}{mode}","schema":"{}"{more}}}"#, setup.schema))
    };
    let tls = format!(r#","tls":{{"ca":"{ca}"}}"#);
    let whole = format!(r#","tls":{{"ca":"{ca}","certificate":"{certificate}","key":"{key}"}}"#);
    let password = format!(r#"{tls},"password":{{"file":"{}"}}"#, file("password"));

    // With a certificate of ours, with a password from a file, and with one in the address.
    for good in [
        with("certified", "?sslmode=require", &whole),
        with("secret", "?sslmode=verify-full", &password),
        with("secret:hunter2", "?sslmode=prefer", &tls),
    ] {
        let said = Postgres::new(good.clone()).reach(&[]).await.unwrap();
        assert!(said.contains("PostgreSQL") && !said.contains("hunter2"), "{said}");
        let encrypted = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let link = link(&good).await.unwrap();
        assert_eq!(link.text(encrypted).await.unwrap().as_deref(), Some("true"));
        link.close().await;
    }
    let mut sink = Postgres::new(with("certified", "?sslmode=require", &whole));
    sink.open(&setup.context()).await.unwrap();
    let last = setup.trades(1_000);
    assert_committed(setup.write(&mut sink, 0, last).await);

    let other = format!(r#","tls":{{"ca":"{}"}}"#, file("other-ca.pem"));
    let elsewhere = settings(&format!(
        r#"{{"url":"postgres://secret:hunter2@{}?sslmode=require"{tls}}}"#,
        at.replace("127.0.0.1", "localhost")
    ));
    for (bad, said) in [
        (with("secret:hunter2", "?sslmode=require", ""), "is not trusted"),
        (with("secret:hunter2", "?sslmode=require", &other), "is not trusted"),
        (elsewhere, "is not trusted"),
        (with("secret:hunter3", "?sslmode=require", &tls), "does not let us in (28P01)"),
        (with("certified", "?sslmode=require", &tls), "does not let us in (28000)"),
        (with("secret:hunter2", "", &tls), "does not let us in (28000)"),
        (with("certified", "?sslmode=require", r#","tls":{"ca":"/no/such/file"}"#), "`/no/such/file` cannot be read"),
    ] {
        let error = Postgres::new(bad).open(&setup.context()).await.unwrap_err();
        assert!(error.to_string().contains(said), "{said}: {}", error.chain());
        assert_eq!(error.kind(), Kind::Config, "{}", error.chain());
        assert!(!error.chain().contains("hunter"), "{}", error.chain());
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_needs_a_person_where_it_is_asked_for_and_says_the_two_ways_out() {
    let bench = Bench::new().await;
    let folder = tempfile::tempdir().unwrap();
    certificates::authority(folder.path(), "ca");
    let ca = folder.path().join("ca.pem").display().to_string();
    let with = |mode: &str| {
        let text =
            format!(r#"{{"url":"{}?sslmode={mode}","schema":"{}","tls":{{"ca":"{ca}"}}}}"#, bench.url, bench.schema);
        Postgres::new(settings(&text))
    };
    for mode in ["require", "verify-full"] {
        let error = with(mode).open(&bench.context()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Config, "{mode}: {}", error.chain());
        for part in ["the server speaks no TLS", "`ssl = on`", "`sslmode=prefer`"] {
            assert!(error.to_string().contains(part), "{mode}: {}", error.chain());
        }
    }
    with("prefer").open(&bench.context()).await.unwrap();
}

/// An authority, what it signs for the server and for us, and another authority.
fn make(folder: &Path) {
    certificates::authority(folder, "ca");
    certificates::authority(folder, "other-ca");
    certificates::for_server(folder, "ca", "server");
    certificates::for_client(folder, "ca", "client", "certified");
}
