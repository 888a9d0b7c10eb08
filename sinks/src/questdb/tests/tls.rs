//! QuestDB behind something that speaks TLS for it, as its documentation has it.

use tidegate_core::{
    Kind,
    catalog::Component,
    row::{Table, kinds::Trade},
    sink::Sink,
    testkit::{Proxy, Server, certificates},
};

use super::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_own_authority_is_taken_where_that_is_named_and_any_other_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    certificates::authority(folder.path(), "ca");
    certificates::authority(folder.path(), "other-ca");
    certificates::for_server(folder.path(), "ca", "server");
    let plain = tokio::task::spawn_blocking(|| Server::shared("questdb").url()).await.unwrap();
    let server = plain.strip_prefix("http://").unwrap();
    let proxy = Proxy::with_tls(server, &file("server.pem"), &file("server.key")).await.unwrap();
    let secured = format!("https://{}", proxy.address());

    let mut bench = Bench::at(&secured, vec![Table::of::<Trade<'_>>()]);
    bench.config.extra_ca = Some(file("ca.pem"));
    bench.trades(20);
    let mut sink = bench.sink();
    sink.open(&bench.context()).await.unwrap();
    sink.write(&bench.log.chunk(0, 20)).await.unwrap();
    assert!(sink.reach(&bench.context().tables).await.unwrap().contains(&secured));
    bench.config.url = plain.to_owned();
    bench.until(&format!("SELECT count() FROM {}", bench.name("trades")), 20).await;

    bench.config.url = secured.clone();
    for (ca, wanted) in
        [(Some("other-ca.pem"), "UnknownIssuer"), (None, "UnknownIssuer"), (Some("ca.key"), "holds no certificate")]
    {
        bench.config.extra_ca = ca.map(file);
        let error = match bench.config.build() {
            Ok(mut sink) => sink.open(&bench.context()).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.chain().contains(wanted), "{ca:?}: {}", error.chain());
        assert_ne!(error.kind(), Kind::Permanent, "{ca:?}: {}", error.chain());
    }
}
