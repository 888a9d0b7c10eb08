//! Frame → durable log through the running intake, beside a plain file that gets the same bytes.

use std::{
    fs::File,
    hint::black_box,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use tidegate_core::intake::{self, Link, LinkId};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Spent, Stopwatch},
    effort::Effort,
    feeder::{self, Feeder},
    frames::{Feed, Kind},
    table::{Table, at_least, thousands},
};

/// The driver reads at most so many frames before it looks at anything else.
const BURST: usize = 64;

pub(crate) fn run(effort: Effort, folder: &Path) {
    let mut table = Table::new(&[
        "rows",
        "a second of CPU",
        "target",
        "a second",
        "log",
        "plain file + fdatasync, a second",
        "share",
    ]);
    for kind in effort.kinds() {
        let target = if kind == Kind::Tickers { 500.0 } else { 800.0 };
        let feed = Feed::own(kind, effort.durable);
        let mut best: Option<(Spent, Spent)> = None;
        let mut bytes = 0;
        for _ in 0..effort.rounds.div_ceil(2) {
            let (ours, written) = log(&feed, folder);
            let bare = plain(written, feed.frames.len().div_ceil(BURST), folder);
            best = Some(best.map_or((ours, bare), |best| (best.0.best(ours), best.1.best(bare))));
            bytes = written;
        }
        let Some((ours, bare)) = best else { continue };
        let per_core = feed.rows as f64 / ours.cpu.as_secs_f64() / 1e3;
        table.line([
            feed.name.clone(),
            thousands(feed.rows, ours.cpu.as_secs_f64()),
            at_least(per_core.round(), target),
            thousands(feed.rows, ours.wall.as_secs_f64()),
            format!("{} B a row", bytes / feed.rows as u64),
            thousands(feed.rows, bare.wall.as_secs_f64()),
            format!("{:.2}", bare.wall.as_secs_f64() / ours.wall.as_secs_f64()),
        ]);
    }
    table.print("2. frame → durable log: link, intake, spool and its fsyncs, the task as a pipeline runs it; one thread but for fsyncs");
}

/// Feeds frames to a running intake, until all is durable; returns the length of the log too.
fn log(feed: &Feed, folder: &Path) -> (Spent, u64) {
    let folder = tempfile::tempdir_in(folder).expect("a folder for files");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let spent = runtime.block_on(async {
        let started = intake::start(feeder::setup(folder.path())).await.expect("a new spool");
        let (mut running, queue) = started.run(Vec::new(), CancellationToken::new());
        let link = Link::new(LinkId { source: 0, line: 0 }, feeder::tables(), queue, usize::MAX);
        let mut feeder = Feeder::begin(link, feed);
        feeder.link().logged().await.expect("intake is there");
        let watch = Stopwatch::of_all_threads();
        for burst in feed.frames.chunks(BURST) {
            burst.iter().for_each(|frame| feeder.read(frame));
            let link = feeder.link();
            link.hand_over().expect("intake is there");
            if link.is_pending() {
                link.handed_over().await.expect("intake is there");
            }
            // One thread: intake has its turn now.
            tokio::task::yield_now().await;
        }
        let logged = feeder.link().logged().await.expect("intake is there");
        running.synced_offset.wait_for(|synced| *synced >= logged).await.expect("intake is there");
        let spent = watch.read();
        drop(feeder);
        running.task.await.expect("no panic").expect("the disk works");
        spent
    });
    (spent, length(folder.path()))
}

/// Appends as many bytes in as many pieces to a file, and makes them durable in the same way: the next fdatasync begins
/// when the last one has ended.
fn plain(bytes: u64, pieces: usize, folder: &Path) -> Spent {
    let file = tempfile::tempfile_in(folder).expect("a file");
    let piece = vec![b'x'; usize::try_from(bytes).unwrap_or(0) / pieces];
    let written = Arc::new(AtomicU64::new(0));
    let watch = Stopwatch::of_all_threads();
    let (wake, woken) = mpsc::sync_channel(1);
    let (sink, seen) = (file.try_clone().expect("the same file"), written.clone());
    let syncs = std::thread::spawn(move || {
        while woken.recv().is_ok() {
            black_box(seen.load(Ordering::Acquire));
            sink.sync_data().expect("the disk works");
        }
    });
    append(&file, &piece, pieces, &|| {
        written.fetch_add(piece.len() as u64, Ordering::Release);
        // Full: the thread will see it when it comes back.
        _ = wake.try_send(());
    });
    drop(wake);
    syncs.join().expect("no panic");
    file.sync_data().expect("the disk works");
    watch.read()
}

fn append(mut file: &File, piece: &[u8], pieces: usize, done: &dyn Fn()) {
    for _ in 0..pieces {
        file.write_all(piece).expect("the disk works");
        done();
    }
}

fn length(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).expect("the folder is there").filter_map(Result::ok);
    let lengths = files.filter_map(|file| file.metadata().ok()).map(|file| file.len());
    lengths.sum::<u64>()
}
