//! Lines of a given width.

/// Returns words behind `first`, and in lines below it that begin with `below`, none wider than `width` where the words
/// allow it.
pub(super) fn wrapped(first: &str, words: &str, below: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut line = first.to_owned();
    for word in words.split_whitespace() {
        let gap = usize::from(!line.is_empty() && !line.ends_with(' '));
        if !line.trim().is_empty() && wide(&line) + gap + wide(word) > width {
            lines.extend([line.trim_end(), "\n"]);
            below.clone_into(&mut line);
        } else if gap > 0 {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines + line.trim_end()
}

/// Returns how many columns a text takes.
pub(super) fn wide(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn words_stay_whole_and_lines_within_their_width() {
        assert_eq!(wrapped("a: ", "one two three", "  ", 10), "a: one two\n  three");
        assert_eq!(wrapped("", "one-that-is-too-long two", "  ", 10), "one-that-is-too-long\n  two");
        assert_eq!(wrapped("only ", "", "  ", 10), "only");
    }
}
