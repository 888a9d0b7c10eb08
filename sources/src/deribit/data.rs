//! What the data of each channel become: rows.

use tidegate_core::{Result, protocol::Outbox, row::kinds};

use super::message::{Book, BookTop, PriceIndex, Quote, Ticker, Trade};

/// What is said of a value that should be a number.
const NO_NUMBER: &str = "a value that is no number";

/// Emits a ticker.
///
/// # Errors
///
/// `Malformed` for a negative amount.
#[inline]
pub(super) fn on_ticker(ticker: &Ticker<'_>, out: &mut Outbox) -> Result<()> {
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
/// `Malformed` for a negative amount.
#[inline]
pub(super) fn on_quote(quote: &Quote<'_>, out: &mut Outbox) -> Result<()> {
    let mut odd = 0;
    out.emit(quote.mark(), &quote.row(&mut odd)?);
    ignore_odd(odd, out);
    Ok(())
}

/// Emits a snapshot of a book, or changes of it.
///
/// # Errors
///
/// `Malformed` for a change that does not say of what.
#[inline]
pub(super) fn on_book(mut book: Book<'_>, out: &mut Outbox) -> Result<()> {
    let prev = book.prev()?;
    let snapshot = prev.is_none();
    if snapshot {
        book.sort();
    }
    let (bids, asks) = book.levels();
    out.emit(book.mark(prev), &kinds::BookChange { snapshot, bids, asks });
    Ok(())
}

/// Emits the top of a book.
#[inline]
pub(super) fn on_book_top(mut top: BookTop<'_>, out: &mut Outbox) {
    top.sort();
    let (bids, asks) = top.levels();
    out.emit(top.mark(), &kinds::BookTop { bids, asks });
}

/// Emits the price of an index.
#[inline]
pub(super) fn on_index(index: &PriceIndex<'_>, out: &mut Outbox) {
    out.emit(index.mark(), &kinds::Index { price: index.price });
}

fn ignore_odd(odd: u32, out: &mut Outbox) {
    (0..odd).for_each(|_| out.ignore(NO_NUMBER));
}
