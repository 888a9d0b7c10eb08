//! Where the picture goes: drawn over itself on a terminal, a line from time to time elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use tokio::time::Instant;

use super::picture::Picture;

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen<W> {
    out: W,
    look: Look,
    title: [String; 2],
    width: fn() -> usize,
    /// How many lines are on the terminal and drawn over next time.
    drawn: usize,
    last: Option<Instant>,
}

/// What the output can do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Look {
    /// It moves its cursor.
    Terminal { colours: bool },
    /// It takes lines.
    Lines,
}

impl Look {
    /// Returns what standard output can do.
    pub(super) fn of_stdout() -> Self {
        let variable = |name| std::env::var_os(name).unwrap_or_default();
        let is_dumb = variable("TERM").is_empty() || variable("TERM") == "dumb";
        if io::stdout().is_terminal() && !is_dumb {
            Self::Terminal { colours: variable("NO_COLOR").is_empty() }
        } else {
            Self::Lines
        }
    }
}

impl<W: Write> Screen<W> {
    pub(super) fn new(out: W, look: Look, title: [String; 2]) -> Self {
        let mut screen = Self { out, look, title, width, drawn: 0, last: None };
        if look == Look::Lines {
            let line = screen.title.join(" ");
            screen.put(&format!("{line}\n"));
        }
        screen
    }

    /// Returns how long to wait before the next picture.
    pub(super) fn every(&self) -> Duration {
        match self.look {
            Look::Terminal { .. } => Duration::from_millis(500),
            Look::Lines => Duration::from_secs(5),
        }
    }

    /// Shows a picture, if it is time for one.
    pub(super) fn show(&mut self, picture: &Picture<'_>, now: Instant) {
        // A line is kept, and so the first one waits until there is something to say.
        let last = if self.look == Look::Lines { Some(*self.last.get_or_insert(now)) } else { self.last };
        if last.is_some_and(|last| now.duration_since(last) < self.every()) {
            return;
        }
        self.last = Some(now);
        self.draw(picture);
    }

    /// Shows the last picture, which stays.
    pub(super) fn finish(&mut self, picture: &Picture<'_>) {
        self.draw(picture);
        self.drawn = 0;
    }

    /// Says something that stays, above the picture.
    pub(super) fn say(&mut self, text: &str) {
        let above = self.to_the_top();
        self.drawn = 0;
        // The picture below comes with the next report.
        self.last = self.last.filter(|_| self.look == Look::Lines);
        self.put(&format!("{above}{text}\n"));
    }

    fn draw(&mut self, picture: &Picture<'_>) {
        let Look::Terminal { colours } = self.look else { return self.put(&format!("{}\n", picture.line())) };
        let width = (self.width)();
        let mut frame = self.to_the_top();
        self.drawn = 0;
        for line in self.title.iter().cloned().chain(picture.lines(width)).flat_map(|line| folded(line, width)) {
            frame.push_str(&if colours { coloured(&line) } else { line });
            frame.push('\n');
            self.drawn += 1;
        }
        self.put(&frame);
    }

    /// Returns what moves the cursor to the first drawn line and clears what is there.
    fn to_the_top(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\r\x1b[J", self.drawn) }
    }

    fn put(&mut self, text: &str) {
        // Whoever read it may have gone; the demo goes on for its exit code.
        _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

/// Returns how wide the terminal is at this moment.
fn width() -> usize {
    terminal_size::terminal_size().map_or(80, |(terminal_size::Width(columns), _)| usize::from(columns).max(1))
}

/// Returns a line in as many as it needs: one that the terminal itself folded could not be drawn over.
fn folded(mut line: String, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let width = width.max(NARROWEST);
    while let Some((end, _)) = line.char_indices().nth(width) {
        // Between two facts, else between two words, else anywhere.
        let start = line.char_indices().nth(INDENT.len()).map_or(end, |(at, _)| at);
        let room = &line[start..end];
        let at = room.rfind("  ").or_else(|| room.rfind(' ')).map_or(end, |at| start + at);
        let rest = format!("{INDENT}{}", line[at..].trim_start());
        line.truncate(at);
        lines.push(std::mem::replace(&mut line, rest).trim_end().to_owned());
    }
    lines.push(line);
    lines
}

/// What is folded begins below the names of the stages.
const INDENT: &str = "           ";
/// No terminal is narrower.
const NARROWEST: usize = 24;

/// Paints the states.
fn coloured(line: &str) -> String {
    let mut painted = line.to_owned();
    for (word, colour) in [("healthy", 32), ("degraded", 33), ("starting", 33), ("failed", 31), ("stopped", 31)] {
        painted = painted.replace(&format!(" {word} "), &format!(" \x1b[{colour}m{word}\x1b[0m "));
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::{
        super::{picture::Facts, tally::Tally},
        *,
    };

    fn screen(look: Look) -> Screen<Vec<u8>> {
        let title = ["title,".to_owned(), "and more.".to_owned()];
        Screen { width: || 80, ..Screen::new(Vec::new(), look, title) }
    }

    fn show(screen: &mut Screen<Vec<u8>>, at: Instant) {
        let tally = Tally::default();
        let picture = Picture { facts: Facts::default(), tally: &tally };
        screen.show(&picture, at);
    }

    fn text(screen: &mut Screen<Vec<u8>>) -> String {
        String::from_utf8(std::mem::take(&mut screen.out)).unwrap()
    }

    #[test]
    fn without_a_terminal_there_is_a_line_each_5_seconds_and_no_control_code() {
        let (mut screen, start) = (screen(Look::Lines), Instant::now());
        for half_seconds in 0..=30 {
            show(&mut screen, start + Duration::from_millis(500 * half_seconds));
        }
        screen.say("killed");
        let text = text(&mut screen);
        assert_eq!(text.lines().count(), 1 + 3 + 1, "{text}");
        assert!(text.starts_with("title, and more.\n") && text.ends_with("killed\n"));
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
    }

    #[test]
    fn on_a_terminal_six_lines_are_drawn_over_at_most_twice_a_second() {
        let (mut screen, start) = (screen(Look::Terminal { colours: false }), Instant::now());
        for tenths in 0..10 {
            show(&mut screen, start + Duration::from_millis(100 * tenths));
        }
        let text = text(&mut screen);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 12, "{text}");
        assert_eq!(text.matches("\x1b[6A").count(), 1, "the second picture covers the first");
        assert!(!text.contains("m starting") && !text.contains("\x1b[33m"), "no colours unless asked for");
    }

    #[test]
    fn on_a_narrow_terminal_lines_are_folded_and_nothing_is_lost() {
        let start = Instant::now();
        let [mut wide, mut narrow] = [(); 2].map(|()| screen(Look::Terminal { colours: false }));
        narrow.width = || 60;
        show(&mut wide, start);
        show(&mut narrow, start);
        let (wide, first) = (text(&mut wide), text(&mut narrow));
        assert!(first.lines().all(|line| line.chars().count() <= 60), "{first}");
        let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
        assert_eq!(words(&first), words(&wide));
        show(&mut narrow, start + Duration::from_secs(1));
        let second = text(&mut narrow);
        let up = format!("\x1b[{}A\r", first.lines().count());
        assert!(second.starts_with(&up), "the second picture covers the first: {second:?}");
    }

    #[test]
    fn a_line_is_folded_between_facts_between_words_or_anywhere() {
        assert_eq!(folded("é".repeat(30), 24), ["é".repeat(24), format!("{INDENT}éééééé")]);
        let facts = "         spool  2 MiB  synced 13 ms".to_owned();
        assert_eq!(folded(facts, 24), ["         spool  2 MiB", "           synced 13 ms"]);
    }

    #[test]
    fn the_last_picture_stays() {
        let (mut screen, start) = (screen(Look::Terminal { colours: false }), Instant::now());
        show(&mut screen, start);
        let tally = Tally::default();
        screen.finish(&Picture { facts: Facts::default(), tally: &tally });
        text(&mut screen);
        screen.say("stopping");
        assert_eq!(text(&mut screen), "stopping\n", "nothing is taken away");
    }

    #[test]
    fn what_is_said_stays_above_the_picture() {
        let (mut screen, start) = (screen(Look::Terminal { colours: true }), Instant::now());
        show(&mut screen, start);
        assert!(text(&mut screen).contains("\x1b[33mstarting\x1b[0m"));
        screen.say("killed");
        show(&mut screen, start + Duration::from_millis(1));
        let text = text(&mut screen);
        assert!(text.starts_with("\x1b[6A\r\x1b[Jkilled\ntitle,"), "{text:?}");
    }
}
