//! QuestDB's HTTP: SQL over `/exec`, rows over `/write`, and what each answer means.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tidegate_core::{Error, Result, http::HttpClient};

use super::QuestDbConfig;

/// A connection, or several: HTTP's keep-alive, no state of ours.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: HttpClient,
    base: String,
    config: QuestDbConfig,
}

/// The rows of an answer.
pub(super) type Rows = Vec<Vec<Value>>;

/// What became of a request of rows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// All are in the write-ahead log.
    Taken,
    /// None is, since this line, counted from 0, holds a value that the table never takes.
    Blamed { line: usize, why: String },
}

/// The body of an error, of both paths.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    line: Option<usize>,
    message: Option<String>,
    error: Option<String>,
}

impl Client {
    /// Returns a client; reads the file of certificates.
    pub(super) async fn new(config: &QuestDbConfig) -> Result<Self> {
        let http = HttpClient::new();
        let http = match &config.extra_ca {
            Some(file) => http.with_ca(file).await?,
            None => http,
        };
        Ok(Self { http, base: config.url.trim_end_matches('/').to_owned(), config: config.clone() })
    }

    /// Runs a query, or a statement, which is done when it returns.
    ///
    /// # Errors
    ///
    /// `Permanent` when the user may not; `Transient` for everything else, with what QuestDB says.
    pub(super) async fn sql(&self, sql: &str) -> Result<Rows> {
        #[derive(Deserialize)]
        struct Answered {
            #[serde(default)]
            dataset: Rows,
        }
        let client = self.http.client(&self.base).await.map_err(|error| self.unreachable(&error.to_string()))?;
        let url = reqwest::Url::parse_with_params(&format!("{}/exec", self.base), [("query", sql), ("nm", "true")]);
        let call = client.get(url.map_err(|error| self.unreachable(&error.to_string()))?).timeout(LONGEST_QUERY);
        let (status, body) = self.send(call).await?;
        if status == 200 {
            let body = escaped(body);
            let answered: Answered = serde_json::from_slice(&body).map_err(|error| {
                Error::transient(format!("{} answers no JSON: is it QuestDB?", self.shown())).because(error)
            })?;
            return Ok(answered.dataset);
        }
        Err(self.sorted(status, &body))
    }

    /// Returns what the server says of itself.
    pub(super) async fn settings(&self) -> Result<Value> {
        let client = self.http.client(&self.base).await.map_err(|error| self.unreachable(&error.to_string()))?;
        let (status, body) = self.send(client.get(format!("{}/settings", self.base)).timeout(LONGEST_QUERY)).await?;
        if status != 200 {
            return Err(self.sorted(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| {
            Error::permanent(format!("{} has no settings: QuestDB 9.0 or newer is needed", self.shown())).because(error)
        })
    }

    /// Sends rows, whose designated timestamps are in nanoseconds.
    ///
    /// # Errors
    ///
    /// As the module's table says. In doubt it is whether they are stored.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped has stored all of its rows or none.
    pub(super) async fn post(&self, body: Vec<u8>) -> Result<Posted> {
        let client = self.http.client(&self.base).await.map_err(|error| self.unreachable(&error.to_string()))?;
        let call = client.post(format!("{}/write?precision=n", self.base)).body(body);
        let (status, body) = self.send(call).await?;
        if matches!(status, 200 | 204) {
            return Ok(Posted::Taken);
        }
        if status == 400
            && let Some((line, why)) = blamed(&body)
        {
            return Ok(Posted::Blamed { line, why });
        }
        Err(self.sorted(status, &body))
    }

    async fn send(&self, call: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>)> {
        let QuestDbConfig { user, password, token, .. } = &self.config;
        let call = match (user, password, token) {
            (Some(user), Some(password), _) => call.basic_auth(user, Some(password.reveal()?)),
            (_, _, Some(token)) => call.bearer_auth(token.reveal()?),
            (Some(_) | None, _, None) => call,
        };
        let lost = |error: reqwest::Error| self.unreachable(&root_cause(&error.without_url()));
        let mut response = call.send().await.map_err(lost)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(lost)? {
            if body.len() + part.len() > LONGEST_ANSWER {
                return Err(Error::transient(format!("{} answers more than {LONGEST_ANSWER} bytes", self.shown())));
            }
            body.extend_from_slice(&part);
        }
        Ok((status, body))
    }

    /// Sorts an answer that is none.
    fn sorted(&self, status: u16, body: &[u8]) -> Error {
        let (shown, said) = (self.shown(), self.hide(&said(body)));
        match status {
            401 | 403 => Error::permanent(format!(
                "{shown} refuses the login ({status}): `user` and `password`, or `token`: {said}"
            )),
            404 | 405 | 415 => Error::permanent(format!("{shown} has no such path ({status}): is it QuestDB? {said}")),
            413 => Error::permanent(format!("{shown} takes no request of this size: lower `request_bytes`: {said}")),
            _ => Error::transient(format!("{shown} answers {status}: {said}")),
        }
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::transient(format!("{} does not answer: {}", self.shown(), self.hide(why)))
    }

    fn shown(&self) -> String {
        format!("QuestDB at `{}`", self.base)
    }

    /// A proxy may say what it was sent.
    fn hide(&self, text: &str) -> String {
        let secrets = self.config.password.iter().chain(&self.config.token);
        secrets.fold(text.to_owned(), |text, secret| secret.hide_in(&text))
    }
}

/// Returns the line that an answer blames for one of its values. Whatever else it names a line for, a table that is being
/// dropped or a column that may not be made, is no fault of the row.
fn blamed(body: &[u8]) -> Option<(usize, String)> {
    let Said { line, message, .. } = serde_json::from_slice(body).ok()?;
    let (line, message) = (line?.checked_sub(1)?, message?);
    let why = message.lines().last()?.split_once(": ").map(|(_, why)| why.to_owned())?;
    let blames = [
        "cast error from protocol type",
        "field value is invalid",
        "designated timestamp",
        "array dimension mismatch",
        "decimal value overflows",
    ];
    blames.iter().any(|phrase| message.contains(phrase)).then_some((line, why))
}

/// Returns JSON as it should be: QuestDB writes a NUL in a text as it is (9.3.4).
fn escaped(body: Vec<u8>) -> Vec<u8> {
    if !body.contains(&0) {
        return body;
    }
    body.split(|byte| *byte == 0).collect::<Vec<_>>().join(&b"\\u0000"[..])
}

/// Returns what an answer says, shortened.
fn said(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Said>(body) {
        Ok(Said { message: Some(text), .. } | Said { error: Some(text), .. }) => text,
        Ok(_) | Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let text = text.lines().collect::<Vec<_>>().join(" ");
    text.chars().take(LONGEST_SAID).collect()
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The driver gives a write up by its own time; this is for commands, which have no driver.
const LONGEST_QUERY: Duration = Duration::from_secs(60);
const LONGEST_ANSWER: usize = 256 << 20;
const LONGEST_SAID: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_are_blamed() {
        // As 9.3.4 says it.
        let cast = br#"{"code":"invalid","message":"failed to parse line protocol:errors encountered on line(s):\nerror in line 2: table: a, column: n; cast error from protocol type: FLOAT to column type: LONG","line":2,"errorId":"b1a20269b07a-1"}"#;
        let why = "table: a, column: n; cast error from protocol type: FLOAT to column type: LONG";
        assert_eq!(blamed(cast), Some((1, why.to_owned())));
        for other in [
            br#"{"code":"invalid","message":"error in line 1: table is dropped","line":1}"#.as_slice(),
            br#"{"code":"internal error","message":"cast error from protocol type"}"#,
            b"<html>",
        ] {
            assert_eq!(blamed(other), None);
        }
    }
}
