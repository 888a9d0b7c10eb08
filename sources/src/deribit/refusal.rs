//! What Deribit's error codes mean (<https://docs.deribit.com/articles/errors>, "complete RPC error codes").

use std::time::Duration;

use tidegate_core::Error;

use super::{
    message::{Refusal, RefusalData},
    value::{Lenient, Text, present},
};

/// What to do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Again, after this pause at the least.
    Later(Duration),
    /// Not in this session: a new one, after this pause at the least.
    SessionOver(Duration),
    /// A person must act.
    Never,
    /// The instrument is not there, or not any more.
    NoInstrument,
    /// The login has run out.
    LoginOver,
    /// Only for who is logged in.
    NotLoggedIn,
    /// This program made a mistake.
    OurFault,
}

impl Refusal<'_> {
    /// Says what to do.
    pub(super) fn verdict(&self) -> Verdict {
        let seconds = |seconds| Verdict::Later(Duration::from_secs(seconds));
        match self.code {
            // Too many requests: the venue ends the session, and a resubscription at once is the next such request.
            10028 => Verdict::SessionOver(Duration::from_secs(5)),
            // Maintenance takes a quarter of an hour or more, closed to who is not logged in.
            11051 | 11056 => Verdict::SessionOver(Duration::from_secs(15)),
            // Settlement takes some seconds at 08:00 UTC.
            10041 | 10066 | 13025 | 13028 | 13503 => seconds(5),
            12998 => match self.data().wait {
                Lenient::Number(wait) => seconds(wait.min(3600)),
                Lenient::Absent | Lenient::Odd => seconds(30),
            },
            10000 | 10030 | 13004 | 13021 => Verdict::Never,
            13778 => Verdict::NotLoggedIn,
            10020 | 13019 | 13020 => Verdict::NoInstrument,
            13009 => Verdict::LoginOver,
            11029 | 11043 | 11049 | 11050 | -32700..=-32000 => Verdict::OurFault,
            // 10001, 10040, 10047, 10048, 11052, 11094, 13888, and what is unknown: a new code is no reason to stop for ever.
            _ => seconds(0),
        }
    }

    /// Returns the error for a request of which nothing more is known.
    pub(super) fn error(&self) -> Error {
        self.error_that_says(self.text())
    }

    /// The same, in other words.
    pub(super) fn error_that_says(&self, text: String) -> Error {
        match self.verdict() {
            Verdict::Later(Duration::ZERO) | Verdict::LoginOver => Error::transient(text),
            Verdict::Later(pause) | Verdict::SessionOver(pause) => Error::transient(text).retry_after(pause),
            Verdict::Never | Verdict::NotLoggedIn => Error::permanent(text),
            Verdict::NoInstrument | Verdict::OurFault => Error::malformed(text),
        }
    }

    /// Returns the refusal in words.
    pub(super) fn text(&self) -> String {
        let data = self.data();
        let detail = |name: &str, value: &Option<Text<'_>>| {
            present(value.as_ref()).map_or_else(String::new, |value| format!(", {name} `{value}`"))
        };
        let details = detail("param", &data.param) + &detail("reason", &data.reason);
        format!("deribit answered {} `{}`{details}", self.code, &*self.message)
    }

    /// Returns the details, as far as they can be read.
    fn data(&self) -> RefusalData<'_> {
        self.data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::Kind;

    use super::*;

    fn refusal(json: &str) -> Refusal<'_> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn codes_are_sorted_by_what_is_to_be_done() {
        let kind = |code: i64| refusal(&format!(r#"{{"code":{code},"message":"x"}}"#)).error().kind();
        for code in [10028, 10040, 10041, 10047, 10066, 11051, 11094, 13009, 13028, 13888, 99_999] {
            assert!(matches!(kind(code), Kind::Transient { .. }), "{code}");
        }
        for code in [10000, 13004, 13021, 13778] {
            assert_eq!(kind(code), Kind::Permanent, "{code}");
        }
        for code in [-32700, -32602, -32601, -32600, -32000, 11029, 13020] {
            assert_eq!(kind(code), Kind::Malformed, "{code}");
        }
    }

    #[test]
    fn the_pause_that_the_venue_asks_for_is_passed_on() {
        let error = refusal(r#"{"code":12998,"message":"x","data":{"wait":17}}"#).error();
        assert_eq!(error.kind(), Kind::Transient { retry_after: Some(Duration::from_secs(17)) });
        let error = refusal(r#"{"code":12998,"message":"x","data":"later"}"#).error();
        assert_eq!(error.kind(), Kind::Transient { retry_after: Some(Duration::from_secs(30)) });
    }

    #[test]
    fn a_refusal_is_told_with_its_reason() {
        let json =
            r#"{"code":-32602,"message":"Invalid params","data":{"reason":"value must be >= 10","param":"interval"}}"#;
        let told = "deribit answered -32602 `Invalid params`, param `interval`, reason `value must be >= 10`";
        assert_eq!(refusal(json).text(), told);
        assert_eq!(refusal(r#"{"code":10028,"data":null}"#).text(), "deribit answered 10028 ``");
    }
}
