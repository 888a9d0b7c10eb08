//! What a request has to bring where the host file has a `token`: `Authorization: Bearer TOKEN` (RFC 6750).

use std::{hint::black_box, sync::Arc};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// The token of the process.
pub(super) struct Token(Box<[u8]>);

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It has no token.
    Missing,
    /// It has another one.
    Wrong,
}

/// Passes on requests that have the token, and answers the others with 401 and what they lack.
pub(super) async fn ask(State(token): State<Arc<Token>>, request: Request, next: Next) -> Response {
    match token.refusal(request.headers()) {
        None => next.run(request).await,
        Some(refusal) => refusal.into_response(),
    }
}

impl Token {
    pub(super) fn new(token: String) -> Self {
        Self(token.into_bytes().into())
    }

    fn refusal(&self, headers: &HeaderMap) -> Option<Refusal> {
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
        match given {
            None => Some(Refusal::Missing),
            Some(given) => (!is_equal(&self.0, given)).then_some(Refusal::Wrong),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (asks, text) = match self {
            Self::Missing => (
                "Bearer realm=\"tidegate\"",
                "this address needs a token: send the header `Authorization: Bearer TOKEN`, where TOKEN is what `token` of the \
                 host file says, or the variable TIDEGATE_TOKEN",
            ),
            Self::Wrong => (
                "Bearer realm=\"tidegate\", error=\"invalid_token\"",
                "the token in the header `Authorization` is not that of this process: it is what `token` of the host file says, \
                 or the variable TIDEGATE_TOKEN, at the start",
            ),
        };
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, asks)], Json(json!({ "error": text }))).into_response()
    }
}

/// Returns what stands behind `Bearer`, in whatever case that is written.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty()).then_some(token)
}

/// Compares in a time that depends on the lengths only: nobody finds a token letter by letter.
fn is_equal(token: &[u8], given: &[u8]) -> bool {
    let differing = token.iter().zip(given).fold(0, |differing, (a, b)| black_box(differing | (a ^ b)));
    token.len() == given.len() && differing == 0
}

const SCHEME: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_of_the_header_passes() {
        let token = Token::new("tide-7".to_owned());
        for (header, refusal) in [
            ("Bearer tide-7", None),
            ("bearer   tide-7", None),
            ("Bearer tide-8", Some(Refusal::Wrong)),
            ("Bearer tide-", Some(Refusal::Wrong)),
            ("Bearer tide-77", Some(Refusal::Wrong)),
            ("Bearer TIDE-7", Some(Refusal::Wrong)),
            ("Basic tide-7", Some(Refusal::Missing)),
            ("Bearertide-7", Some(Refusal::Missing)),
            ("Bearer ", Some(Refusal::Missing)),
            ("tide-7", Some(Refusal::Missing)),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(header))]);
            assert_eq!(token.refusal(&headers), refusal, "{header}");
        }
        assert_eq!(token.refusal(&HeaderMap::new()), Some(Refusal::Missing));
    }
}
