//! A plausible option market that follows from a seed: a random walk, books around it, and trades.
//!
//! It reads no clock: the caller gives the time that goes into a trade, and its prices follow a time of its own, so that one seed
//! and one day give the same events in the same order.

use super::{
    book::{Book, BookChange, Quotes},
    calendar::DAY_MS,
    instrument::{self, Instrument},
    oracle::{Direction, Oracle, Trade},
    pricing::{self, Priced},
    random::{Random, mix},
};

/// Price units in one coin (options) and in one dollar (perpetual): the venue's finest tick.
const OPTION_UNITS: f64 = 10_000.0;
const PERPETUAL_UNITS: f64 = 20.0;

/// Above this many units an option's tick is five times as large.
const COARSE_ABOVE: i64 = 50;

const YEAR_MS: f64 = 365.0 * 86_400_000.0;
const VOLATILITY_OF_SPOT: f64 = 0.7;

/// All instruments and the price they hang on.
#[derive(Debug)]
pub(super) struct Market {
    random: Random,
    pub(super) spot: f64,
    pub(super) listings: Vec<Listing>,
    /// Indices of listings that trade.
    open: Vec<usize>,
    change_id: u64,
    trade_id: u64,
    /// The market's own time, which only its steps move.
    model_ms: f64,
    step_ms: f64,
}

/// One instrument and everything that moves about it.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) instrument: Instrument,
    pub(super) open: bool,
    /// Never trades or quotes by itself, as many far options do not.
    pub(super) quiet: bool,
    pub(super) mark_iv: f64,
    pub(super) underlying: f64,
    pub(super) priced: Priced,
    pub(super) mark: f64,
    pub(super) open_interest: f64,
    pub(super) book: Book,
    pub(super) last_trade: Option<Trade>,
    /// Lowest and highest price traded.
    pub(super) range: Option<(f64, f64)>,
    pub(super) epoch: u32,
    pub(super) seq: u64,
    /// The 24-hour volume in halves: it grows with every ticker message, which makes a message recognisable in a store.
    pub(super) volume_halves: u64,
    /// The time of the last quote, which grows for the same reason.
    pub(super) quoted_ms: i64,
}

/// What one step of the market did.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Trade {
        listing: usize,
        trade: Trade,
    },
    Update {
        listing: usize,
        change: BookChange,
    },
    /// Nothing is listed that could move.
    Nothing,
}

impl Market {
    /// Returns the market of `seed` on `today`, whose steps are `step_ms` apart.
    pub(super) fn new(seed: u64, today: i64, options: usize, step_ms: f64) -> Self {
        let mut random = Random::new(mix(seed));
        let spot = round(2000.0 + 2000.0 * random.unit(), 2);
        let planned = instrument::plan(&mut random, today, spot, options);
        let mut market = Self::empty(random, today, spot, step_ms);
        for instrument in planned {
            let numbered = !market.random.one_in(6);
            let index = market.list(instrument);
            let listing = &mut market.listings[index];
            let used = numbered && !listing.quiet;
            listing.seq = match listing.instrument.option {
                None => 112_830_000 + (mix(seed) % 1_000_000),
                Some(_) if used => 20 + mix(seed ^ listing.instrument.id) % 3000,
                Some(_) => 0,
            };
        }
        market
    }

    /// Returns a market of these instruments, in which nothing moves by itself.
    pub(super) fn of(instruments: Vec<Instrument>, seed: u64, today: i64) -> Self {
        let mut market = Self::empty(Random::new(mix(seed)), today, 2_000.0, 1.0);
        for instrument in instruments {
            market.list(instrument);
        }
        market
    }

    /// Returns the market that goes on where `oracle` ends.
    pub(super) fn resumed(seed: u64, oracle: &Oracle, today: i64, step_ms: f64) -> Self {
        let spot = round(2000.0 + 2000.0 * Random::new(mix(seed)).unit(), 2);
        let mut market = Self::empty(Random::new(mix(seed ^ mix(oracle.trades_made))), today, spot, step_ms);
        // Changes that nobody was sent are in no file: the jump makes sure that none of their ids comes again.
        market.change_id = market.change_id.max(oracle.highest.change_id) + 1_000_000;
        for listed in &oracle.instruments {
            let name = listed.instrument.name.as_str();
            let index = market.list(listed.instrument.clone());
            let listing = &mut market.listings[index];
            oracle.trades.get(name).into_iter().flatten().for_each(|trade| listing.remember(trade.clone()));
            let mark = oracle.mark(name);
            (listing.epoch, listing.seq) = (mark.epoch, mark.seq);
            let volume = oracle.highest.volume.get(name).map_or(0, |volume| (volume * 2.0) as u64);
            listing.volume_halves = listing.volume_halves.max(volume);
            listing.quoted_ms = oracle.highest.quote.get(name).copied().unwrap_or(0);
            if listed.expired_ms.is_some() {
                market.close(index);
            }
        }
        market.trade_id = market.trade_id.max(oracle.highest.trade_id);
        market
    }

    fn empty(random: Random, today: i64, spot: f64, step_ms: f64) -> Self {
        let (change_id, trade_id) = (118_850_968_930, 284_830_839);
        let model_ms = (today * DAY_MS) as f64;
        Self { random, spot, listings: Vec::new(), open: Vec::new(), change_id, trade_id, model_ms, step_ms }
    }

    /// Moves the price and one instrument: one step in ten is a trade.
    pub(super) fn step(&mut self, now_ms: i64) -> Step {
        self.model_ms += self.step_ms;
        let deviation = VOLATILITY_OF_SPOT * (self.step_ms / YEAR_MS).sqrt();
        self.spot = (self.spot * (1.0 + deviation * self.random.normal())).clamp(200.0, 20_000.0);

        let Some(listing) = self.busy_listing() else { return Step::Nothing };
        if self.random.one_in(10) {
            return Step::Trade { listing, trade: self.trade(listing, now_ms) };
        }
        Step::Update { listing, change: self.update(listing) }
    }

    /// Makes a trade of `listing`, with the next number of its sequence.
    pub(super) fn trade(&mut self, listing: usize, timestamp: i64) -> Trade {
        self.reprice(listing);
        let index_price = round(self.spot, 2);
        let random = &mut self.random;
        let traded = &mut self.listings[listing];
        let direction = if random.one_in(2) { Direction::Buy } else { Direction::Sell };
        let side = if direction == Direction::Buy { &traded.book.asks } else { &traded.book.bids };
        let scale = traded.units_per_price();
        let units = side.first().map_or_else(|| (traded.mark * scale).round().max(1.0), |level| level.units as f64);
        let price = units / scale;
        let amount =
            if traded.is_option() { 1.0 + random.below(40) as f64 } else { 10.0 * (1.0 + random.below(900) as f64) };

        let last_price = traded.last_trade.as_ref().map_or(price, |trade| trade.price);
        let last_tick = traded.last_trade.as_ref().map_or(0, |trade| trade.tick_direction);
        let tick_direction = match price.total_cmp(&last_price) {
            std::cmp::Ordering::Greater => 0,
            std::cmp::Ordering::Less => 2,
            std::cmp::Ordering::Equal => last_tick | 1,
        };
        traded.seq += 1;
        traded.open_interest = (traded.open_interest + amount * (random.unit() - 0.45)).round().max(0.0);
        self.trade_id += 1;
        let trade = Trade {
            epoch: traded.epoch,
            seq: traded.seq,
            id: self.trade_id,
            timestamp,
            price,
            amount,
            direction,
            index_price,
            mark_price: traded.mark,
            iv: traded.is_option().then_some(traded.mark_iv),
            tick_direction,
            raw: None,
        };
        traded.remember(trade.clone());
        trade
    }

    /// Moves the book of `listing` to where its price is now.
    pub(super) fn update(&mut self, listing: usize) -> BookChange {
        self.reprice(listing);
        self.change_id += 1 + self.random.below(900) as u64;
        let updated = &mut self.listings[listing];
        let quotes = updated.quotes();
        updated.book.requote(quotes, self.change_id, &mut self.random)
    }

    /// Lists an instrument and returns its index.
    pub(super) fn list(&mut self, instrument: Instrument) -> usize {
        let index = self.listings.len();
        let quiet = instrument.option.is_some() && mix(instrument.id).is_multiple_of(12);
        let open_interest = match instrument.option {
            None => 420_000_000.0,
            Some(_) if quiet => (mix(instrument.id) % 5) as f64,
            Some(_) => (40_000.0 / (1.0 + (mix(instrument.id) % 60) as f64)).round(),
        };
        self.listings.push(Listing {
            instrument,
            open: true,
            quiet,
            mark_iv: 0.0,
            underlying: 0.0,
            priced: Priced::default(),
            mark: 0.0,
            open_interest,
            book: Book::default(),
            last_trade: None,
            range: None,
            epoch: 0,
            seq: 0,
            volume_halves: if quiet { 0 } else { 2 * (mix(index as u64) % 900) },
            quoted_ms: 0,
        });
        self.open.push(index);
        self.reprice(index);
        if !quiet {
            for _ in 0..4 {
                let _ = self.update(index);
            }
        }
        index
    }

    /// Takes an instrument off the market.
    pub(super) fn close(&mut self, listing: usize) {
        self.listings[listing].open = false;
        self.open.retain(|open| *open != listing);
    }

    /// Starts the sequence of `listing` again at 1 and returns its new epoch.
    pub(super) fn restart_sequence(&mut self, listing: usize) -> u32 {
        let restarted = &mut self.listings[listing];
        restarted.epoch += 1;
        restarted.seq = 0;
        restarted.epoch
    }

    /// Returns an option that trades, for faults that need one.
    pub(super) fn any_open_option(&self, random: &mut Random) -> Option<usize> {
        let options: Vec<_> = self.open.iter().copied().filter(|index| self.listings[*index].is_option()).collect();
        options.get(random.below(options.len())).copied()
    }

    /// Two picks, and the one with the larger open interest wins: activity follows the ranking, and nobody starves.
    fn busy_listing(&mut self) -> Option<usize> {
        if self.random.one_in(15) {
            return self.open.first().copied();
        }
        let first = self.pick()?;
        let second = self.pick()?;
        let larger = self.listings[first].open_interest >= self.listings[second].open_interest;
        Some(if larger { first } else { second })
    }

    fn pick(&mut self) -> Option<usize> {
        for _ in 0..8 {
            let chosen = *self.open.get(self.random.below(self.open.len()))?;
            if !self.listings[chosen].quiet {
                return Some(chosen);
            }
        }
        self.open.iter().copied().find(|index| !self.listings[*index].quiet)
    }

    fn reprice(&mut self, listing: usize) {
        let spot = self.spot;
        let model_ms = self.model_ms;
        self.listings[listing].reprice(spot, model_ms);
    }
}

impl Listing {
    pub(super) fn is_option(&self) -> bool {
        self.instrument.option.is_some()
    }

    /// Returns a price of the book as the venue prints it.
    pub(super) fn price(&self, units: i64) -> f64 {
        units as f64 / self.units_per_price()
    }

    pub(super) fn volume(&self) -> f64 {
        self.volume_halves as f64 / 2.0
    }

    /// Takes a trade as the last one.
    pub(super) fn remember(&mut self, trade: Trade) {
        let (low, high) = self.range.unwrap_or((trade.price, trade.price));
        self.range = Some((low.min(trade.price), high.max(trade.price)));
        (self.epoch, self.seq) = (trade.epoch, trade.seq);
        self.last_trade = Some(trade);
    }

    fn units_per_price(&self) -> f64 {
        if self.is_option() { OPTION_UNITS } else { PERPETUAL_UNITS }
    }

    fn reprice(&mut self, spot: f64, model_ms: f64) {
        let Some(terms) = self.instrument.option else {
            self.underlying = round(spot, 2);
            self.mark = round(spot * 1.0003, 2);
            return;
        };
        let years = ((self.instrument.expiration_ms as f64 - model_ms) / YEAR_MS).max(0.0);
        let forward = spot * (1.0 + 0.03 * years);
        let moneyness = (terms.strike / forward).ln();
        let sigma =
            (0.52 + 0.6 * moneyness * moneyness - 0.1 * moneyness + 0.05 / (1.0 + 20.0 * years)).clamp(0.1, 4.0);

        self.priced = pricing::price(terms.call, forward, terms.strike, years, sigma);
        self.underlying = round(forward, 4);
        self.mark_iv = round(sigma * 100.0, 2);
        self.mark = round(self.priced.price / forward, 6);
    }

    fn quotes(&self) -> Quotes {
        let mark = self.mark * self.units_per_price();
        if !self.is_option() {
            let middle = mark.round() as i64;
            return Quotes { bid: Some(middle - 1), ask: Some(middle + 1), step: 3, lot: 10.0 };
        }
        let half_spread = (mark * 0.02).max(0.6);
        let bid = on_grid((mark - half_spread).floor() as i64, f64::floor);
        let ask = on_grid((mark + half_spread).ceil() as i64, f64::ceil).max(1);
        Quotes {
            bid: (bid > 0).then_some(bid),
            ask: Some(ask.max(bid + 1)),
            step: if ask > COARSE_ABOVE { 5 } else { 1 },
            lot: 1.0,
        }
    }
}

/// Above the threshold only every fifth unit is a price.
fn on_grid(units: i64, towards: fn(f64) -> f64) -> i64 {
    if units <= COARSE_ABOVE { units } else { towards(units as f64 / 5.0) as i64 * 5 }
}

/// Rounds to a number of decimals; the division gives the float nearest to that decimal text.
pub(super) fn round(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: i64 = 20_718;

    #[test]
    fn one_seed_gives_one_history_and_another_seed_another() {
        let history = |seed| {
            let mut market = Market::new(seed, TODAY, 60, 0.5);
            (0..5_000).map(|n| market.step(n)).collect::<Vec<_>>()
        };
        assert_eq!(history(5), history(5));
        assert_ne!(history(5), history(6));
    }

    #[test]
    fn about_a_tenth_of_the_steps_are_trades_and_each_takes_the_next_number() {
        let mut market = Market::new(5, TODAY, 60, 0.5);
        let mut last: Vec<_> = market.listings.iter().map(|listing| listing.seq).collect();
        let mut trades = 0;
        for now in 0..20_000 {
            if let Step::Trade { listing, trade } = market.step(now) {
                assert_eq!(trade.seq, last[listing] + 1);
                assert!(trade.price > 0.0 && trade.amount > 0.0, "{trade:?}");
                last[listing] = trade.seq;
                trades += 1;
            }
        }
        assert!((1_700..2_300).contains(&trades), "{trades}");
    }

    #[test]
    fn some_options_are_quiet_and_their_books_are_empty() {
        let mut market = Market::new(5, TODAY, 60, 0.5);
        for now in 0..5_000 {
            let _ = market.step(now);
        }
        let (quiet, busy): (Vec<_>, Vec<_>) = market.listings.iter().partition(|listing| listing.quiet);
        assert!((1..20).contains(&quiet.len()), "{}", quiet.len());
        assert!(quiet.iter().all(|listing| listing.book.bids.is_empty() && listing.last_trade.is_none()));
        assert!(busy.iter().all(|listing| !listing.book.asks.is_empty()));
    }

    #[test]
    fn prices_lie_on_the_ticks_of_the_venue() {
        let mut market = Market::new(9, TODAY, 60, 0.5);
        for now in 0..5_000 {
            if let Step::Update { listing, .. } = market.step(now) {
                let listing = &market.listings[listing];
                for level in listing.book.bids.iter().take(1).chain(listing.book.asks.iter().take(1)) {
                    let coarse = listing.is_option() && level.units > COARSE_ABOVE;
                    assert!(level.units > 0 && (!coarse || level.units % 5 == 0), "{level:?}");
                }
            }
        }
    }
}
