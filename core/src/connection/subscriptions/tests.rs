use super::*;

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn a_message_holds_no_more_bytes_than_the_venue_takes() {
    let now = Instant::now();
    let limits = Limits { bytes_per_message: Some(ENVELOPE + 40), ..Limits::default() };
    let mut subscriptions = Subscriptions::new(&limits, TIMEOUT);
    subscriptions.want(&["a".repeat(17), "b".repeat(17), "c".repeat(17), "x".repeat(500)], now);
    subscriptions.ready(now);
    let sizes: Vec<usize> = std::iter::from_fn(|| subscriptions.poll(now)).map(|asking| names(&asking).len()).collect();
    assert_eq!(sizes, [2, 1, 1], "the one that fits nowhere goes alone");
}

#[test]
fn a_leaver_that_was_never_asked_for_is_simply_forgotten() {
    let (mut subscriptions, now) = subscriptions(&["a", "b"]);
    subscriptions.want(&["b".to_owned()], now);
    subscriptions.ready(now);
    assert_eq!(subscriptions.poll(now), Some(Asking::Subscribe(vec!["b".into()])));
    assert_eq!(subscriptions.poll(now), None);
}

#[test]
fn a_leaver_that_is_confirmed_late_is_vouched_for_until_its_end() {
    let (mut subscriptions, now) = subscriptions(&["a"]);
    subscriptions.ready(now);
    subscriptions.poll(now);
    subscriptions.want(&[], now);
    assert_eq!(subscriptions.poll(now), Some(Asking::Unsubscribe(vec!["a".into()])));
    assert!(subscriptions.confirmed("a"), "from here on the venue vouches for it");
    assert!(subscriptions.unsubscribed("a", now), "to here");
    assert_eq!(subscriptions.counts(), Counts::default());
}

#[test]
fn an_end_that_the_venue_does_not_confirm_counts_as_one_after_the_timeout() {
    let (mut subscriptions, now) = confirmed(&["a", "b"]);
    subscriptions.want(&["b".to_owned()], now);
    subscriptions.poll(now);
    assert_eq!(subscriptions.overdue(now + SECOND * 9), Overdue::default());
    subscriptions.poll(now);
    assert_eq!(subscriptions.next_at(), Some(now + TIMEOUT));
    let overdue = subscriptions.overdue(now + TIMEOUT);
    assert_eq!(overdue, Overdue { unanswered: vec![], unended: vec!["a".into()] });
    assert_eq!(subscriptions.vouched().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_renewal_that_the_venue_does_not_end_is_subscribed_all_the_same() {
    let (mut subscriptions, now) = confirmed(&["a"]);
    subscriptions.renew("a", now);
    subscriptions.renew("a", now);
    assert_eq!(subscriptions.poll(now), Some(Asking::Unsubscribe(vec!["a".into()])));
    assert_eq!(subscriptions.poll(now), None, "once is enough");
    assert_eq!(subscriptions.overdue(now + TIMEOUT).unended, ["a".into()]);
    assert_eq!(subscriptions.poll(now + TIMEOUT), Some(Asking::Subscribe(vec!["a".into()])));
}

#[test]
fn a_channel_that_held_is_renewed_at_once_again() {
    let (mut subscriptions, mut now) = confirmed(&["a"]);
    for pause in [0, 1, 2] {
        subscriptions.renew("a", now);
        now += SECOND * pause;
        assert!(subscriptions.poll(now).is_some(), "after {pause} s");
        subscriptions.unsubscribed("a", now);
        subscriptions.poll(now);
        subscriptions.confirmed("a");
    }
    now += FORGIVEN_AFTER * 2;
    subscriptions.renew("a", now);
    assert!(subscriptions.poll(now).is_some());
}

#[test]
fn a_new_session_begins_with_nothing_and_wants_what_was_wanted() {
    let (mut subscriptions, now) = confirmed(&["a", "b"]);
    subscriptions.refused("b", now);
    subscriptions.reset();
    assert_eq!(subscriptions.counts(), Counts { wanted: 2, open: 2, ..Counts::default() });
    assert_eq!(subscriptions.poll(now), None, "before the handshake");
    subscriptions.ready(now);
    assert_eq!(subscriptions.poll(now), Some(Asking::Subscribe(vec!["a".into(), "b".into()])));
}

#[test]
fn a_refused_channel_is_asked_for_again_after_growing_pauses_and_counts_as_refused_meanwhile() {
    let (mut subscriptions, mut now) = confirmed(&["a", "b"]);
    for pause in [60, 120, 240] {
        assert_eq!(subscriptions.refused("b", now), Some(SECOND * pause));
        now += SECOND * pause;
        assert_eq!(subscriptions.poll(now - SECOND), None);
        assert_eq!(subscriptions.poll(now), Some(Asking::Subscribe(vec!["b".into()])));
        assert_eq!(subscriptions.counts(), Counts { wanted: 2, confirmed: 1, refused: 1, ..Counts::default() });
    }
    assert!(subscriptions.confirmed("b"));
    assert_eq!(subscriptions.refused("b", now), Some(SECOND * 60), "it was served in between");
}

#[test]
fn words_about_a_channel_that_nobody_knows_change_nothing() {
    let (mut subscriptions, now) = confirmed(&["a"]);
    assert!(
        !subscriptions.confirmed("x")
            && subscriptions.refused("x", now).is_none()
            && !subscriptions.unsubscribed("x", now)
    );
    assert_eq!(subscriptions.counts(), Counts { wanted: 1, confirmed: 1, ..Counts::default() });
}

fn subscriptions(channels: &[&str]) -> (Subscriptions, Instant) {
    let now = Instant::now();
    let mut subscriptions = Subscriptions::new(&Limits::default(), TIMEOUT);
    let channels: Vec<String> = channels.iter().map(|&name| name.to_owned()).collect();
    subscriptions.want(&channels, now);
    (subscriptions, now)
}

fn confirmed(channels: &[&str]) -> (Subscriptions, Instant) {
    let (mut subscriptions, now) = subscriptions(channels);
    subscriptions.ready(now);
    while subscriptions.poll(now).is_some() {}
    for channel in channels {
        assert!(subscriptions.confirmed(channel));
    }
    (subscriptions, now)
}

fn names(asking: &Asking) -> &[Arc<str>] {
    match asking {
        Asking::Subscribe(names) | Asking::Unsubscribe(names) => names,
    }
}
