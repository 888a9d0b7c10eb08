//! Dates as the venue writes them: `26SEP26`, and the days on which options expire.

/// Milliseconds of a day.
pub(super) const DAY_MS: i64 = 86_400_000;

/// Every option expires at this time of its day, UTC.
const EXPIRY_MS: i64 = 8 * 3_600_000;

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// Returns the moment at which options of `day` (days since 1970) expire.
pub(super) fn expiry_of(day: i64) -> i64 {
    day * DAY_MS + EXPIRY_MS
}

/// Writes a day in the form of instrument names.
pub(super) fn format_day(day: i64) -> String {
    let (year, month, day) = civil(day);
    format!("{day}{}{:02}", MONTHS[month - 1], year.rem_euclid(100))
}

/// Reads the form of instrument names.
pub(super) fn parse_day(text: &str) -> Option<i64> {
    let letters = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (day, rest) = text.split_at_checked(letters)?;
    let (month, year) = rest.split_at_checked(3)?;
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    if year.len() != 2 {
        return None;
    }
    let parsed = days_since_epoch(2000 + year.parse::<i64>().ok()?, month, day.parse().ok()?);
    (format_day(parsed) == text).then_some(parsed)
}

/// Returns the days on which options listed on `today` expire, soonest first, and each with its settlement period.
///
/// The nearest is at least a day away, so that nothing expires under a test that did not ask for it.
pub(super) fn expiries(today: i64) -> Vec<(i64, &'static str)> {
    let friday = friday_from(today + 4);
    let mut days = vec![(today + 2, "day"), (today + 3, "day"), (friday, "week"), (friday + 7, "week")];
    days.push((friday_from(today + 32), "month"));
    days.push((friday_from(today + 88), "month"));
    days.dedup_by_key(|(day, _)| *day);
    days
}

fn friday_from(day: i64) -> i64 {
    // 1970-01-01 was a Thursday.
    day + (1 - day).rem_euclid(7)
}

/// Year, month and day of a day number; Howard Hinnant's `civil_from_days`.
fn civil(days: i64) -> (i64, usize, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, usize::try_from(month).expect("1 to 12"), day)
}

/// The inverse of [`civil`].
fn days_since_epoch(year: i64, month: usize, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = i64::try_from(month).expect("1 to 12");
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_without_a_leading_zero_and_read_back() {
        assert_eq!(format_day(20_718), "22SEP26");
        assert_eq!(parse_day("2APR20"), Some(18_354));
        for day in 18_000..30_000 {
            assert_eq!(parse_day(&format_day(day)), Some(day));
        }
        for wrong in ["", "2APR", "02APR20", "31FEB26", "5XXX26", "é", "1JAN2026"] {
            assert_eq!(parse_day(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn expiries_are_days_apart_in_order_and_weeklies_are_fridays() {
        for today in 20_000..20_400 {
            let expiries = expiries(today);
            assert!(expiries.windows(2).all(|pair| pair[0].0 < pair[1].0), "{expiries:?}");
            assert!(expiry_of(expiries[0].0) - (today + 1) * DAY_MS >= DAY_MS, "nothing expires within a day");
            assert!(
                expiries.iter().filter(|(_, period)| *period != "day").all(|(day, _)| (day - 1).rem_euclid(7) == 0)
            );
        }
    }
}
