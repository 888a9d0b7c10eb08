//! JSON as venues write it, read in one pass and borrowed from the frame, through serde.
//!
//! Most of what serde_json does with a small object is to find out which member a name is. A venue writes the members of a
//! message in the same order for months, so here the name that followed the last time is looked for first
//! ([`Orders`]); any other order is read all the same.
//!
//! What is read means what serde_json says that it means; what is written in a rarer way (escapes in a text, whole numbers
//! of twenty digits, a struct as a list) or is no JSON is [`Unread`], and its caller asks serde_json, whose word counts.

mod de;
mod number;
mod order;

#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use self::order::Orders;

/// So deep may a value lie.
const MAX_DEPTH: u8 = 32;

/// A text that is read.
#[derive(Debug)]
pub(crate) struct Reader<'de, 'o> {
    text: &'de str,
    at: usize,
    depth: u8,
    orders: &'o mut Orders,
}

/// The text is no JSON, is not of the type, or is written in a way that is not read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread;

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not read")
    }
}

impl std::error::Error for Unread {}

impl serde::de::Error for Unread {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de, 'o> Reader<'de, 'o> {
    /// Begins with a text; `orders` are those of the frames before.
    #[inline]
    pub(crate) fn new(text: &'de str, orders: &'o mut Orders) -> Self {
        Self { text, at: 0, depth: 0, orders }
    }

    /// Checks that nothing follows.
    ///
    /// # Errors
    ///
    /// [`Unread`] where something does.
    #[inline]
    pub(crate) fn end(mut self) -> Result<(), Unread> {
        self.peek();
        if self.at == self.text.len() { Ok(()) } else { Err(Unread) }
    }

    /// Returns the first byte of the next token.
    #[inline]
    fn peek(&mut self) -> u8 {
        while let b' ' | b'\n' | b'\r' | b'\t' = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    /// Returns the next byte.
    #[inline]
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(END)
    }

    /// Takes a token of one byte.
    #[inline]
    fn token(&mut self, token: u8) -> Result<(), Unread> {
        if self.peek() != token {
            return Err(Unread);
        }
        self.at += 1;
        Ok(())
    }

    /// Takes `null`, `true` or `false`.
    #[inline]
    fn word(&mut self, word: &str) -> Result<(), Unread> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Unread);
        }
        self.at += word.len();
        Ok(())
    }

    /// Takes a text without escapes.
    #[inline]
    fn string(&mut self) -> Result<&'de str, Unread> {
        self.token(b'"')?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut words = bytes[start..].chunks_exact(8);
        for word in &mut words {
            let special = special(u64::from_le_bytes(word.try_into().map_err(|_| Unread)?));
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                return self.string_from(start);
            }
            self.at += 8;
        }
        let is_special = |&byte: &u8| byte < b' ' || byte == b'"' || byte == b'\\';
        self.at += words.remainder().iter().position(is_special).ok_or(Unread)?;
        self.string_from(start)
    }

    /// Returns the text up to here, if a quote comes now.
    #[inline]
    fn string_from(&mut self, start: usize) -> Result<&'de str, Unread> {
        if self.byte() != b'"' {
            return Err(Unread);
        }
        let text = &self.text[start..self.at];
        self.at += 1;
        Ok(text)
    }

    /// Takes `"name":` if exactly that comes.
    #[inline]
    fn takes_name(&mut self, name: &str) -> bool {
        let rest = &self.text.as_bytes()[self.at..];
        let len = name.len();
        let comes = rest.len() > len + 2
            && rest[0] == b'"'
            && rest[1..=len] == *name.as_bytes()
            && rest[len + 1] == b'"'
            && rest[len + 2] == b':';
        if comes {
            self.at += len + 3;
        }
        comes
    }

    /// Takes the name of a member and the colon.
    #[inline]
    fn name(&mut self) -> Result<&'de str, Unread> {
        let name = self.string()?;
        self.token(b':')?;
        Ok(name)
    }

    /// Takes a value that nobody wants.
    fn skip(&mut self) -> Result<(), Unread> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b'n' => self.word("null"),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'[' => {
                let mut list = self.open(b'[')?;
                while list.goes_on(b']')? {
                    list.reader.skip()?;
                }
                list.close(b']')
            }
            b'{' => {
                let mut object = self.open(b'{')?;
                while object.goes_on(b'}')? {
                    object.reader.name()?;
                    object.reader.skip()?;
                }
                object.close(b'}')
            }
            _ => self.number().map(drop),
        }
    }

    /// Enters a list or an object.
    #[inline]
    fn open<'r>(&'r mut self, bracket: u8) -> Result<Inside<'r, 'de, 'o>, Unread> {
        self.token(bracket)?;
        if self.depth == MAX_DEPTH {
            return Err(Unread);
        }
        self.depth += 1;
        Ok(Inside { reader: self, is_first: true })
    }
}

/// The inside of a list or an object.
#[derive(Debug)]
struct Inside<'r, 'de, 'o> {
    reader: &'r mut Reader<'de, 'o>,
    is_first: bool,
}

impl Inside<'_, '_, '_> {
    /// Returns whether another element comes, and goes to it.
    #[inline]
    fn goes_on(&mut self, bracket: u8) -> Result<bool, Unread> {
        let next = self.reader.peek();
        if next == bracket {
            return Ok(false);
        }
        if self.is_first {
            self.is_first = false;
            return Ok(true);
        }
        if next != b',' {
            return Err(Unread);
        }
        self.reader.at += 1;
        // A comma that nothing follows is none; what does is looked at by its reader.
        if self.reader.peek() == bracket { Err(Unread) } else { Ok(true) }
    }

    /// Leaves it, behind its last element.
    #[inline]
    fn close(self, bracket: u8) -> Result<(), Unread> {
        self.reader.token(bracket)?;
        self.reader.depth -= 1;
        Ok(())
    }
}

/// Stands for what is behind the last byte; no token begins with it.
const END: u8 = 0;

/// Marks the bytes of a word that end a text or are none of a plain one: quotes, backslashes, control characters. The
/// lowest mark is right; those above it may not be.
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let zero_in = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (zero_in(word ^ (ONES * 0x22)) | zero_in(word ^ (ONES * 0x5c)) | control) & (ONES * 0x80)
}
