//! The compact form of values, both ways.

use super::{Cell, ColumnType, Label, Level, Timestamp};

macro_rules! number {
    ($type:ty, $column:ident) => {
        impl Cell for $type {
            const TYPE: ColumnType = ColumnType::$column;

            #[inline]
            fn write(&self, bytes: &mut Vec<u8>) -> bool {
                bytes.extend_from_slice(&self.to_le_bytes());
                true
            }
        }
    };
}

number!(f64, F64);
number!(i64, I64);
number!(u64, U64);

impl Cell for Timestamp {
    const TYPE: ColumnType = ColumnType::Time;

    #[inline]
    fn write(&self, bytes: &mut Vec<u8>) -> bool {
        self.0.write(bytes)
    }
}

impl Cell for bool {
    const TYPE: ColumnType = ColumnType::Bool;

    #[inline]
    fn write(&self, bytes: &mut Vec<u8>) -> bool {
        bytes.push(u8::from(*self));
        true
    }
}

impl Cell for &str {
    const TYPE: ColumnType = ColumnType::Text;

    #[inline]
    fn write(&self, bytes: &mut Vec<u8>) -> bool {
        bytes.extend_from_slice(&(self.len() as u32).to_le_bytes());
        bytes.extend_from_slice(self.as_bytes());
        true
    }
}

impl Cell for Label<'_> {
    const TYPE: ColumnType = ColumnType::Label;

    #[inline]
    fn write(&self, bytes: &mut Vec<u8>) -> bool {
        self.0.write(bytes)
    }
}

impl Cell for &[Level] {
    const TYPE: ColumnType = ColumnType::Levels;

    #[inline]
    fn write(&self, bytes: &mut Vec<u8>) -> bool {
        bytes.extend_from_slice(&(self.len() as u32).to_le_bytes());
        for level in *self {
            bytes.extend_from_slice(&level.price.to_le_bytes());
            bytes.extend_from_slice(&level.size.to_le_bytes());
        }
        true
    }
}

impl Cell for &[i64] {
    const TYPE: ColumnType = ColumnType::ListI64;

    #[inline]
    fn write(&self, bytes: &mut Vec<u8>) -> bool {
        bytes.extend_from_slice(&(self.len() as u32).to_le_bytes());
        for number in *self {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        true
    }
}

impl<C: Cell> Cell for Option<C> {
    const TYPE: ColumnType = C::TYPE;
    const NULLABLE: bool = true;

    #[inline]
    fn write(&self, bytes: &mut Vec<u8>) -> bool {
        self.as_ref().is_some_and(|value| value.write(bytes))
    }
}

/// Reads values back from bytes whose checksum was good. Every read is checked all the same: an entry that is whole but
/// was written by a faulty program gives `None`, never a panic.
#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Returns a reader of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns what was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Takes the next `n` bytes.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    /// Takes a byte.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    /// Takes a `u32`.
    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// Takes a `u64`.
    #[inline]
    pub fn u64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// Takes an `i64`.
    #[inline]
    pub fn i64(&mut self) -> Option<i64> {
        self.u64().map(u64::cast_signed)
    }

    /// Takes an `f64`.
    #[inline]
    pub fn f64(&mut self) -> Option<f64> {
        self.u64().map(f64::from_bits)
    }

    /// Takes a text.
    #[inline]
    pub fn text(&mut self) -> Option<&'a str> {
        let len = self.u32()? as usize;
        std::str::from_utf8(self.bytes(len)?).ok()
    }
}
