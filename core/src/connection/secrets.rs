//! What was sent to a venue and nobody may see.

use std::borrow::Cow;

use crate::config::HIDDEN;

/// The secrets that a driver has sent, so that a venue that repeats one is quoted without it.
#[derive(Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Keeps a secret that is sent: as it is, and as JSON writes it.
    pub(super) fn learn(&mut self, secret: &str) {
        let json = serde_json::Value::from(secret).to_string();
        for text in [secret, json.trim_matches('"')] {
            if !text.is_empty() && !self.0.iter().any(|known| known == text) {
                self.0.push(text.to_owned());
            }
        }
        // One that is renewed is repeated by nobody for long.
        let gone = self.0.len().saturating_sub(MOST);
        self.0.drain(..gone);
    }

    /// Returns a text without them.
    pub(super) fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut hidden = Cow::Borrowed(text);
        for secret in &self.0 {
            if hidden.contains(secret.as_str()) {
                hidden = Cow::Owned(hidden.replace(secret.as_str(), HIDDEN));
            }
        }
        hidden
    }

    /// Takes them out of a text.
    pub(super) fn hide_in(&self, text: &mut String) {
        if let Cow::Owned(hidden) = self.hide(text) {
            *text = hidden;
        }
    }
}

/// So many are kept.
const MOST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_as_it_is_and_as_json_writes_it() {
        let mut secrets = Secrets::default();
        assert_eq!(secrets.hide("nothing was sent"), "nothing was sent");
        secrets.learn("");
        secrets.learn("pa\"ss");
        assert_eq!(secrets.hide("wrong pa\"ss"), "wrong •••");
        assert_eq!(secrets.hide(r#"{"given":"pa\"ss"}"#), r#"{"given":"•••"}"#);
        for renewed in 0..100 {
            secrets.learn(&format!("renewed-{renewed}"));
        }
        assert_eq!(secrets.hide("renewed-99 or renewed-98"), "••• or •••");
        assert_eq!(secrets.0.len(), MOST);
    }
}
