//! Figures as a table on standard output.

/// A table whose columns are as wide as they need to be.
#[derive(Debug)]
pub(crate) struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table with these headings; what stands in the first column is text, the rest numbers.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { lines: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, cells: impl IntoIterator<Item = String>) {
        self.lines.push(cells.into_iter().collect());
    }

    /// Prints it under a title.
    pub(crate) fn print(&self, title: &str) {
        println!("\n{title}");
        let columns = self.lines.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for line in &self.lines {
            let mut text = String::from(" ");
            for (column, cell) in line.iter().enumerate() {
                let fill = " ".repeat(widths[column] - cell.chars().count());
                text += &if column == 0 { format!(" {cell}{fill}") } else { format!("  {fill}{cell}") };
            }
            println!("{}", text.trim_end());
        }
    }
}

/// Writes a figure that should be at least `target`, and says where it is not.
pub(crate) fn at_least(figure: f64, target: f64) -> String {
    let verdict = if figure >= target { "ok" } else { "MISSED" };
    format!("{figure:.2}  (≥ {target}: {verdict})")
}

/// Writes a rate per second in thousands.
pub(crate) fn thousands(count: usize, seconds: f64) -> String {
    format!("{:.0} k/s", count as f64 / seconds / 1e3)
}

/// Returns the middle, the 99th of a hundred, and the largest.
pub(crate) fn quantiles(nanoseconds: &mut [i64]) -> [i64; 3] {
    assert!(!nanoseconds.is_empty(), "nothing was stored");
    nanoseconds.sort_unstable();
    [0.5, 0.99, 1.0].map(|share| nanoseconds[((nanoseconds.len() - 1) as f64 * share) as usize])
}

/// Writes a time.
pub(crate) fn milliseconds(nanoseconds: i64) -> String {
    format!("{:.2} ms", nanoseconds as f64 / 1e6)
}
