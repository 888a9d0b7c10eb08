//! The driver over real sockets, against venues that behave badly.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_tungstenite::tungstenite::{
    self, Message, WebSocket,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::*;
use crate::{
    config::{self, ConnectionConfig},
    connection::transport::Sockets,
    http::{HttpClient, NoAnswer},
    protocol::Request,
};

#[tokio::test]
async fn rows_come_over_a_real_connection_and_a_stop_closes_it() {
    let venue = Venue::start(|stream| {
        let mut line = greeted(stream);
        line.send(Message::text("row a 1")).unwrap();
        line.send(Message::text("row a 2")).unwrap();
        // The farewell.
        assert!(matches!(line.read(), Ok(Message::Close(_))));
    });
    let world = world(&venue.url("ws"), HttpClient::new(), |_| {});
    world.logged("row a 2 live").await;
    world.stop.cancel();
    world.logged("ended: stopped").await;
    world.ended().await.unwrap();
    venue.ended();
}

#[tokio::test]
async fn a_venue_that_accepts_and_never_speaks_is_left_after_the_connect_timeout() {
    let venue = Venue::start(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let configure = |config: &mut ConnectionConfig| config.connect_timeout = config::Duration::from_millis(200);
    let world = world(&venue.url("ws"), HttpClient::new(), configure);
    world.told("no connection after 200ms").await;
}

#[tokio::test]
async fn a_venue_that_speaks_http_is_sorted_by_its_status() {
    let venue = Venue::start(|stream| answer(stream, "503 Service Unavailable", "", "busy"));
    let world = world(&venue.url("ws"), HttpClient::new(), |_| {});
    world.told("no connection: closed with 503 busy; trying again").await;
}

#[tokio::test]
async fn a_venue_that_speaks_neither_is_an_error_like_any() {
    let venue = Venue::start(|mut stream| drop(stream.write_all(b"220 smtp ready\r\n")));
    let world = world(&venue.url("ws"), HttpClient::new(), |_| {});
    let reason = world.told("no connection").await;
    assert!(reason.contains(&venue.url("ws")) && !reason.contains("hidden"), "{reason}");
}

#[tokio::test]
async fn nobody_at_the_address_is_said_so() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = world(&format!("ws://{closed}/feed"), HttpClient::new(), |_| {});
    let reason = world.told("Connection refused").await;
    assert!(!reason.contains("hidden"), "{reason}");
}

#[tokio::test]
async fn an_oversized_message_ends_the_session_before_it_is_read() {
    let venue = Venue::start(|stream| {
        let mut line = greeted(stream);
        drop(line.send(Message::text("x".repeat(2_000_000))));
        drop(line.read());
    });
    let configure = |config: &mut ConnectionConfig| config.max_message = config::ByteSize::from_mib(1);
    let world = world(&venue.url("ws"), HttpClient::new(), configure);
    let why = "ended: a message of 2000000 bytes is longer than `max_message` allows, 1048576 bytes";
    world.logged(why).await;
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_frame_ends_the_session_without_half_a_row() {
    let venue = Venue::start(|stream| {
        let mut line = greeted(stream);
        line.send(Message::text("row a 1")).unwrap();
        // Says 100 bytes, and gives 7.
        line.get_mut().write_all(b"\x81\x64row a 2").unwrap();
    });
    let world = world(&venue.url("ws"), HttpClient::new(), |_| {});
    let log = world.logged("ended: the venue hung up").await;
    let rows: Vec<&String> = log.iter().filter(|line| line.starts_with("row")).collect();
    assert_eq!(rows, ["row a 1 live"]);
}

#[tokio::test]
async fn a_close_frame_reaches_the_protocol_with_code_and_reason() {
    let venue = Venue::start(|stream| {
        let mut line = greeted(stream);
        line.close(Some(CloseFrame { code: CloseCode::Policy, reason: "too many connections".into() })).unwrap();
        drop(line.read());
    });
    let world = world(&venue.url("ws"), HttpClient::new(), |_| {});
    world.logged("ended: closed with 1008 too many connections").await;
}

#[tokio::test]
async fn text_that_is_not_utf_8_ends_the_session() {
    let venue = Venue::start(|stream| {
        let mut line = greeted(stream);
        line.get_mut().write_all(b"\x81\x02\xff\xfe").unwrap();
        drop(line.read());
    });
    let world = world(&venue.url("ws"), HttpClient::new(), |_| {});
    world.logged("ended: a text frame is not UTF-8").await;
}

#[tokio::test]
async fn a_venue_that_does_not_read_costs_no_memory_without_end() {
    let venue = Venue::start(|stream| {
        let mut line = greeted(stream);
        let request = format!("answer {}", "x".repeat(100_000));
        while line.send(Message::text(request.clone())).is_ok() {}
    });
    let world = world(&venue.url("ws"), HttpClient::new(), |_| {});
    world.logged("ended: the venue does not read what is sent to it").await;
}

#[tokio::test]
async fn tls_needs_a_certificate_of_a_known_authority_for_the_right_name() {
    let serve = |stream: TcpStream| {
        let Ok(mut line) = tungstenite::accept(encrypted(stream)) else { return };
        greet(&mut line);
        drop(line.send(Message::text("row a 1")));
        drop(line.read());
    };
    let venue = Venue::start(serve);
    let trusting = HttpClient::new().with_ca(&pem("ca.pem")).await.unwrap();
    let (right, wrong) = (venue.named("wss", "localhost"), venue.named("wss", "127.0.0.1"));
    world(&right, trusting.clone(), |_| {}).logged("row a 1 live").await;
    let reason = world(&wrong, trusting, |_| {}).told("no connection").await;
    assert!(reason.contains("not valid for name"), "{reason}");
    let reason = world(&right, HttpClient::new(), |_| {}).told("no connection").await;
    assert!(reason.contains("UnknownIssuer"), "{reason}");
}

#[tokio::test]
async fn http_answers_come_with_status_and_the_pause_that_was_asked_for() {
    let venue = Venue::start(|stream| answer(stream, "429 Too Many Requests", "Retry-After: 7\r\n", "slow down"));
    let url = venue.url("http");
    let answer = HttpClient::new().call(&Request::get(&url), SECOND * 10).await.unwrap();
    assert_eq!((answer.status, answer.retry_after, answer.body.as_slice()), (429, Some(SECOND * 7), &b"slow down"[..]));
}

#[tokio::test]
async fn http_over_tls_trusts_the_same_authorities() {
    let venue = Venue::start(|stream| answer(encrypted(stream), "200 OK", "", "fine"));
    let url = venue.named("https", "localhost");
    let trusting = HttpClient::new().with_ca(&pem("ca.pem")).await.unwrap();
    assert_eq!(trusting.call(&Request::get(&url), SECOND * 10).await.unwrap().body, b"fine");
    let error = HttpClient::new().call(&Request::get(&url), SECOND * 10).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer") && !error.contains("hidden"), "{error}");
}

#[tokio::test]
async fn an_http_venue_that_never_answers_is_left_in_time() {
    let venue = Venue::start(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let outcome = HttpClient::new().call(&Request::get(venue.url("http")), SECOND / 5).await;
    assert_eq!(outcome, Err(NoAnswer::TimedOut(SECOND / 5)));
}

#[tokio::test]
async fn a_file_without_certificates_is_an_error_of_the_configuration() {
    for (file, why) in [("localhost.key", "holds no certificate"), ("absent.pem", "No such file")] {
        let error = HttpClient::new().with_ca(&pem(file)).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// A server that treats every connection the same way.
struct Venue {
    port: u16,
    serving: Option<JoinHandle<()>>,
}

impl Venue {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = Arc::new(serve);
        let serving = std::thread::spawn(move || {
            // The first one is served here, so that its assertions count.
            let (first, _) = listener.accept().unwrap();
            let others = Arc::clone(&serve);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let serve = Arc::clone(&others);
                    std::thread::spawn(move || serve(stream));
                }
            });
            serve(first);
        });
        Self { port, serving: Some(serving) }
    }

    fn url(&self, scheme: &str) -> String {
        self.named(scheme, "127.0.0.1")
    }

    fn named(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}/feed", self.port)
    }

    fn ended(mut self) {
        self.serving.take().unwrap().join().unwrap();
    }
}

fn world(url: &str, http: HttpClient, configure: impl FnOnce(&mut ConnectionConfig)) -> World {
    let toy = Toy { url: format!("{url}?key=hidden"), ..Toy::new(&["a"]) };
    let mut config = ConnectionConfig::default();
    configure(&mut config);
    let max_message = usize::try_from(config.max_message.0).unwrap();
    World::over(Sockets { http, max_message }, toy, None, |given| *given = config)
}

fn greeted(stream: TcpStream) -> WebSocket<TcpStream> {
    let mut line = tungstenite::accept(stream).unwrap();
    greet(&mut line);
    line
}

fn greet<S: Read + Write>(line: &mut WebSocket<S>) {
    assert_eq!(line.read().unwrap(), Message::text("hello"));
    line.send(Message::text("welcome")).unwrap();
    assert_eq!(line.read().unwrap(), Message::text("sub a"));
    line.send(Message::text("ok a")).unwrap();
}

/// Answers one HTTP request.
fn answer(mut stream: impl Read + Write, status: &str, headers: &str, body: &str) {
    let mut request = Vec::new();
    let mut part = [0; 1_024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&part[..read]),
        }
    }
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}");
    drop(stream.write_all(text.as_bytes()).and_then(|()| stream.flush()));
}

fn encrypted(stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    let certificate = CertificateDer::from_pem_file(pem("localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(pem("localhost.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate], key).unwrap();
    StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream)
}

/// Certificates of this test's own authority, valid for a hundred years; the authority's key is thrown away.
fn pem(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/connection/driver/tests/tls").join(file)
}
