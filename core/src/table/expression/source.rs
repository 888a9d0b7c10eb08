//! The text of an expression, and what its variables stand for.
//!
//! A variable is replaced behind the tokens, never before: whatever its value is, it is one literal, or a part of the text
//! between two quotes, and ends neither.

use std::ops::Range;

use sqlparser::{
    dialect::Dialect,
    tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer},
};

use super::{Mistake, Planned, kind::Literal};

/// What `${NAME}` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    /// Bytes of the text, with its braces.
    pub(crate) span: Range<usize>,
    pub(crate) value: String,
}

/// A text as a file has it, with the values of its variables in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) text: String,
    variables: Vec<Variable>,
}

impl Source {
    /// Returns a text whose variables have these values.
    pub(crate) fn new(text: &str, values: &[String]) -> Self {
        let spans = variables(text).into_iter().zip(values);
        let variables = spans.map(|(span, value)| Variable { span, value: value.clone() });
        Self { text: text.to_owned(), variables: variables.collect() }
    }

    /// Returns the literal that a variable stands for: a number or a truth value where its value reads as one, else a text.
    pub(crate) fn literal(&self, at: usize) -> Option<Literal> {
        let variable = self.variables.iter().find(|variable| variable.span.start == at)?;
        let value = variable.value.trim();
        Some(match value {
            "true" => Literal::Bool(true),
            "false" => Literal::Bool(false),
            _ => Literal::number(value).unwrap_or_else(|| Literal::Text(variable.value.as_str().into())),
        })
    }

    /// Returns the text with each variable as the literal that it is.
    pub(crate) fn filled(&self) -> String {
        let (mut filled, mut quote, mut behind) = (String::new(), None, 0);
        for variable in &self.variables {
            let before = &self.text[behind..variable.span.start];
            quote = quote_behind(before, quote);
            filled.push_str(before);
            match (quote, self.literal(variable.span.start)) {
                (None, Some(literal)) => filled.push_str(&literal.to_string()),
                (Some(quote), _) => filled.push_str(&variable.value.replace(quote, &format!("{quote}{quote}"))),
                (None, None) => {}
            }
            behind = variable.span.end;
        }
        filled.push_str(&self.text[behind..]);
        filled
    }

    /// Returns the bytes between two places of the tokens.
    pub(super) fn span(&self, span: Span) -> Range<usize> {
        if span.start.line == 0 || span.end.line == 0 {
            return 0..self.text.len();
        }
        let start = self.offset(span.start);
        start..self.offset(span.end).max(start)
    }

    /// Returns the byte at a place of the tokens; the end of the text where they say line 0.
    pub(super) fn offset(&self, at: Location) -> usize {
        if at.line == 0 {
            return self.text.len();
        }
        let mut lines = self.text.split_inclusive('\n');
        let before: usize = lines.by_ref().take(at.line.saturating_sub(1) as usize).map(str::len).sum();
        let line = lines.next().unwrap_or_default();
        // Columns count characters, and a variable has as many of these as it has bytes.
        let mut column = 1;
        let mut offset = before;
        let mut rest = line;
        while column < at.column && !rest.is_empty() {
            match self.variables.iter().find(|variable| variable.span.start == offset) {
                Some(variable) => {
                    let length = variable.span.len();
                    column += length as u64;
                    offset += length;
                    rest = self.text.get(offset..before + line.len()).unwrap_or_default();
                }
                None => {
                    let length = rest.chars().next().map_or(1, char::len_utf8);
                    column += 1;
                    offset += length;
                    rest = &rest[length..];
                }
            }
        }
        offset.min(self.text.len())
    }

    /// Returns the tokens, with variables in their quoted texts.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser knows the tokens of every database")]
    pub(super) fn tokens(&self) -> Planned<Vec<TokenWithSpan>> {
        if let Some((at, _)) =
            self.text.char_indices().find(|(_, c)| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
        {
            return Err(Box::new(Mistake::new(at..at + 1, "a control character in an expression")));
        }
        let tokens = Tokenizer::new(&Language, &self.with_marks()).tokenize_with_location();
        let mut tokens = tokens.map_err(|error| {
            let at = self.offset(error.location).min(self.text.len());
            Box::new(Mistake::new(at..self.text.len(), "this is no expression").label(in_our_words(&error.message)))
        })?;
        self.check_length(&tokens)?;
        for TokenWithSpan { token, span } in &mut tokens {
            // Looking up a place takes a while, and few tokens need it.
            let place = || self.span(*span);
            match token {
                Token::SingleQuotedString(text) if text.contains(MARK) || text.contains('$') => {
                    *text = self.put_in(text, &place());
                }
                Token::Placeholder(_) if !self.variables.iter().any(|variable| variable.span == place()) => {
                    return Err(Box::new(
                        Mistake::new(place(), "`$` stands before the braces of a variable").help("write ${NAME}"),
                    ));
                }
                Token::Word(word) if word.value.contains(MARK) => {
                    return Err(Box::new(
                        Mistake::new(place(), "a variable cannot be a part of a name")
                            .help("a variable is a value: write ${NAME} by itself, or between single quotes"),
                    ));
                }
                _ => {}
            }
        }
        Ok(tokens)
    }

    /// Each operator without a comma may go one level deeper: what reads the tree, or lets go of it, needs as much stack.
    fn check_length(&self, tokens: &[TokenWithSpan]) -> Planned<()> {
        let words = || tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
        let mut row = 0;
        let longest = words().map(|token| {
            row = if token.token == Token::Comma { 0 } else { row + 1 };
            row
        });
        if longest.max().unwrap_or(0) <= MOST_IN_A_ROW && words().count() <= MOST_TOKENS {
            return Ok(());
        }
        let title = format!("an expression of {} words is too long", words().count());
        let help = format!(
            "{MOST_IN_A_ROW} without a comma, {MOST_TOKENS} in all: write `in` a list, or split it by a table that is \
             `from` another derived one"
        );
        Err(Box::new(Mistake::new(0..self.text.len(), title).help(help)))
    }

    /// Returns the text with a mark in the place of each variable, as long as it: outside of quotes a placeholder.
    fn with_marks(&self) -> String {
        let (mut marked, mut quote, mut behind) = (String::new(), None, 0);
        for Variable { span, .. } in &self.variables {
            let before = &self.text[behind..span.start];
            quote = quote_behind(before, quote);
            marked.push_str(before);
            let (first, rest) = if quote.is_some() { (MARK, MARK) } else { ('$', '_') };
            marked.push(first);
            marked.extend(std::iter::repeat_n(rest, span.len() - 1));
            behind = span.end;
        }
        marked.push_str(&self.text[behind..]);
        marked
    }

    /// Returns the text between quotes that stand at `span`, with the values of its variables.
    fn put_in(&self, text: &str, span: &Range<usize>) -> String {
        let mut put = text.replace("$${", "${");
        for variable in self.variables.iter().filter(|of| of.span.start >= span.start && of.span.end <= span.end) {
            let mark: String = std::iter::repeat_n(MARK, variable.span.len()).collect();
            // The values have no marks: what is left stands in the order of the variables.
            put = put.replacen(&mark, &variable.value.replace(MARK, " "), 1);
        }
        put
    }
}

/// Returns where variables stand: `$${` are the characters themselves.
fn variables(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find("${").map(|found| at + found) {
        at = start + 2;
        if text[..start].ends_with('$') {
            continue;
        }
        let Some(end) = text[at..].find('}').map(|found| at + found + 1) else { break };
        spans.push(start..end);
        at = end;
    }
    spans
}

/// Returns which quotes are open behind a text, where `open` were before it.
fn quote_behind(text: &str, open: Option<char>) -> Option<char> {
    let mut open = open;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match open {
            Some(quote) if c == quote => open = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => open = Some(c),
            None if c == '-' && characters.peek() == Some(&'-') => {
                // A comment goes to the end of its line.
                characters.by_ref().find(|c| *c == '\n');
            }
            None => {}
        }
    }
    open
}

/// Says what the tokenizer found in fewer words.
fn in_our_words(message: &str) -> String {
    if message.contains("Unterminated string literal") {
        "the text that begins here has no second `'`".to_owned()
    } else {
        message.trim_end_matches('.').to_lowercase()
    }
}

/// Stands for a byte of a variable between quotes; no text of a user has it.
const MARK: char = '\u{1}';

/// More than any hand writes, and few enough for every stack.
const MOST_TOKENS: usize = 2_000;
const MOST_IN_A_ROW: usize = 400;

/// What the parser has to know: names as SQL has them, and none of the dialects' additions.
#[derive(Debug)]
pub(super) struct Language;

impl Dialect for Language {
    fn is_delimited_identifier_start(&self, c: char) -> bool {
        c == '"'
    }

    fn is_identifier_start(&self, c: char) -> bool {
        c.is_alphabetic() || c == '_'
    }

    fn is_identifier_part(&self, c: char) -> bool {
        c.is_alphanumeric() || c == '_'
    }

    /// So that nothing between two `$` is a text.
    fn supports_dollar_placeholder(&self) -> bool {
        true
    }
}
