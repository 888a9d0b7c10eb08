//! Takes secrets out of what is recorded.

use std::borrow::Cow;

/// Returns an address without user, password, and the values of what is called like a key.
pub(super) fn address(url: &str) -> String {
    let Ok(mut url) = url::Url::parse(url) else { return "an address that cannot be read".to_owned() };
    let is_cleared = url.set_username("").and_then(|()| url.set_password(None)).is_ok();
    if !is_cleared {
        return "an address without a host".to_owned();
    }
    if url.query().is_none() {
        return url.into();
    }
    let pairs: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| {
            let value = if is_secret(&name) { Cow::Borrowed(HIDDEN) } else { value };
            (name.into_owned(), value.into_owned())
        })
        .collect();
    url.query_pairs_mut().clear().extend_pairs(pairs);
    url.into()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// Takes the values of members that are called like credentials out of a JSON text.
pub(super) fn tokens(text: &mut String) {
    for member in SECRET_MEMBERS {
        let mut from = 0;
        while let Some(found) = text[from..].find(member) {
            from += found + member.len();
            let Some(value) = value_behind(text, from) else { continue };
            text.replace_range(value.clone(), HIDDEN);
            from = value.start + HIDDEN.len();
        }
    }
}

/// Returns where the text behind a member's name begins and ends, without its quotes.
fn value_behind(text: &str, name_end: usize) -> Option<std::ops::Range<usize>> {
    let rest = text[name_end..].trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let start = text.len() - rest.len();
    let mut is_escaped = false;
    let length = rest.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    Some(start..start + length.unwrap_or(rest.len()))
}

const HIDDEN: &str = "***";
const SECRET_PARTS: [&str; 6] = ["key", "secret", "token", "sign", "pass", "auth"];
const SECRET_MEMBERS: [&str; 6] =
    ["\"access_token\"", "\"refresh_token\"", "\"client_secret\"", "\"api_key\"", "\"signature\"", "\"password\""];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_path_and_what_is_no_secret() {
        let shown = address("https://me:pw@venue.test/a/b?symbol=ETH&apiKey=hidden&Api-Token=hidden&count=10");
        assert_eq!(shown, "https://venue.test/a/b?symbol=ETH&apiKey=***&Api-Token=***&count=10");
        assert_eq!(address("wss://venue.test/ws"), "wss://venue.test/ws");
        assert_eq!(address("not an address?key=hidden"), "an address that cannot be read");
    }

    #[test]
    fn tokens_are_taken_out_of_json_wherever_they_stand() {
        let mut text =
            r#"{"result":{"access_token":"hid\"den","expires_in":900,"refresh_token" : "hidden"}}"#.to_owned();
        tokens(&mut text);
        assert_eq!(text, r#"{"result":{"access_token":"***","expires_in":900,"refresh_token" : "***"}}"#);
        let mut cut = r#"{"access_token":"hidden"#.to_owned();
        tokens(&mut cut);
        assert_eq!(cut, r#"{"access_token":"***"#);
        let mut harmless = r#"{"access_token":7,"token":"ETH"}"#.to_owned();
        tokens(&mut harmless);
        assert_eq!(harmless, r#"{"access_token":7,"token":"ETH"}"#);
    }
}
