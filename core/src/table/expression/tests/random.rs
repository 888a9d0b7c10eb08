//! Random rows, and random expressions that both we and SQLite understand.

use super::{super::kind::Kind, Line};

/// A generator of numbers: the same seed, the same expressions.
pub(in crate::table) struct Random(pub(in crate::table) u64);

impl Random {
    pub(in crate::table) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    pub(in crate::table) fn line(&mut self) -> Line {
        let texts = ["", "a", "ab", "ABC", "b_c", "10", "-3", "2.5", "x%y", "buy"];
        let labels = ["buy", "sell", "", "ETH-1-C"];
        let integers = [0, 1, -1, 2, 7, -12, 100, i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1];
        let floats = [0.0, -0.0, 0.25, 1.0, -1.5, 2.75, 100.0, 1e300, -1e300, 9_007_199_254_740_992.0];
        let maybe = |random: &mut Self| random.below(5) > 0;
        Line {
            b: maybe(self).then(|| self.below(2) == 0),
            i: maybe(self).then(|| self.one(&integers)),
            j: self.one(&integers),
            u: maybe(self).then(|| self.one(&[0, 1, 2, 50, 1_000])),
            f: maybe(self).then(|| self.one(&floats)),
            g: self.one(&floats),
            t: maybe(self).then(|| self.one(&texts)),
            l: maybe(self).then(|| self.one(&labels)),
            m: self.one(&labels),
            at: self.below(1_000) as i64,
        }
    }

    /// Returns an expression of a kind.
    pub(in crate::table) fn expression(&mut self, kind: Kind, depth: u32) -> String {
        if depth == 0 || self.below(6) == 0 {
            return self.leaf(kind);
        }
        let next = depth - 1;
        if self.below(7) == 0 {
            return self.choice(kind, next);
        }
        match kind {
            Kind::Bool => self.truth(next),
            Kind::I64 => match self.below(8) {
                0 => format!("length({})", self.expression(Kind::Text, next)),
                1 => format!("cast({} as bigint)", self.expression(Kind::F64, next)),
                2 => format!("(- {})", self.expression(kind, next)),
                _ => self.sum(kind, &["+", "-", "*", "/", "%"], next),
            },
            Kind::U64 => self.sum(kind, &["+", "*", "/", "%"], next),
            Kind::F64 => match self.below(9) {
                0 => format!("abs({})", self.expression(kind, next)),
                1 => format!("(- {})", self.expression(kind, next)),
                // SQLite reads `f64` as a number of any kind, and this as REAL.
                2 => format!("cast({} as double)", self.expression(Kind::I64, next)),
                _ => self.sum(kind, &["+", "-", "*", "/"], next),
            },
            Kind::Null | Kind::Text | Kind::Time | Kind::Levels | Kind::ListI64 => match self.below(6) {
                0 => format!("lower({})", self.expression(kind, next)),
                1 => format!("upper({})", self.expression(kind, next)),
                2 => format!("substr({}, {}, {})", self.expression(kind, next), 1 + self.below(3), self.below(4)),
                3 => format!("cast({} as text)", self.expression(Kind::I64, next)),
                _ => format!("({} || {})", self.expression(kind, next), self.expression(kind, next)),
            },
        }
    }

    fn leaf(&mut self, kind: Kind) -> String {
        let leaves: &[&str] = match kind {
            Kind::Bool => &["b", "b", "true", "false"],
            Kind::I64 => &["i", "i", "j", "j", "0", "1", "-7", "100"],
            Kind::U64 => &["u", "u", "u", "3", "40"],
            Kind::F64 => &["f", "f", "g", "g", "0.5", "-2.25", "3.0"],
            Kind::Null | Kind::Text | Kind::Time | Kind::Levels | Kind::ListI64 => {
                &["t", "t", "l", "l", "m", "'a'", "'buy'", "''", "'it''s'"]
            }
        };
        self.one(leaves).to_owned()
    }

    fn sum(&mut self, kind: Kind, operators: &[&str], depth: u32) -> String {
        let (one, other) = (self.expression(kind, depth), self.expression(kind, depth));
        format!("({one} {} {other})", self.one(operators))
    }

    fn truth(&mut self, depth: u32) -> String {
        let kind = self.one(&[Kind::I64, Kind::F64, Kind::Text, Kind::U64, Kind::Bool]);
        match self.below(13) {
            0..=2 => {
                let (one, other) = (self.expression(Kind::Bool, depth), self.expression(Kind::Bool, depth));
                format!("({one} {} {other})", self.one(&["and", "or"]))
            }
            3 => format!("(not {})", self.expression(Kind::Bool, depth)),
            4 => format!("({} is {})", self.expression(kind, depth), self.one(&["null", "not null"])),
            5 => {
                let words = ["true", "not true", "false", "not false"];
                format!("({} is {})", self.expression(Kind::Bool, depth), self.one(&words))
            }
            6 => {
                let items: Vec<String> = (0..1 + self.below(3)).map(|_| self.expression(kind, depth.min(1))).collect();
                let null = self.one(&["", "", ", null"]);
                let word = self.one(&["in", "not in"]);
                format!("({} {word} ({}{null}))", self.expression(kind, depth), items.join(", "))
            }
            7 => {
                let parts = [(); 3].map(|()| self.expression(kind, depth));
                format!("({} {} {} and {})", parts[0], self.one(&["between", "not between"]), parts[1], parts[2])
            }
            8 => {
                let pattern = self.one(&["'a%'", "'%b%'", "'_'", "'%'", "'buy'", "'x!%%' escape '!'", "'%\\_%'"]);
                format!("({} {} {pattern})", self.expression(Kind::Text, depth), self.one(&["like", "not like"]))
            }
            9 => {
                // Numbers of different types compare exactly.
                let kinds = [Kind::I64, Kind::U64, Kind::F64];
                let (one, other) = (self.one(&kinds), self.one(&kinds));
                let (one, other) = (self.expression(one, depth), self.expression(other, depth));
                format!("({one} {} {other})", self.one(&["=", "<>", "<", "<=", ">", ">="]))
            }
            _ => {
                let (one, other) = (self.expression(kind, depth), self.expression(kind, depth));
                format!("({one} {} {other})", self.one(&["=", "<>", "<", "<=", ">", ">="]))
            }
        }
    }

    fn choice(&mut self, kind: Kind, depth: u32) -> String {
        let value = |random: &mut Self| random.expression(kind, depth);
        match self.below(4) {
            0 => format!("coalesce({}, {})", value(self), value(self)),
            1 => format!("nullif({}, {})", value(self), value(self)),
            2 => {
                let condition = self.expression(Kind::Bool, depth);
                let last = if self.below(2) == 0 { String::new() } else { format!(" else {}", value(self)) };
                format!("case when {condition} then {}{last} end", value(self))
            }
            _ => {
                let of = self.one(&[Kind::I64, Kind::Text]);
                let (operand, first, second) =
                    (self.expression(of, depth), self.expression(of, depth), self.expression(of, depth));
                let (one, two) = (value(self), value(self));
                format!("case {operand} when {first} then {one} when {second} then {two} else {} end", value(self))
            }
        }
    }
}
