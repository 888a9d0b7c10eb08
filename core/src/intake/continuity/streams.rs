//! Streams by their numbers, which are given once and never again.

use super::stream::Stream;

/// So many numbers at once nobody can have missed: one that is farther away was written by a faulty program.
const FARTHEST: u32 = 1 << 20;

/// All streams that are known. A number without one was given up, or the item that says what it stands for is lost.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Box<Stream>>>,
    /// Above every number that was seen.
    next: u32,
}

impl Streams {
    /// Returns no stream, where the numbers below `next` are taken.
    pub(super) fn from(next: u32) -> Self {
        Self { slots: Vec::new(), next }
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&Stream> {
        self.slots.get(id as usize)?.as_deref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        self.slots.get_mut(id as usize)?.as_deref_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Stream)> {
        (0..).zip(&self.slots).filter_map(|(id, slot)| Some((id, slot.as_deref()?)))
    }

    /// Returns the number that the next new stream gets.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Notes that a number is taken; returns whether it can be one.
    pub(super) fn note(&mut self, id: u32) -> bool {
        let is_near = id < self.next.saturating_add(FARTHEST) && id < u32::MAX;
        if is_near {
            self.next = self.next.max(id + 1);
        }
        is_near
    }

    /// Puts a stream under its number, unless that stands for another one; returns whether it was put there.
    pub(super) fn insert(&mut self, id: u32, stream: Stream) -> bool {
        if !self.note(id) {
            return false;
        }
        let at = id as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        let is_free = self.slots[at].is_none();
        if is_free {
            self.slots[at] = Some(Box::new(stream));
        }
        is_free
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Box<Stream>> {
        self.slots.get_mut(id as usize)?.take()
    }

    /// Forgets the numbers from `next` on, and returns their streams.
    pub(super) fn take_back(&mut self, next: u32) -> impl Iterator<Item = Box<Stream>> {
        self.next = next;
        let kept = self.slots.len().min(next as usize);
        self.slots.drain(kept..).flatten()
    }
}

impl PartialEq for Streams {
    fn eq(&self, other: &Self) -> bool {
        self.next == other.next && self.iter().eq(other.iter())
    }
}
