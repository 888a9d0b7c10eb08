//! The `token` of the host file: what asks for health and metrics brings it, the container of `compose.yaml` has one, and
//! without it nothing is shown to other machines.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::{
    fs,
    process::{Command, Stdio},
};

use support::{Bench, busy};

#[tokio::test(flavor = "multi_thread")]
async fn the_container_of_compose_starts_is_healthy_and_shows_itself_to_who_has_the_token() {
    let bench = Bench::start(busy(500.0), "", "").await;
    // There is no host file in the container.
    fs::remove_file(bench.path("tidegate.toml")).unwrap();
    let service = service_of_compose();
    let mut variables = environment(&service);
    let mut replace = |name: &str, from: &str, by: &str| {
        let (_, value) = variables.iter_mut().find(|(set, _)| set == name).unwrap();
        assert!(value.ends_with(from), "{name}: {value}");
        *value = value.replace(from, by);
    };
    replace("TIDEGATE_LISTEN", ":8080", ":0");
    replace("TIDEGATE_DATA_DIR", "/data", bench.path("data").to_str().unwrap());
    let token = variables.iter().find(|(name, _)| name == "TIDEGATE_TOKEN").unwrap().1.clone();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut program = bench.run_with(&variables);
    program.until_committed(100).await;

    for path in ["/health", "/health/ready", "/metrics"] {
        assert_eq!(program.get(path).await.0, 401, "{path}");
        let (status, _, body) = program.ask(path, &format!("Bearer {token}")).await;
        assert_eq!(status, 200, "{path}: {body}");
    }
    let address = program.address().await;
    assert!(is_well(&service, address.rsplit_once(':').unwrap().1), "the check of compose.yaml");
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("http://0.0.0.0:") && !log.contains("sets nothing"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_on_loopback_too_and_401_says_what_is_missing() {
    let bench = Bench::start(busy(500.0), "", "").await;
    bench.write("token", "tide-7\n");
    for variable in [("TIDEGATE_TOKEN", "tide-7"), ("TIDEGATE_TOKEN_FILE", "token")] {
        let mut program = bench.run_with(&[variable]);
        let (status, head, body) = program.ask("/health", "").await;
        assert_eq!(status, 401, "{body}");
        assert!(head.to_lowercase().contains("www-authenticate: bearer realm=\"tidegate\"\r\n"), "{head}");
        assert!(body.contains("`Authorization: Bearer TOKEN`") && body.contains("TIDEGATE_TOKEN"), "{body}");
        let (status, head, wrong) = program.ask("/metrics", "Bearer tide-8").await;
        assert_eq!(status, 401, "{wrong}");
        assert!(
            head.contains("error=\"invalid_token\"") && wrong.contains("is not that of this process"),
            "{head} {wrong}"
        );
        assert!(!format!("{body}{head}{wrong}").contains("tide-7"), "the token itself is shown");
        assert_eq!(program.get("/").await.0, 401, "nobody learns what there is");
        assert_eq!(program.ask("/", "Bearer tide-7").await.0, 404);
        assert_eq!(program.get("/health/live").await, (200, "{\"live\":true}".to_owned()));
        program.until_committed(50).await;
        assert_eq!(program.ask("/health/ready", "Bearer tide-7").await.0, 200);
        assert_eq!(program.stop().await.0, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_used_ends_the_program_with_2_before_anything_is_made() {
    let bench = Bench::start(busy(500.0), "", "").await;
    bench.write("empty", "\n");
    bench.write("two", "a b\n");
    for (token, variables, said) in [
        ("token = \"\"", &[][..], "tidegate.toml:2:9"),
        ("token = \"${T}\"", &[("T", "a b")], "a character that its header cannot carry"),
        ("token = { file = \"two\" }", &[], "a character that its header cannot carry"),
        ("token = { file = \"empty\" }", &[], "tidegate.toml:2:18"),
        ("token = { file = \"nowhere\" }", &[], "the secret in `nowhere` cannot be read"),
        ("", &[("TIDEGATE_TOKEN_FILE", "nowhere")], "the secret in `nowhere` cannot be read"),
        (
            "",
            &[("TIDEGATE_TOKEN", "a"), ("TIDEGATE_TOKEN_FILE", "b")],
            "both TIDEGATE_TOKEN and TIDEGATE_TOKEN_FILE set `token`",
        ),
    ] {
        bench.write("tidegate.toml", &format!("listen = \"127.0.0.1:0\"\n{token}\n"));
        let mut program = bench.run_with(variables);
        let (code, log) = program.ended().await;
        assert_eq!(code, 2, "{token} {variables:?}: {log}");
        assert!(log.contains(said), "{token} {variables:?}: {log}");
        assert!(!bench.path("data").exists(), "{token}: something was made");
    }
}

/// Returns the lines of the service `tidegate`.
fn service_of_compose() -> Vec<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/compose.yaml")).unwrap();
    let lines = text.lines().skip_while(|line| *line != "  tidegate:").skip(1);
    lines.take_while(|line| line.is_empty() || line.starts_with("   ")).map(str::to_owned).collect()
}

/// Returns the variables that the service sets, those of the caller's own at their defaults.
fn environment(service: &[String]) -> Vec<(String, String)> {
    let lines = service.iter().skip_while(|line| *line != "    environment:").skip(1);
    let lines = lines.take_while(|line| line.starts_with("      ")).filter(|line| !line.trim().starts_with('#'));
    let set = lines.map(|line| line.trim().split_once(": ").unwrap());
    let set: Vec<_> = set.map(|(name, value)| (name.to_owned(), with_defaults(value))).collect();
    assert!(set.iter().any(|(name, value)| name == "TIDEGATE_LISTEN" && value == "0.0.0.0:8080"), "{set:?}");
    set
}

/// Replaces each `${NAME:-default}`.
fn with_defaults(value: &str) -> String {
    let Some((before, rest)) = value.split_once("${") else { return value.to_owned() };
    let (variable, after) = rest.split_once('}').unwrap();
    let (_, default) = variable.split_once(":-").unwrap_or_else(|| panic!("`{variable}` has no default"));
    format!("{before}{default}{}", with_defaults(after))
}

/// Runs the service's own health check, at another port.
fn is_well(service: &[String], port: &str) -> bool {
    let test = service.iter().find_map(|line| line.trim().strip_prefix("test: ")).unwrap();
    let words: Vec<String> = serde_json::from_str(test).unwrap();
    assert_eq!(words[..3], ["CMD", "bash", "-c"], "{test}");
    assert!(words[3].contains("/dev/tcp/127.0.0.1/8080"), "{test}");
    let script = words[3].replace("/8080", &format!("/{port}"));
    Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).status().unwrap().success()
}
