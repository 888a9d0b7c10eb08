//! How what the program prints may look.

use std::io::IsTerminal;

/// Returns whether colours may be used on this stream.
pub(crate) fn has_colours(stream: &impl IsTerminal) -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    stream.is_terminal() && !is_unwanted && !is_dumb
}

/// Returns a text without anything that could move the cursor or look like another line.
pub(crate) fn in_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::in_one_line;

    #[test]
    fn what_a_peer_says_cannot_forge_a_line_or_move_the_cursor() {
        assert_eq!(in_one_line("no\n10:00:00  healthy\u{1b}[2J é"), "no\\n10:00:00  healthy\\u{1b}[2J é");
    }
}
