//! Inputs by chance: what was well, with a few things changed.

use tidegate_core::policy::Random;

/// Chance over a corpus.
pub(crate) struct Chance(Random);

/// What decoders have stumbled over elsewhere.
const WORDS: [&[u8]; 28] = [
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"-1",
    b"0",
    b"1e999",
    b"-0.0",
    b"18446744073709551615",
    b"18446744073709551616",
    b"9223372036854775808",
    b"0.1e-400",
    b"NaN",
    b"true",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\xf0\x9f\x8c\x8a",
    b"[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x00\x00\x00\x00",
    b"\x80\x80\x80\x80\x10",
    b"\n",
    b"\r\n",
    b"${A:-b}",
    b"'''",
];

/// A change makes an input at most so much longer.
const LONGEST: usize = 1 << 16;

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// Returns a number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.below(end as u64) as usize
    }

    /// Returns one of the corpus, changed in one to eight places.
    pub(crate) fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut input, corpus);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        if input.is_empty() {
            input.push(self.below(256) as u8);
            return;
        }
        let at = self.below(input.len());
        let end = at + self.below((input.len() - at).min(64) + 1);
        match self.below(9) {
            0 => input[at] ^= 1 << self.below(8),
            1 => input[at] = self.below(256) as u8,
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => {
                let word = WORDS[self.below(WORDS.len())];
                drop(input.splice(at..end, word.iter().copied()));
            }
            5 => {
                let word = WORDS[self.below(WORDS.len())];
                drop(input.splice(at..at, word.iter().copied()));
            }
            // The rest of another one.
            6 => {
                let other = &corpus[self.below(corpus.len())];
                input.truncate(at);
                input.extend_from_slice(&other[self.below(other.len())..]);
            }
            // A piece of itself, again and again.
            7 => {
                let (piece, times) = (input[at..end].to_vec(), 1 + self.below(64));
                drop(input.splice(at..at, piece.repeat(times)));
            }
            _ => self.number(input, at),
        }
        input.truncate(input.len().min(corpus.iter().map(Vec::len).max().unwrap_or(0) + LONGEST));
    }

    /// Changes the number at or behind a place, if there is one.
    fn number(&mut self, input: &mut Vec<u8>, at: usize) {
        let Some(begin) = input[at..].iter().position(u8::is_ascii_digit).map(|more| at + more) else { return };
        let length = input[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits: Vec<u8> = (0..=self.below(24)).map(|_| b'0' + self.below(10) as u8).collect();
        drop(input.splice(begin..begin + length, digits));
    }
}
