//! Numbers, sizes and times as people read them.

use std::time::Duration;

/// Returns a number with its thousands apart: `12,044`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a size: `61 MiB`.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return format!("{value:.0} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

/// Returns the time since the start: `00:01:24`.
pub(super) fn clock(passed: Duration) -> String {
    let seconds = passed.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Returns a short time with its unit: `3 ms`, `1.2 s`.
pub(super) fn short(seconds: f64) -> String {
    let milliseconds = seconds * 1000.0;
    match milliseconds {
        0.0 => "0 s".to_owned(),
        ..0.95 => format!("{milliseconds:.1} ms"),
        ..999.5 => format!("{milliseconds:.0} ms"),
        ..120_000.0 => format!("{seconds:.1} s"),
        // Tens of thousands of seconds say nothing to anybody.
        _ => humantime::format_duration(Duration::from_secs(seconds as u64)).to_string(),
    }
}

/// Returns a count with its noun: `1 trade`, `212 trades`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(["0", "999", "1,000", "12,044", "1,234,567"], [0, 999, 1_000, 12_044, 1_234_567].map(grouped)[..]);
        assert_eq!([0, 1_536, 64 << 20, 3 << 30].map(size), ["0 B", "2 KiB", "64 MiB", "3.0 GiB"]);
        assert_eq!(clock(Duration::from_secs(3_600 * 30 + 84)), "30:01:24");
        assert_eq!([0.0, 0.000_4, 0.003, 0.25, 1.23].map(short), ["0 s", "0.4 ms", "3 ms", "250 ms", "1.2 s"]);
        assert_eq!([count(1, "trade"), count(2_000, "trade")], ["1 trade", "2,000 trades"]);
    }
}
