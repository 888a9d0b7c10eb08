//! What goes wrong by itself, how often or when: read from a list, and drawn from a seed.

use std::{fmt, str::FromStr, time::Duration};

use tidegate_core::{Error, Result};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{fault::Fault, random::Random};

/// The names that [`Faults`] reads, for `--help` and messages.
pub const FAULT_NAMES: [&str; 26] = [
    "cut",
    "torn",
    "close",
    "silence",
    "malformed",
    "truncated",
    "oversized",
    "binary",
    "duplicate",
    "reorder",
    "skip",
    "skip_book",
    "restart",
    "expire",
    "list",
    "slow",
    "http_429",
    "http_5xx",
    "rest_down",
    "rest_lag",
    "refuse",
    "unauthorised",
    "skew",
    "never_speak",
    "plain_http",
    "wrong_testnet",
];

/// What goes wrong by itself: so often on average, such as `cut=4/m,silence=1/m`, or at a time, such as `5s:cut`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    rated: Vec<(Fault, f64)>,
    scripted: Vec<(Duration, Fault)>,
    after: Duration,
}

impl Faults {
    /// Adds a fault that happens `per_minute` times a minute on average.
    #[must_use]
    pub fn with(mut self, fault: Fault, per_minute: f64) -> Self {
        self.rated.push((fault, per_minute));
        self
    }

    /// Adds a fault that happens once, when the venue has run for so long.
    #[must_use]
    pub fn at(mut self, time: Duration, fault: Fault) -> Self {
        self.scripted.push((time, fault));
        self
    }

    /// Leaves the venue alone until it has run for so long; what has a time of its own comes at that time.
    #[must_use]
    pub fn after(mut self, calm: Duration) -> Self {
        self.after = calm;
        self
    }

    /// Reads a list of `name=COUNT/UNIT`, such as `cut=4/m,silence=0.5/s,close:1008=1/m`; the unit is `s`, `m` or `h`. The code
    /// of `close` may be left out: it is 1001 then.
    ///
    /// # Errors
    ///
    /// If a name is unknown, a rate unreadable or a code none that a server sends; the message says what is known.
    pub fn parse(list: &str) -> Result<Self> {
        let mut faults = Self::default();
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let Some((name, rate)) = entry.split_once('=') else {
                return Err(Error::config(format!("fault `{entry}` has no rate, write `{entry}=2/m`")));
            };
            let name = name.trim();
            faults.rated.push((named(name)?, per_minute(name, rate.trim())?));
        }
        Ok(faults)
    }

    /// Adds a list of `TIME:name`, such as `5s:cut,1m 30s:silence,2m:close:1008`, counted from the start of the venue.
    ///
    /// # Errors
    ///
    /// If a name is unknown, a time unreadable or a code none that a server sends.
    pub fn and_script(mut self, list: &str) -> Result<Self> {
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let unreadable = || Error::config(format!("`{entry}` is not like `5s:cut`, a time and a fault"));
            let (time, name) = entry.split_once(':').ok_or_else(unreadable)?;
            let time = humantime::parse_duration(time.trim()).map_err(|_| unreadable())?;
            self.scripted.push((time, named(name.trim())?));
        }
        Ok(self)
    }

    /// Returns the name of a fault that a replay cannot do: one of trades, books or listings, which it does not make.
    pub fn beyond_replay(&self) -> Option<&'static str> {
        let mut faults = self.rated.iter().map(|(fault, _)| fault).chain(self.scripted.iter().map(|(_, fault)| fault));
        faults.find(|fault| fault.is_of_market()).map(Fault::name)
    }

    /// Returns whether nothing goes wrong by itself.
    pub fn is_empty(&self) -> bool {
        self.rated.is_empty() && self.scripted.is_empty()
    }
}

impl FromStr for Faults {
    type Err = Error;

    fn from_str(list: &str) -> Result<Self> {
        Self::parse(list)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rated = self.rated.iter().map(|(fault, per_minute)| match per_minute {
            0.0..1.0 => format!("{}={}/h", fault.shown(), per_minute * 60.0),
            _ => format!("{}={per_minute}/m", fault.shown()),
        });
        let scripted = self.scripted.iter();
        let scripted = scripted.map(|(time, fault)| format!("{}:{}", humantime::format_duration(*time), fault.shown()));
        f.write_str(&rated.chain(scripted).collect::<Vec<_>>().join(", "))
    }
}

/// Reads a name, and behind `close` the code of the goodbye: `close:1008`.
fn named(entry: &str) -> Result<Fault> {
    let (name, code) = entry.split_once(':').map_or((entry, None), |(name, code)| (name, Some(code)));
    let unknown = || Error::config(format!("unknown fault `{name}`, known are: {}", FAULT_NAMES.join(", ")));
    let fault = Fault::named(name).ok_or_else(unknown)?;
    let Some(code) = code else { return Ok(fault) };
    if !matches!(fault, Fault::Close { .. }) {
        return Err(Error::config(format!("fault `{name}` takes no code, as in `{entry}`: only `close` does")));
    }
    // RFC 6455, 7.4: others are never on a wire, or nobody's.
    let code = code.parse().ok().filter(|code| CloseCode::from(*code).is_allowed());
    let unsendable = || {
        Error::config(format!(
            "`{entry}` is not like `close:1008`: a server sends 1000 to 1003, 1007 to 1013, or 3000 to 4999"
        ))
    };
    Ok(Fault::Close { code: code.ok_or_else(unsendable)? })
}

fn per_minute(name: &str, rate: &str) -> Result<f64> {
    let unreadable =
        || Error::config(format!("the rate `{rate}` of fault `{name}` is not like `4/m` (units: s, m, h)"));
    let (count, unit) = rate.split_once('/').ok_or_else(unreadable)?;
    let count: f64 = count.trim().parse().map_err(|_| unreadable())?;
    if !(count.is_finite() && count >= 0.0) {
        return Err(unreadable());
    }
    match unit.trim() {
        "s" => Ok(count * 60.0),
        "m" => Ok(count),
        "h" => Ok(count / 60.0),
        _ => Err(unreadable()),
    }
}

/// Says which faults are due, from the seed and the time for which the venue has run.
#[derive(Debug)]
pub(super) struct Schedule {
    random: Random,
    entries: Vec<Entry>,
    /// Those that are still to come.
    scripted: Vec<(Duration, Fault)>,
}

#[derive(Debug)]
struct Entry {
    fault: Fault,
    mean: f64,
    due: f64,
}

impl Schedule {
    pub(super) fn new(faults: &Faults, seed: u64) -> Self {
        let mut schedule = Self { random: Random::new(seed), entries: Vec::new(), scripted: faults.scripted.clone() };
        for (fault, per_minute) in faults.rated.iter().filter(|(_, per_minute)| *per_minute > 0.0) {
            let mean = 60.0 / per_minute;
            let due = faults.after.as_secs_f64() + schedule.pause(mean);
            schedule.entries.push(Entry { fault: fault.clone(), mean, due });
        }
        schedule
    }

    /// Returns the faults that are due after the venue has run for `elapsed`.
    pub(super) fn due(&mut self, elapsed: Duration) -> Vec<Fault> {
        let (now, later) = std::mem::take(&mut self.scripted).into_iter().partition(|(time, _)| *time <= elapsed);
        self.scripted = later;
        let now: Vec<(Duration, Fault)> = now;
        let mut due: Vec<Fault> = now.into_iter().map(|(_, fault)| fault).collect();
        let elapsed = elapsed.as_secs_f64();
        for index in 0..self.entries.len() {
            if self.entries[index].due <= elapsed {
                due.push(self.entries[index].fault.clone());
                self.entries[index].due = elapsed + self.pause(self.entries[index].mean);
            }
        }
        due
    }

    /// Times between independent events are distributed exponentially.
    fn pause(&mut self, mean: f64) -> f64 {
        -(1.0 - self.random.unit()).ln() * mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_rates_is_read_in_any_unit() {
        let faults: Faults = "cut=4/m, silence=0.5/s,http_429=30/h".parse().unwrap();
        let rates: Vec<_> = faults.rated.iter().map(|(_, rate)| *rate).collect();
        assert_eq!(rates, [4.0, 30.0, 0.5]);
        assert!("".parse::<Faults>().unwrap().is_empty());
    }

    #[test]
    fn a_wrong_list_says_what_is_wrong_and_what_is_known() {
        let error = |list: &str| Faults::parse(list).unwrap_err().to_string();
        assert!(error("cutt=4/m").contains("unknown fault `cutt`, known are: cut, "));
        assert_eq!(error("cut"), "fault `cut` has no rate, write `cut=2/m`");
        for rate in ["4", "4/d", "-1/m", "x/m", "inf/m"] {
            assert!(error(&format!("cut={rate}")).contains(&format!("the rate `{rate}` of fault `cut`")));
        }
    }

    #[test]
    fn every_name_in_the_list_of_names_is_read_and_shown_as_it_is_written() {
        for name in FAULT_NAMES {
            assert_eq!(Fault::named(name).unwrap().name(), name);
        }
        let faults = Faults::parse("cut=4/m,slow=30/h").unwrap().and_script("90s:silence").unwrap();
        assert_eq!(faults.to_string(), "cut=4/m, slow=30/h, 1m 30s:silence");
    }

    #[test]
    fn a_goodbye_has_the_code_that_the_list_names_and_1001_where_it_names_none() {
        let faults = Faults::parse("close=2/m,close:1008=3/m").unwrap().and_script("5s:close:4001,7s:close").unwrap();
        let rated: Vec<_> = faults.rated.iter().map(|(fault, _)| fault.clone()).collect();
        assert_eq!(rated, [Fault::Close { code: 1001 }, Fault::Close { code: 1008 }]);
        let scripted: Vec<_> = faults.scripted.iter().map(|(_, fault)| fault.clone()).collect();
        assert_eq!(scripted, [Fault::Close { code: 4001 }, Fault::Close { code: 1001 }]);
        let shown = faults.to_string();
        assert_eq!(shown, "close=2/m, close:1008=3/m, 5s:close:4001, 7s:close");
        for wrong in ["close:", "close:x", "close:1005", "close:1006", "close:1015", "close:2999", "close:70000"] {
            let error = Faults::parse(&format!("{wrong}=1/m")).unwrap_err().to_string();
            assert!(error.contains(&format!("`{wrong}` is not like `close:1008`")), "{error}");
        }
        let error = Faults::default().and_script("5s:cut:1008").unwrap_err().to_string();
        assert_eq!(error, "fault `cut` takes no code, as in `cut:1008`: only `close` does");
    }

    #[test]
    fn a_script_happens_once_and_at_its_times() {
        let faults = Faults::default().and_script("5s:cut, 7s:silence,5s:binary").unwrap();
        let mut schedule = Schedule::new(&faults, 3);
        assert_eq!(schedule.due(Duration::from_millis(4_999)), []);
        assert_eq!(schedule.due(Duration::from_secs(5)), [Fault::Cut, Fault::Binary]);
        assert_eq!(schedule.due(Duration::from_secs(6)), []);
        assert_eq!(schedule.due(Duration::from_secs(9)), [Fault::HalfOpen]);
        for wrong in ["cut", "soon:cut", "5s:cutt"] {
            assert!(Faults::default().and_script(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_goes_wrong_before_the_time_that_was_asked_for() {
        let mut schedule = Schedule::new(&Faults::default().with(Fault::Cut, 6_000.0).after(Duration::from_secs(4)), 3);
        assert_eq!(schedule.due(Duration::from_secs(4)), []);
        assert_eq!(schedule.due(Duration::from_secs(5)), [Fault::Cut]);
    }

    #[test]
    fn faults_come_at_their_rate_and_the_same_seed_gives_the_same_times() {
        let faults = Faults::default().with(Fault::Cut, 60.0).with(Fault::Binary, 6.0);
        let run = || {
            let mut schedule = Schedule::new(&faults, 3);
            (0..600_000)
                .map(|ms| schedule.due(Duration::from_millis(ms)))
                .filter(|due| !due.is_empty())
                .collect::<Vec<_>>()
        };
        let due = run();
        let cuts = due.iter().flatten().filter(|fault| **fault == Fault::Cut).count();
        let binaries = due.iter().flatten().filter(|fault| **fault == Fault::Binary).count();
        assert!((500..700).contains(&cuts), "{cuts}");
        assert!((40..80).contains(&binaries), "{binaries}");
        assert_eq!(due, run());
    }
}
