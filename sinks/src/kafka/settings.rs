//! The settings of the client library that are the sink's own.

const EXACTLY_ONCE: &str = "rows and position are one transaction of an idempotent producer";
const READS: &str = "it reads the position, and what is committed, in its own way";

/// Settings that exactly-once rests on, or that have a key of their own, with the reason.
pub(super) const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "write `brokers`"),
    ("metadata.broker.list", "write `brokers`"),
    ("compression.type", "write `compression`"),
    ("compression.codec", "write `compression`"),
    ("linger.ms", "write `linger`"),
    ("queue.buffering.max.ms", "write `linger`"),
    ("transaction.timeout.ms", "write `transaction_timeout`"),
    ("transactional.id", "it is made of the names of pipeline and sink, so that the next start finds it"),
    ("enable.idempotence", EXACTLY_ONCE),
    ("enable.gapless.guarantee", EXACTLY_ONCE),
    ("acks", EXACTLY_ONCE),
    ("request.required.acks", EXACTLY_ONCE),
    ("isolation.level", READS),
    ("group.id", READS),
    ("group.instance.id", READS),
    ("group.protocol", READS),
    ("enable.auto.commit", READS),
    ("enable.auto.offset.store", READS),
    ("enable.partition.eof", READS),
    ("auto.offset.reset", READS),
    (
        "allow.auto.create.topics",
        "a topic that vanished is not made again silently; `create` makes those that never were",
    ),
    ("plugin.library.paths", "no code is loaded into the program"),
];
