//! The items of an entry on their way into the spool.

use super::{
    Control, MAX_ENTRY, RowHead,
    entry::HEADER,
    head::StreamInfo,
    item::{write_control, write_row},
};

/// So much memory is kept for the next entry.
const KEPT: usize = 8 << 20;

/// The items of one entry, in one reused buffer.
#[derive(Debug, Default)]
pub struct ItemBuffer {
    bytes: Vec<u8>,
    count: u32,
    rows: u32,
    streams: Vec<(u32, StreamInfo)>,
    retired: Vec<u32>,
}

impl ItemBuffer {
    /// Appends a row.
    #[inline]
    pub fn push_row(&mut self, row: &RowHead, bytes: &[u8]) {
        write_row(&mut self.bytes, row, bytes);
        self.count += 1;
        self.rows += 1;
    }

    /// Appends a control item; `false`: the entry would be longer than [`MAX_ENTRY`], and it is left out.
    pub fn push_control(&mut self, control: &Control) -> bool {
        let before = self.bytes.len();
        write_control(&mut self.bytes, control);
        if HEADER + self.bytes.len() > MAX_ENTRY {
            self.bytes.truncate(before);
            return false;
        }
        if let Control::Stream { id, source, key } = control {
            self.streams.push((*id, StreamInfo { source: source.as_str().into(), key: key.clone() }));
        }
        if let Control::Retired { stream } = control {
            self.retired.push(*stream);
        }
        self.rows += u32::from(matches!(control, Control::Redrive { .. }));
        self.count += 1;
        true
    }

    /// Returns how many items there are: as many offsets as the entry takes.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Returns whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns how many of the items are rows, those that are addressed to one sink too.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Returns the items as they are stored.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Empties the buffer and keeps its memory, unless one entry took far more than others do.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.streams.clear();
        self.retired.clear();
        self.count = 0;
        self.rows = 0;
    }

    /// Returns items that a faulty program has written.
    #[cfg(test)]
    pub(super) fn raw(bytes: &[u8], count: u32) -> Self {
        Self { bytes: bytes.to_vec(), count, ..Self::default() }
    }

    pub(super) fn streams(&self) -> &[(u32, StreamInfo)] {
        &self.streams
    }

    pub(super) fn retired(&self) -> &[u32] {
        &self.retired
    }
}
