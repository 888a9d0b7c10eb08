//! What the data of each channel become: rows.

use tidegate_core::{Error, Result, protocol::Outbox, row::kinds};

use super::message::{Book, BookTop, PriceIndex, Quote, Ticker, Trade};

/// What is said of a value that should be a number.
const NO_NUMBER: &str = "a value that is no number";

/// Refuses data of another instrument or index than the channel's: they would make a stream that nobody follows.
///
/// # Errors
///
/// `Malformed` when they are.
#[inline]
pub(super) fn belongs(symbol: &str, subject: &str) -> Result<()> {
    if symbol == subject { Ok(()) } else { Err(Error::malformed("data of another instrument than the channel's")) }
}

/// Emits a ticker.
///
/// # Errors
///
/// `Malformed` for a negative amount, or another instrument.
#[inline]
pub(super) fn on_ticker(ticker: &Ticker<'_>, subject: &str, out: &mut Outbox) -> Result<()> {
    belongs(ticker.mark().symbol, subject)?;
    let mut odd = 0;
    out.emit(ticker.mark(), &ticker.row(&mut odd)?);
    ignore_odd(odd, out);
    Ok(())
}

/// Emits trades.
#[inline]
pub(super) fn on_trades<'t, 'f: 't>(trades: impl IntoIterator<Item = &'t Trade<'f>>, out: &mut Outbox) {
    let mut odd = 0;
    for trade in trades {
        out.emit(trade.mark(), &trade.row(&mut odd));
    }
    ignore_odd(odd, out);
}

/// Emits a quote.
///
/// # Errors
///
/// `Malformed` for a negative amount, or another instrument.
#[inline]
pub(super) fn on_quote(quote: &Quote<'_>, subject: &str, out: &mut Outbox) -> Result<()> {
    belongs(quote.mark().symbol, subject)?;
    let mut odd = 0;
    out.emit(quote.mark(), &quote.row(&mut odd)?);
    ignore_odd(odd, out);
    Ok(())
}

/// Emits a snapshot of a book, or changes of it.
///
/// # Errors
///
/// `Malformed` for a change that does not say of what, or another instrument.
#[inline]
pub(super) fn on_book(mut book: Book<'_>, subject: &str, out: &mut Outbox) -> Result<()> {
    let prev = book.prev()?;
    belongs(book.mark(prev).symbol, subject)?;
    let snapshot = prev.is_none();
    if snapshot {
        book.sort();
    }
    let (bids, asks) = book.levels();
    out.emit(book.mark(prev), &kinds::BookChange { snapshot, bids, asks });
    Ok(())
}

/// Emits the top of a book.
///
/// # Errors
///
/// `Malformed` for another instrument.
#[inline]
pub(super) fn on_book_top(mut top: BookTop<'_>, subject: &str, out: &mut Outbox) -> Result<()> {
    belongs(top.mark().symbol, subject)?;
    top.sort();
    let (bids, asks) = top.levels();
    out.emit(top.mark(), &kinds::BookTop { bids, asks });
    Ok(())
}

/// Emits the price of an index.
///
/// # Errors
///
/// `Malformed` for another index.
#[inline]
pub(super) fn on_index(index: &PriceIndex<'_>, subject: &str, out: &mut Outbox) -> Result<()> {
    belongs(index.mark().symbol, subject)?;
    out.emit(index.mark(), &kinds::Index { price: index.price });
    Ok(())
}

fn ignore_odd(odd: u32, out: &mut Outbox) {
    (0..odd).for_each(|_| out.ignore(NO_NUMBER));
}
