//! What lies long ago takes less room: its stretches are joined, and what they were stays known.

use std::time::Duration;

use sqlx::Connection;

use super::{HEARD, Store, failed};
use crate::{Result, row::Timestamp};

impl Store {
    /// Joins what was settled this long before the last moment of which anything is known: stretches of which all is there,
    /// and which follow on each other, are one; how many of them were filled, or absent, stays known. Stretches of one day that
    /// are lost, or unknown, are one, with how many they were and how long in all; a season later those of thirty days.
    pub(in crate::ledger) async fn compact(&mut self, kept: Duration) -> Result<()> {
        let joined = async {
            let heard: Option<i64> = sqlx::query_scalar(HEARD).fetch_one(&mut self.connection).await?;
            let before = Timestamp(heard.unwrap_or(i64::MIN).saturating_sub(kept.as_nanos() as i64));
            let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query(SETTLE).bind(before.0).execute(&mut *transaction).await?;
            for step in JOIN {
                sqlx::query(step).execute(&mut *transaction).await?;
            }
            for (age, bucket) in [(Duration::ZERO, DAY), (SEASON, THIRTY_DAYS)] {
                let before = before.0.saturating_sub(age.as_nanos() as i64);
                let broken = sqlx::query(BROKEN).bind(before).bind(bucket.as_nanos() as i64);
                broken.execute(&mut *transaction).await?;
                for step in JOIN_BROKEN {
                    sqlx::query(step).execute(&mut *transaction).await?;
                }
            }
            transaction.commit().await
        };
        joined.await.map_err(|error| failed(&self.path, error))
    }
}

/// What is settled: marks that end before a time, of stretches in which all is there, each with what the one before says.
const SETTLE: &str = "
CREATE TEMP TABLE settled AS SELECT stream, start, state, before FROM (
    SELECT stream, start, state,
        lag(state) OVER (PARTITION BY stream ORDER BY start) AS before,
        lead(start) OVER (PARTITION BY stream ORDER BY start) AS until
    FROM marks)
WHERE until < ?1 AND state IN ('received', 'backfilled', 'absent')";

/// Keeps the counts, and makes one of the stretches that follow on each other.
const JOIN: [&str; 4] = [
    "UPDATE streams SET filled = streams.filled + counts.filled, absent = streams.absent + counts.absent
     FROM (SELECT stream, sum(state = 'backfilled') AS filled, sum(state = 'absent') AS absent FROM settled GROUP BY stream)
         AS counts
     WHERE counts.stream = streams.id",
    "UPDATE marks SET state = 'received', why = NULL
     WHERE (stream, start) IN (SELECT stream, start FROM settled WHERE state <> 'received')",
    "DELETE FROM marks WHERE (stream, start) IN
         (SELECT stream, start FROM settled WHERE before IN ('received', 'backfilled', 'absent'))",
    "DROP TABLE settled",
];

/// Runs of lost or unknown stretches of one stream that begin in the same `?2` nanoseconds, end before `?1`, and have nothing
/// but what is received between them.
const BROKEN: &str = "
CREATE TEMP TABLE broken AS
SELECT stream, min(start) AS first, max(start) AS last, sum(coalesce(parts, 1)) AS parts,
    sum(coalesce(lasted, until - start)) AS lasted, min(why) AS why, count(DISTINCT why) AS reasons
FROM (
    SELECT *, sum(is_first) OVER (PARTITION BY stream ORDER BY start) AS run FROM (
        SELECT stream, start, state, why, parts, lasted, until,
            state NOT IN ('lost', 'unknown') OR until IS NULL OR until >= ?1 OR lag(state) OVER earlier IS NOT state
                OR lag(start / ?2) OVER earlier IS NOT start / ?2 AS is_first
        FROM (SELECT *, lead(start) OVER (PARTITION BY stream ORDER BY start) AS until FROM marks)
        WHERE state <> 'received'
        WINDOW earlier AS (PARTITION BY stream ORDER BY start)))
GROUP BY stream, run HAVING count(*) > 1";

/// Makes one stretch of each run. Of reasons that differ it names one, and how many they are.
const JOIN_BROKEN: [&str; 3] = [
    "UPDATE marks SET parts = broken.parts, lasted = broken.lasted,
         why = CASE WHEN broken.reasons < 2 THEN broken.why ELSE broken.reasons || ' reasons, one of them: ' || broken.why END
     FROM broken WHERE marks.stream = broken.stream AND marks.start = broken.first",
    "DELETE FROM marks WHERE EXISTS (SELECT 1 FROM broken
         WHERE broken.stream = marks.stream AND marks.start > broken.first AND marks.start <= broken.last)",
    "DROP TABLE broken",
];

/// Stretches that begin in so long are joined first,
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// and later those that begin in so long,
const THIRTY_DAYS: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// when they are so much older.
const SEASON: Duration = Duration::from_secs(90 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::{super::*, *};
    use crate::ledger::{Coverage, Keeper, fold::NOBODY};

    #[tokio::test]
    async fn what_is_settled_and_follows_on_each_other_becomes_one_stretch_and_what_is_lost_or_new_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.sqlite");
        let mut store = Store::open(&path, Owner { pipeline: "p".to_owned(), spool: 10 }).await.unwrap();
        let streams = "INSERT INTO streams (id, source, tbl, symbol, listing, received, backfilled)
            VALUES (1, 's', 't', 'A', '', 0, 0), (2, 's', 't', 'B', '', 0, 0)";
        sqlx::query(streams).execute(&mut store.connection).await.unwrap();
        let marks = [
            (
                1,
                "received0 backfilled10 received20 absent30 received40 lost50 backfilled60 received70 backfilled100 received110",
            ),
            (2, "unknown0 received10 unknown20 received30"),
        ];
        for (stream, marks) in marks {
            for mark in marks.split(' ') {
                let at = mark.find(|digit: char| digit.is_ascii_digit()).unwrap();
                let insert = sqlx::query("INSERT INTO marks (stream, start, state) VALUES (?, ?, ?)").bind(stream);
                let insert = insert.bind(mark[at..].parse::<i64>().unwrap()).bind(&mark[..at]);
                insert.execute(&mut store.connection).await.unwrap();
            }
        }
        for _twice_is_once in 0..2 {
            store.compact(Duration::from_nanos(20)).await.unwrap();
            let mut shown = Vec::new();
            for stream in [1, 2] {
                let marks = "SELECT group_concat(state || start, ' ') FROM
                    (SELECT state, start FROM marks WHERE stream = ? ORDER BY start)";
                let marks: String =
                    sqlx::query_scalar(marks).bind(stream).fetch_one(&mut store.connection).await.unwrap();
                shown.push(marks);
            }
            let first = "received0 lost50 received60 received70 backfilled100 received110";
            assert_eq!(shown, [first, "unknown0 received30"]);
            let of: (i64, i64) = sqlx::query_as("SELECT parts, lasted FROM marks WHERE parts IS NOT NULL")
                .fetch_one(&mut store.connection)
                .await
                .unwrap();
            assert_eq!(of, (2, 20), "two stretches of ten in a stretch of thirty");
            let counts: (i64, i64) = sqlx::query_as("SELECT filled, absent FROM streams WHERE id = 1")
                .fetch_one(&mut store.connection)
                .await
                .unwrap();
            assert_eq!(counts, (2, 1), "how often something was filled stays known");
        }
    }

    /// A year of a stream that is cut eight times a day for five seconds, of which the venue repeats nothing, and once a month for
    /// longer than the venue remembers.
    #[tokio::test]
    async fn a_year_of_cuts_takes_the_room_of_a_season_and_its_counts_and_seconds_stay_exact() {
        const STREAMS: i64 = 8;
        const CUTS: i64 = 8;
        let (day, second) = (DAY.as_nanos() as i64, 1_000_000_000_i64);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.sqlite");
        let mut store = Store::open(&path, Owner { pipeline: "p".to_owned(), spool: 10 }).await.unwrap();
        let streams = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?)
            INSERT INTO streams (id, source, tbl, symbol, listing, received, backfilled) SELECT n, 's', 't', n, '', 0, 0 FROM n";
        sqlx::query(streams).bind(STREAMS).execute(&mut store.connection).await.unwrap();
        let marks = "INSERT INTO marks (stream, start, state) SELECT id, 0, 'received' FROM streams";
        sqlx::query(marks).execute(&mut store.connection).await.unwrap();
        let used = async |store: &mut Store| -> i64 {
            let pages = "SELECT (page_count - freelist_count) * page_size
                FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
            sqlx::query_scalar(pages).fetch_one(&mut store.connection).await.unwrap()
        };
        let mut sizes = Vec::new();
        for today in 0..365_i64 {
            let state = if today % 30 == 7 { ("lost", "the venue forgot") } else { ("unknown", NOBODY) };
            let cut = "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < ?1 - 1)
                INSERT INTO marks (stream, start, state, why) SELECT id, ?2 + n * ?3, ?4, ?5 FROM streams, n
                UNION ALL SELECT id, ?2 + n * ?3 + ?6, 'received', NULL FROM streams, n";
            let at = today * day + 3_600 * second;
            let cut = sqlx::query(cut).bind(CUTS).bind(at).bind(day / 10).bind(state.0).bind(state.1);
            cut.bind(5 * second).execute(&mut store.connection).await.unwrap();
            if today % 5 == 4 {
                store.compact(14 * DAY).await.unwrap();
            }
            if today % 30 == 29 {
                sizes.push(used(&mut store).await);
            }
        }
        println!("bytes of the ledger of {STREAMS} streams after each of {} months: {sizes:?}", sizes.len());
        let (season, year) = (sizes[3], sizes[11]);
        assert!(year < season + season / 4, "eight months more take hardly more room: {sizes:?}");

        store.close().await.unwrap();
        let coverage = Coverage::read(&path, None, Keeper::Recording).await.unwrap();
        let lost_days = (0..365).filter(|day| day % 30 == 7).count();
        let [kind] = &coverage.kinds[..] else { panic!("one table: {:?}", coverage.kinds) };
        assert_eq!(kind.lost, lost_days * (CUTS * STREAMS) as usize, "each stretch is counted");
        assert_eq!(kind.lost_seconds, (lost_days as i64 * CUTS * 5) as f64, "and how long it was");
        assert_eq!(kind.unknown_seconds, ((365 - lost_days as i64) * CUTS * 5) as f64);
        for stream in &coverage.streams {
            let joined = stream.intervals.iter().filter_map(|one| one.joined.map(|joined| (one.state, joined.parts)));
            assert!(joined.clone().any(|(state, parts)| state == State::Lost && parts == CUTS as usize));
            assert!(joined.clone().any(|(state, parts)| state == State::Unknown && parts > 100), "of thirty days");
            assert!(stream.intervals.len() < 500, "{}", stream.intervals.len());
        }
        // What has lately been is as it was.
        let late = Some(Timestamp(360 * day));
        let coverage = Coverage::read(&path, late, Keeper::Recording).await.unwrap();
        assert!(coverage.streams.iter().all(|stream| stream.intervals.iter().all(|one| one.joined.is_none())));
        assert_eq!(coverage.kinds[0].unknown_seconds, (5 * CUTS * 5) as f64);
    }
}
