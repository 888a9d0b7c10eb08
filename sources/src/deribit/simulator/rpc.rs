//! The envelope: requests read, replies and errors written.

use serde_json::{Map, Value};

use super::numbers::Object;

/// Request frames and bodies above this are refused.
pub(super) const LONGEST_REQUEST: usize = 32 * 1024;

/// A request as a client sent it.
#[derive(Debug)]
pub(super) struct Request {
    /// As JSON text, so that it goes back as it came.
    pub(super) id: Option<String>,
    pub(super) method: String,
    pub(super) params: Params,
}

/// An error as the venue answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RpcError {
    pub(super) code: i64,
    pub(super) message: &'static str,
    /// The parameter at fault and what is wrong with it.
    pub(super) reason: Option<(&'static str, String)>,
}

/// When a request came and how the venue says who it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) in_us: i64,
    pub(super) out_us: i64,
    pub(super) testnet: bool,
}

impl Request {
    /// Reads a request.
    pub(super) fn parse(text: &str) -> Result<Self, RpcError> {
        if text.len() > LONGEST_REQUEST {
            return Err(RpcError::of(-32600, "request entity too large"));
        }
        let Ok(Value::Object(mut request)) = serde_json::from_str(text) else {
            return Err(RpcError::of(-32700, "Parse error"));
        };
        let id = request.remove("id").map(|id| id.to_string());
        let Some(Value::String(method)) = request.remove("method") else {
            return Err(RpcError::of(-32600, "Invalid Request"));
        };
        let params = match request.remove("params") {
            Some(Value::Object(params)) => params,
            _ => Map::new(),
        };
        Ok(Self { id, method, params: Params(params) })
    }
}

/// The parameters of a request; those of a query string are all texts.
#[derive(Debug, Default)]
pub(super) struct Params(pub(super) Map<String, Value>);

impl Params {
    pub(super) fn of_query(pairs: Vec<(String, String)>) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key, Value::String(value))).collect())
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    pub(super) fn required_text(&self, key: &'static str) -> Result<&str, RpcError> {
        self.text(key).ok_or_else(|| RpcError::invalid(key, "value required"))
    }

    /// Returns a whole number; one that is none is an error.
    pub(super) fn integer(&self, key: &'static str) -> Result<Option<i64>, RpcError> {
        let read = match self.0.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_i64(),
        };
        read.map(Some).ok_or_else(|| RpcError::invalid(key, "value must be an integer"))
    }

    pub(super) fn is_true(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|value| value == &Value::Bool(true) || value == "true")
    }

    pub(super) fn texts(&self, key: &'static str) -> Result<Vec<String>, RpcError> {
        let Some(Value::Array(values)) = self.0.get(key) else {
            return Err(RpcError::invalid(key, "value must be a list"));
        };
        Ok(values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

impl RpcError {
    pub(super) fn of(code: i64, message: &'static str) -> Self {
        Self { code, message, reason: None }
    }

    pub(super) fn invalid(param: &'static str, reason: impl Into<String>) -> Self {
        Self { code: -32602, message: "Invalid params", reason: Some((param, reason.into())) }
    }
}

/// Writes a reply; the result is JSON already.
pub(super) fn reply(id: Option<&str>, answer: &Result<String, RpcError>, stamp: Stamp) -> String {
    let mut out = String::new();
    let mut object = Object::begin(&mut out).text("jsonrpc", "2.0");
    if let Some(id) = id {
        object = object.raw("id", id);
    }
    object = match answer {
        Ok(result) => object.raw("result", result),
        Err(error) => object.with("error", |out| write_error(out, error)),
    };
    object
        .integer("usIn", stamp.in_us)
        .integer("usOut", stamp.out_us)
        .integer("usDiff", stamp.out_us - stamp.in_us)
        .flag("testnet", stamp.testnet)
        .end();
    out
}

fn write_error(out: &mut String, error: &RpcError) {
    let mut object = Object::begin(out).integer("code", error.code);
    if let Some((param, reason)) = &error.reason {
        object = object.with("data", |out| Object::begin(out).text("reason", reason).text("param", param).end());
    }
    object.text("message", error.message).end();
}
