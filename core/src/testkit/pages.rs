//! The bytes of a file in memory, page by page, so that what is equal is there once: a copy of a disk costs no copy of its
//! bytes, nor does an fsync.

use std::sync::Arc;

/// How much a disk writes at once.
pub(super) const PAGE: usize = 4096;

type Page = Arc<[u8; PAGE]>;

/// Bytes that grow and shrink. A page without any is all zeros; so is what lies behind the end.
#[derive(Clone, Default)]
pub(super) struct Pages {
    pages: Vec<Option<Page>>,
    len: usize,
}

impl Pages {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut pages = Self::default();
        pages.write(bytes, 0);
        pages
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(&mut bytes, 0);
        bytes
    }

    /// Cuts, or adds zeros.
    pub(super) fn resize(&mut self, len: usize) {
        if len < self.len
            && let Some(Some(last)) = self.pages.get_mut(len / PAGE)
        {
            Arc::make_mut(last)[len % PAGE..].fill(0);
        }
        self.pages.resize(len.div_ceil(PAGE), None);
        self.len = len;
    }

    /// Writes; grows where that is behind the end.
    pub(super) fn write(&mut self, mut bytes: &[u8], mut at: usize) {
        if self.len < at + bytes.len() {
            self.resize(at + bytes.len());
        }
        while !bytes.is_empty() {
            let (page, from) = (at / PAGE, at % PAGE);
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE - from));
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[from..from + now.len()].copy_from_slice(now);
            (bytes, at) = (rest, at + now.len());
        }
    }

    /// Reads what there is; returns how much.
    pub(super) fn read(&self, bytes: &mut [u8], at: usize) -> usize {
        let end = self.len.min(at + bytes.len());
        let mut read = at;
        while read < end {
            let (page, from) = (read / PAGE, read % PAGE);
            let now = (end - read).min(PAGE - from);
            let into = &mut bytes[read - at..read - at + now];
            match &self.pages[page] {
                Some(page) => into.copy_from_slice(&page[from..from + now]),
                None => into.fill(0),
            }
            read += now;
        }
        end.saturating_sub(at)
    }

    pub(super) fn flip(&mut self, byte: usize, bit: u8) {
        if byte < self.len {
            let page = self.pages[byte / PAGE].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[byte % PAGE] ^= 1 << (bit % 8);
        }
    }

    /// Takes a page of a file over, as far as that reaches; what is behind stays.
    pub(super) fn take(&mut self, page: usize, of: &Self) {
        let end = ((page + 1) * PAGE).min(of.len);
        if end <= page * PAGE {
            return;
        }
        if self.len > end && !end.is_multiple_of(PAGE) {
            let mut bytes = vec![0; end - page * PAGE];
            of.read(&mut bytes, page * PAGE);
            return self.write(&bytes, page * PAGE);
        }
        if self.len < end {
            self.resize(end);
        }
        self.pages[page].clone_from(&of.pages[page]);
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Random;

    #[test]
    fn it_is_a_vector_of_bytes_whatever_is_done_with_it() {
        let mut random = Random::new(1);
        let (mut one, mut other) = (Pages::default(), Pages::default());
        let (mut plain, mut second) = (Vec::new(), Vec::new());
        for step in 0..3_000_u32 {
            let at = random.below(3 * PAGE as u64) as usize;
            match random.below(6) {
                0 => {
                    one.resize(at);
                    plain.resize(at, 0);
                }
                1 | 2 => {
                    let bytes = vec![step as u8 | 1; random.below(2 * PAGE as u64) as usize];
                    one.write(&bytes, at);
                    plain.resize(plain.len().max(at + bytes.len()), 0);
                    plain[at..at + bytes.len()].copy_from_slice(&bytes);
                }
                3 => {
                    one.flip(at, 3);
                    plain.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 8);
                }
                4 => {
                    let page = at / PAGE;
                    other.take(page, &one);
                    let (start, end) = (page * PAGE, ((page + 1) * PAGE).min(plain.len()));
                    if start < end {
                        second.resize(second.len().max(end), 0);
                        second[start..end].copy_from_slice(&plain[start..end]);
                    }
                }
                _ => {
                    std::mem::swap(&mut one, &mut other);
                    std::mem::swap(&mut plain, &mut second);
                }
            }
            assert_eq!((one.bytes(), other.bytes()), (plain.clone(), second.clone()), "step {step}");
            let mut some = [7; 100];
            let read = one.read(&mut some, at);
            assert_eq!(some[..read], plain[at.min(plain.len())..(at + 100).min(plain.len())]);
        }
    }
}
