//! What the venue takes from one address, by its page on rate limits (texts of November 2025 to May 2026), with a margin: the
//! sessions' own messages, and other programs of the machine, are paid from the same.

use tidegate_core::protocol::Pool;

/// Of 20 a second and 100 at once.
pub(super) const REQUESTS: Pool = Pool { name: "", per_second: 15.0, burst: 50 };
/// `subscribe` and `unsubscribe`: of 3.3 a second and 10 at once.
pub(super) const SUBSCRIPTIONS: Pool = Pool { name: "subscriptions", per_second: 2.5, burst: 8 };
/// `get_instruments`: of 1 a second and 50 at once.
pub(super) const INSTRUMENTS: Pool = Pool { name: "instruments", per_second: 0.75, burst: 25 };
/// The history host: nothing is documented, and this is the most that it was seen to take.
pub(super) const HISTORY: Pool = Pool { name: "history", per_second: 1.0, burst: 1 };
