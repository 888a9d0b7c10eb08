//! Confirms what was read: asks for the ids of topics, of the brokers whose messages wait for it in windows.
//!
//! A broker knows that a topic was made again before it gives a message of it, so its answer to a question that was asked later
//! says whose the message was. Each broker is asked one question at a time, for all windows.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{
    client::{Monitor, boot},
    member::Partition,
    window::{Unconfirmed, Window},
};

/// Asks for all windows of a source.
pub(super) struct Confirmer {
    monitor: Arc<Monitor>,
    windows: Mutex<Vec<(Partition, Weak<Window>)>>,
    bell: Arc<Notify>,
}

/// A window that waits for an answer.
struct Waiting {
    partition: Partition,
    window: Arc<Window>,
    unconfirmed: Unconfirmed,
}

impl Confirmer {
    pub(super) fn new(monitor: Arc<Monitor>) -> Self {
        Self { monitor, windows: Mutex::default(), bell: Arc::default() }
    }

    /// Returns what a window rings when there is something to confirm.
    pub(super) fn bell(&self) -> Arc<Notify> {
        self.bell.clone()
    }

    /// Confirms what a window gets, as long as there is one.
    pub(super) fn add(&self, partition: Partition, window: &Arc<Window>) {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).push((partition, Arc::downgrade(window)));
        self.bell.notify_one();
    }

    /// Asks whenever something waits.
    pub(super) async fn run(&self) -> Infallible {
        let (mut questions, mut asked) = (FuturesUnordered::new(), BTreeSet::new());
        loop {
            for (broker, waiting) in self.waiting() {
                if asked.insert(broker) {
                    questions.push(ask(self.monitor.clone(), broker, waiting));
                }
            }
            tokio::select! {
                () = self.bell.notified() => {}
                Some(broker) = questions.next() => {
                    asked.remove(&broker);
                }
            }
        }
    }

    /// Returns the windows that wait, by the broker that is to be asked.
    fn waiting(&self) -> BTreeMap<i32, Vec<Waiting>> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.retain(|(_, window)| window.strong_count() > 0);
        let mut all: BTreeMap<i32, Vec<Waiting>> = BTreeMap::new();
        for (partition, window) in &*windows {
            let Some(window) = window.upgrade() else { continue };
            let Some(unconfirmed) = window.unconfirmed() else { continue };
            let partition = partition.clone();
            all.entry(unconfirmed.broker).or_default().push(Waiting { partition, window, unconfirmed });
        }
        all
    }
}

/// Asks a broker one question, pauses, and returns it for the next one.
async fn ask(monitor: Arc<Monitor>, broker: i32, waiting: Vec<Waiting>) -> i32 {
    let began = Instant::now();
    let topics: BTreeSet<String> = waiting.iter().map(|waiting| waiting.partition.0.clone()).collect();
    let question = spawn_blocking(move || {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        monitor.topic_ids(broker, &topics)
    });
    let answer = match question.await {
        Ok(answer) => answer.map_err(|error| error.chain()),
        Err(panic) => Err(panic.to_string()),
    };
    let (took, mut is_known) = (began.elapsed(), true);
    for Waiting { partition: (topic, number), window, unconfirmed } in waiting {
        match &answer {
            Ok(ids) => match ids.get(&topic) {
                Some(id) => window.confirm(unconfirmed, boot(*id, &topic, number)),
                None => {
                    is_known = false;
                    window.trouble(format!("topic `{topic}` is not there"));
                }
            },
            Err(why) => {
                is_known = false;
                window.doubt(unconfirmed, why.clone());
            }
        }
    }
    // Questions may take no more than a fifth of a broker's time.
    sleep(if is_known { EVERY.max(4 * took) } else { AGAIN }).await;
    broker
}

/// How often a broker is asked at most.
const EVERY: Duration = Duration::from_millis(20);

/// How long it is left alone when it could not say.
const AGAIN: Duration = Duration::from_millis(500);
