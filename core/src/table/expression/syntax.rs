//! Tokens → the parser's tree. What is no expression at all is refused here; what is none of ours, by the planner.

use std::{fmt, ops::Range, sync::Arc};

use sqlparser::{
    ast::{Expr, SelectItem},
    parser::{Parser, ParserError},
    tokenizer::{Location, Token},
};

use super::{
    Mistake, Node, Planned, Scope,
    kind::Kind,
    planner::{plan, span_of},
    source::{Language, Source},
};

/// A `where`, read and not yet typed.
#[derive(Clone)]
pub(crate) struct Condition {
    source: Arc<Source>,
    tree: Arc<Expr>,
}

/// A `select`, read and not yet typed.
#[derive(Clone)]
pub(crate) struct Selection {
    source: Arc<Source>,
    items: Arc<[(SelectItem, Range<usize>)]>,
}

/// A column of a `select`.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) name: String,
    /// Where its name stands.
    pub(crate) span: Range<usize>,
    pub(crate) node: Node,
}

impl Condition {
    pub(crate) fn read(source: Source) -> Planned<Self> {
        let mut parser = parser(&source)?;
        let tree = parser.parse_expr().map_err(|error| no_expression(&source, &error))?;
        end(&source, &parser, "an operator such as `and`")?;
        Ok(Self { source: source.into(), tree: tree.into() })
    }

    pub(crate) fn text(&self) -> String {
        self.source.filled()
    }

    /// Returns the condition for rows of a table.
    pub(crate) fn plan(&self, scope: &Scope<'_>) -> Result<Node, Vec<Mistake>> {
        let node = plan(&self.tree, scope, &self.source)?;
        if matches!(node.kind, Kind::Bool | Kind::Null) {
            return Ok(node);
        }
        let span = span_of(&self.tree, &self.source);
        let title = format!("`where` is true or false for each row, and this is {}", node.described());
        let example =
            if node.kind.is_number() { "compare it with something: … > 0" } else { "compare it with something" };
        Err(vec![Mistake::new(span, title).help(example)])
    }
}

impl Selection {
    pub(crate) fn read(source: Source) -> Planned<Self> {
        let mut parser = parser(&source)?;
        let mut items = Vec::new();
        loop {
            let begin = source.offset(parser.peek_token().span.start);
            if matches!(parser.peek_token().token, Token::EOF) {
                let title =
                    if items.is_empty() { "`select` names no column" } else { "a column is missing behind `,`" };
                return Err(Box::new(Mistake::new(begin..begin, title).help("leave `select` out for all columns")));
            }
            let item = parser.parse_select_item().map_err(|error| no_expression(&source, &error))?;
            let behind = source.offset(parser.peek_token().span.start);
            let written = source.text[begin..behind.max(begin)].trim_end().len();
            items.push((item, begin..begin + written));
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        end(&source, &parser, "`,` or `as NAME`")?;
        Ok(Self { source: source.into(), items: items.into() })
    }

    pub(crate) fn text(&self) -> String {
        self.source.filled()
    }

    /// Returns how many bytes it has.
    pub(crate) fn length(&self) -> usize {
        self.source.text.trim_end().len()
    }

    /// Returns the columns for rows of a table; all mistakes at once.
    pub(crate) fn plan(&self, scope: &Scope<'_>) -> Result<Vec<Item>, Vec<Mistake>> {
        let (mut planned, mut mistakes): (Vec<Item>, Vec<Mistake>) = (Vec::new(), Vec::new());
        for (item, span) in &*self.items {
            match self.item(item, span, scope) {
                Ok(items) => planned.extend(items),
                Err(wrong) => mistakes.extend(wrong),
            }
        }
        for (n, item) in planned.iter().enumerate() {
            if planned[..n].iter().any(|earlier| earlier.name.eq_ignore_ascii_case(&item.name)) {
                let title = format!("`select` has two columns called `{}`", item.name);
                let help = "many stores take names that differ in case only for one: call it something else, by `as`";
                mistakes.push(Mistake::new(item.span.clone(), title).label("the second").help(help));
            }
        }
        if mistakes.is_empty() { Ok(planned) } else { Err(mistakes) }
    }

    fn item(&self, item: &SelectItem, span: &Range<usize>, scope: &Scope<'_>) -> Result<Vec<Item>, Vec<Mistake>> {
        let not_ours = |what: &str, help: &str| {
            Err(vec![Mistake::new(span.clone(), format!("{what} is not in this language")).help(help)])
        };
        let (expression, name, name_span) = match item {
            SelectItem::ExprWithAlias { expr, alias } => {
                (expr, Some(alias.value.clone()), self.source.span(alias.span))
            }
            SelectItem::UnnamedExpr(expr) => (expr, None, span.clone()),
            SelectItem::Wildcard(_) if &self.source.text[span.clone()] == "*" => return Ok(scope.all(span)),
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => {
                return not_ours("a `*` with something behind or before it", "write `*` alone, or name the columns");
            }
            SelectItem::ExprWithAliases { .. } => return not_ours("a list of names", "give each column one name"),
        };
        let node = plan(expression, scope, &self.source)?;
        let Some(name) = name.or_else(|| node.column_name(scope)) else {
            let title = "this column has no name";
            return Err(vec![Mistake::new(span.clone(), title).help("name it: … as NAME")]);
        };
        if let Some(why) = unfit_name(&name) {
            return Err(vec![Mistake::new(name_span, format!("a column cannot be called so: {why}"))]);
        }
        if node.kind == Kind::Null {
            let help = "say of which it would be: cast(null as f64)";
            return Err(vec![Mistake::new(span.clone(), format!("column `{name}` has no type")).help(help)]);
        }
        Ok(vec![Item { name, span: name_span, node }])
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.source.text).finish()
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Selection").field(&self.source.text).finish()
    }
}

fn unfit_name(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        return Some("the name is empty");
    }
    name.contains(char::is_control).then_some("there is a control character in it")
}

fn parser(source: &Source) -> Planned<Parser<'static>> {
    let tokens = source.tokens()?;
    Ok(Parser::new(&Language).with_recursion_limit(DEEPEST_SYNTAX).with_tokens_with_locations(tokens))
}

/// Nothing may stand behind the expression.
#[expect(clippy::wildcard_enum_match_arm, reason = "the parser knows the tokens of every database")]
fn end(source: &Source, parser: &Parser<'_>, wanted: &str) -> Planned<()> {
    let next = parser.peek_token();
    if next.token == Token::EOF {
        return Ok(());
    }
    let span = source.span(next.span);
    let mistake = Mistake::new(span, "this is no expression").label(format!("{wanted} was expected here"));
    Err(Box::new(match next.token {
        Token::SemiColon => mistake.help("an expression has no `;`"),
        Token::Eq | Token::Assignment => mistake.help("equal is written `=`"),
        _ => mistake,
    }))
}

/// Takes the parser's error apart: it has the place in its words.
fn no_expression(source: &Source, error: &ParserError) -> Box<Mistake> {
    let (ParserError::ParserError(message) | ParserError::TokenizerError(message)) = error else {
        let title = "this expression is nested too deeply";
        let help = "split it, by a table that is `from` another derived one";
        return Box::new(Mistake::new(0..source.text.len(), title).help(help));
    };
    let (what, place) = message.rsplit_once(" at Line: ").unwrap_or((message, ""));
    let place = place.split_once(", Column: ").and_then(|(line, column)| {
        Some(Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
    });
    let end = source.text.trim_end().len();
    let (at, until) = match place {
        // At its end the parser says line 0.
        Some(at) if at.line > 0 => {
            let at = source.offset(at);
            (at, word_end(&source.text, at))
        }
        _ => (end, end),
    };
    let what = what.replace("Expected: ", "expected ").replace(", found: EOF", ", and there is nothing more");
    let what = what.replace(", found: ", ", found ");
    Box::new(Mistake::new(at..until, "this is no expression").label(what))
}

fn word_end(text: &str, at: usize) -> usize {
    let rest = &text[at.min(text.len())..];
    let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    at + length.max(rest.chars().next().map_or(0, char::len_utf8))
}

/// Brackets in brackets, `case` in `case`: a build without optimisation takes 100 KB of stack for each.
const DEEPEST_SYNTAX: usize = 14;
