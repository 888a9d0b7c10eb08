//! A venue with an oracle: it makes records, forgets them, answers late, and loses what is on the wire when a line is cut.

use std::collections::VecDeque;

use crate::row::{Numbering, Position};

/// Where each numbering of a stream begins: no numbering goes on, by accident, where the one before was left.
const BEGINS: [u64; 4] = [1_000, 400, 150, 1];

/// A record that the venue made. Its place in `Market::made` is its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) stream: usize,
    pub(crate) n: u64,
    pub(crate) ts: i64,
    pub(crate) epoch: u32,
}

/// One stream of the venue.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) numbering: Numbering,
    next: u64,
    epoch: u32,
    /// Numbers that the venue left out, as (epoch, number).
    pub(crate) skipped: Vec<(u32, u64)>,
    /// No record of the present numbering was made before.
    begun: i64,
}

/// What travels to the host on one line, in order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sent {
    Confirmed { stream: usize, at: i64 },
    Record(usize),
}

#[derive(Debug)]
pub(crate) struct Market {
    pub(crate) now: i64,
    pub(crate) made: Vec<Made>,
    pub(crate) books: Vec<Book>,
}

/// A connection and what is under way on it.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// The host's number of the session, while it is up.
    pub(crate) session: Option<u32>,
    pub(crate) subscribed: Vec<usize>,
    pub(crate) wire: VecDeque<Sent>,
}

impl Book {
    /// Returns how often it was numbered anew.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }
}

impl Market {
    pub(crate) fn new(numberings: &[Numbering]) -> Self {
        let book = |&numbering| Book { numbering, next: BEGINS[0], epoch: 0, skipped: Vec::new(), begun: 0 };
        Self { now: 1_000, made: Vec::new(), books: numberings.iter().map(book).collect() }
    }

    /// Makes the next record of a stream; one with `skip` leaves out a number first.
    ///
    /// It was made `early` before now: times need not grow with the numbers.
    pub(crate) fn make(&mut self, stream: usize, skip: bool, early: i64) -> usize {
        let book = &mut self.books[stream];
        if skip {
            book.skipped.push((book.epoch, book.next));
            book.next += 1;
        }
        self.made.push(Made { stream, n: book.next, ts: (self.now - early).max(book.begun), epoch: book.epoch });
        book.next += 1;
        self.made.len() - 1
    }

    /// Numbers a stream anew, some times: from a smaller number on, and clearly later than the last record.
    pub(crate) fn restart(&mut self, stream: usize) {
        let book = &mut self.books[stream];
        let next = BEGINS.get(book.epoch as usize + 1);
        if let Some(next) = next.filter(|_| book.numbering == Numbering::Sequence) {
            book.epoch += 1;
            book.next = *next;
            self.now += 3;
            book.begun = self.now;
        }
    }

    pub(crate) fn position(&self, record: usize) -> Position {
        let made = self.made[record];
        match self.books[made.stream].numbering {
            Numbering::Ordered => Position::Ordered(made.n),
            Numbering::Unnumbered => Position::Unnumbered,
            Numbering::Sequence | Numbering::Linked => Position::Sequence(made.n),
        }
    }

    /// Answers a request: all records of a stream between two times, as far as they are neither too new for the history
    /// (`lag`) nor forgotten (older than `memory`), with the newest one before if that was asked for.
    pub(crate) fn history(
        &self,
        stream: usize,
        (from, to): (i64, i64),
        neighbour: bool,
        (lag, memory): (i64, i64),
    ) -> Vec<usize> {
        let visible = |made: &Made| made.ts <= self.now - lag && made.ts >= self.now - memory;
        let of_stream = || (0..self.made.len()).filter(|&r| self.made[r].stream == stream && visible(&self.made[r]));
        let before = of_stream().rfind(|&record| self.made[record].ts < from).filter(|_| neighbour);
        before.into_iter().chain(of_stream().filter(|&r| (from..=to).contains(&self.made[r].ts))).collect()
    }
}
