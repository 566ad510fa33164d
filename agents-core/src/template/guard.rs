//! What a template may hold before it is compiled. Pure, and linear in the source.
//!
//! The engine folds constants while it compiles and recurses once per operator: a short source can take gigabytes, or the
//! whole stack. So the tags are read here first, by the lexer's own rules, what could grow without bound is refused, and
//! what compiling the rest takes is paid.
//!
//! Let U be the size of the largest thing a name can stand for: the whole scope (at most an object of the API server,
//! 1.5 MiB) or what a filter makes (1 MiB). A value made in one tag is at most [`MAX_VALUES`] × U, that is 30 MiB, held
//! twice while it is joined; all variables together are at most [`MAX_STORED`] × U, 60 MiB. What is printed is counted
//! where it is paid.

use std::collections::BTreeMap;

use super::{
    TemplateError,
    budget::{Budget, bytes},
};
use crate::status::Reason;

/// Most bytes of one tag.
const MAX_TAG_BYTES: usize = 2048;
/// Most tags.
const MAX_TAGS: usize = 500;
/// Most names, literals and operators of one tag: the engine recurses once for each of some of them.
const MAX_TOKENS: usize = 200;
/// Most brackets inside each other in one tag.
const MAX_BRACKETS: usize = 16;
/// Most blocks inside each other.
const MAX_BLOCKS: usize = 32;
/// Most `elif`: each is one more block inside the one before.
const MAX_ELIF: usize = 50;
/// Most values that one tag may make into one.
const MAX_VALUES: usize = 20;
/// Most values that all variables together may be made of.
const MAX_STORED: usize = 40;

/// Price of a byte of the source, which is read here and by the engine.
const SOURCE_BYTE: u64 = 4;
/// Price of a name, literal or operator, which becomes instructions.
const TOKEN: u64 = 160;
/// Price of a tag, and of the text before it.
const TAG: u64 = 512;
/// Price of looking whether something is constant, sixteen times.
const FOLD: u64 = 48;
/// Price of a comment and of what is raw.
const ASIDE: u64 = 128;
/// Price of a brace in the text, which the engine takes for the beginning of a tag.
const BRACE: u64 = 48;

/// Refuses a source that could take much memory or stack, and pays for reading and compiling what it lets through.
///
/// # Errors
/// The first thing that is refused. A source the engine cannot read is left to the engine.
pub(super) fn check(name: &str, source: &str, budget: &Budget) -> Result<(), TemplateError> {
    if !budget.take(bytes(source.len()).saturating_mul(SOURCE_BYTE)) {
        return Err(TemplateError::limit(name, budget.problem()));
    }
    Guard::new(budget)
        .template(source)
        .map_err(|Refused { at, problem, reason }| TemplateError::at(name, source, at, problem, reason))
}

struct Refused {
    at: usize,
    problem: String,
    reason: Reason,
}

/// Refuses what is too large or too deep.
fn refuse<T>(at: usize, problem: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { at, problem: problem.into(), reason: Reason::TemplateLimit })
}

/// Refuses what is not available in any size.
fn deny<T>(at: usize, problem: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { at, problem: problem.into(), reason: Reason::InvalidSpec })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Literal,
    Sign,
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    at: usize,
}

impl Token<'_> {
    fn is(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }

    fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }

    /// Whether the name of an attribute, a filter or a test follows.
    fn is_before_a_name(&self) -> bool {
        self.is(".") || self.is("|") || self.is_word("is")
    }

    /// Whether a bracket behind it is an index or a call.
    fn is_operand(&self) -> bool {
        const OPERATORS: [&str; 9] = ["and", "or", "not", "in", "is", "if", "else", "elif", "recursive"];
        match self.kind {
            Kind::Word => !OPERATORS.contains(&self.text),
            Kind::Literal => true,
            Kind::Sign => matches!(self.text, ")" | "]" | "}"),
        }
    }
}

/// An open bracket of an expression.
#[derive(Default)]
struct Bracket {
    /// Whether it makes a list or a map.
    list: bool,
    /// Whether it is an index or a call of what stands before it.
    operand: bool,
    colons: usize,
    /// How many lists stand inside each other in it.
    inner: usize,
}

/// Words of an expression that stand for no value, so long as no variable has such a name.
const NO_VALUES: [&str; 10] = ["and", "or", "not", "in", "is", "if", "else", "true", "false", "none"];

struct Guard<'a> {
    budget: &'a Budget,
    tags: usize,
    elif: usize,
    /// Open blocks, each with whether it has variables of its own.
    blocks: Vec<bool>,
    /// Of how many values a variable is made, at most.
    weights: BTreeMap<&'a str, usize>,
    /// The same of what is held at once, by name and number of open blocks with variables of their own: of two such
    /// blocks after each other the first is gone when the second begins.
    stored: BTreeMap<(&'a str, usize), usize>,
    /// Open brackets. The lexer carries them from tag to tag.
    balance: i64,
}

impl<'a> Guard<'a> {
    fn new(budget: &'a Budget) -> Self {
        Self {
            budget,
            tags: 0,
            elif: 0,
            blocks: Vec::new(),
            weights: BTreeMap::new(),
            stored: BTreeMap::new(),
            balance: 0,
        }
    }

    fn template(&mut self, source: &'a str) -> Result<(), Refused> {
        let bytes = source.as_bytes();
        let mut at = 0;
        while let Some(found) = source.get(at..).and_then(|rest| rest.find('{')) {
            let start = at + found;
            let opener = bytes.get(start + 1).copied();
            if !matches!(opener, Some(b'{' | b'%' | b'#')) {
                self.take(start, BRACE)?;
                at = start + 1;
                continue;
            }
            let inside = start + 2 + usize::from(matches!(bytes.get(start + 2), Some(b'-' | b'+')));
            let rest = source.get(inside..).unwrap_or_default();
            let raw = (opener == Some(b'%')).then(|| basic_tag(rest, "raw", false)).flatten();
            if opener == Some(b'#') || raw.is_some() {
                self.take(start, ASIDE)?;
            }
            if opener == Some(b'#') {
                let Some(end) = rest.find("#}") else { return Ok(()) };
                at = inside + end + 2;
            } else if let Some(raw) = raw {
                let Some(end) = end_of_raw(source, inside + raw) else { return Ok(()) };
                at = end;
            } else {
                let block = opener == Some(b'%');
                let Some((tokens, end)) = self.tokens(source, start, inside, block)? else { return Ok(()) };
                self.tags += 1;
                if self.tags > MAX_TAGS {
                    return refuse(start, format!("has more than {MAX_TAGS} tags"));
                }
                self.pay(start, &tokens)?;
                self.tag(start, &tokens, block)?;
                at = end;
            }
        }
        Ok(())
    }

    /// Pays for compiling a tag. The engine folds constants anew at each operator around them, so a tag of many takes
    /// the square of their number, and as often the bytes of its texts.
    fn pay(&self, start: usize, tokens: &[Token<'_>]) -> Result<(), Refused> {
        let count = bytes(tokens.len());
        let texts = tokens.iter().filter(|token| token.text.starts_with(['"', '\'']));
        let literals = texts.map(|token| bytes(token.text.len()));
        let folds = count.saturating_mul(count) / 16;
        let folded = folds.saturating_mul(literals.sum::<u64>().saturating_add(FOLD));
        self.take(start, folded.saturating_add(count * TOKEN + TAG))
    }

    fn take(&self, at: usize, price: u64) -> Result<(), Refused> {
        if self.budget.take(price) { Ok(()) } else { refuse(at, self.budget.problem()) }
    }

    /// The tokens of one tag, and where it ends; `None` where the engine finds an error.
    fn tokens(
        &mut self,
        source: &'a str,
        start: usize,
        inside: usize,
        block: bool,
    ) -> Result<Option<(Vec<Token<'a>>, usize)>, Refused> {
        let end_mark = if block { "%}" } else { "}}" };
        let mut tokens = Vec::new();
        let mut at = inside;
        loop {
            if at - start > MAX_TAG_BYTES {
                return refuse(start, format!("a tag has more than {MAX_TAG_BYTES} bytes"));
            }
            if tokens.len() > MAX_TOKENS {
                return refuse(start, format!("a tag has more than {MAX_TOKENS} names, values and operators"));
            }
            let rest = source.get(at..).unwrap_or_default();
            let Some(first) = rest.chars().next() else { return Ok(None) };
            if first.is_ascii_whitespace() {
                at += 1;
                continue;
            }
            if self.balance == 0 {
                if rest.starts_with(end_mark) {
                    return Ok(Some((tokens, at + 2)));
                }
                if matches!(first, '-' | '+') && rest[1..].starts_with(end_mark) {
                    return Ok(Some((tokens, at + 3)));
                }
            }
            let (kind, length) = match first {
                '\'' | '"' => match string(rest, first) {
                    Some(length) => (Kind::Literal, length),
                    None if rest.len() > MAX_TAG_BYTES => {
                        return refuse(start, format!("a tag has more than {MAX_TAG_BYTES} bytes"));
                    }
                    None => return Ok(None),
                },
                '0'..='9' => (Kind::Literal, word(rest)),
                _ if in_word(first) => (Kind::Word, word(rest)),
                _ if ["//", "**", "==", "!=", ">=", "<="].iter().any(|sign| rest.starts_with(sign)) => (Kind::Sign, 2),
                _ => (Kind::Sign, 1),
            };
            match first {
                '(' | '[' | '{' => self.balance += 1,
                ')' | ']' | '}' => self.balance -= 1,
                '*' => return deny(at, "`*` and `**` are not available"),
                _ => {}
            }
            tokens.push(Token { kind, text: &rest[..length], at });
            at += length;
        }
    }

    fn tag(&mut self, start: usize, tokens: &[Token<'a>], block: bool) -> Result<(), Refused> {
        let word = tokens.first().filter(|_| block).map_or("", |token| token.text);
        let body = tokens.get(1..).unwrap_or_default();
        match word {
            "" => self.value(start, tokens, 0).map(drop),
            "set" => {
                // Without a value it is a block, and what a block prints is kept without a bound.
                let Some(assign) = top_level(body, |token| token.is("=")) else {
                    return deny(start, "`set` without `=` is not available");
                };
                let (names, value) = body.split_at(assign);
                self.bind(start, names, &value[1..]).map(drop)
            }
            "with" => {
                self.open(start, true)?;
                let mut rest = body;
                while !rest.is_empty() {
                    let end = top_level(rest, |token| token.is(",")).unwrap_or(rest.len());
                    let (one, more) = rest.split_at(end);
                    if let Some(assign) = top_level(one, |token| token.is("=")) {
                        let (names, value) = one.split_at(assign);
                        self.bind(start, names, &value[1..])?;
                    }
                    rest = more.get(1..).unwrap_or_default();
                }
                Ok(())
            }
            "for" => {
                if body.last().is_some_and(|token| token.is_word("recursive")) {
                    return deny(start, "`recursive` is not available");
                }
                self.open(start, true)?;
                let Some(split) = top_level(body, |token| token.is_word("in")) else { return Ok(()) };
                let (names, value) = body.split_at(split);
                let weight = self.bind(start, names, &value[1..])?;
                self.weigh("loop", weight);
                Ok(())
            }
            "filter" => deny(start, "a `filter` block is not available: use `|`"),
            "if" | "autoescape" => {
                self.open(start, false)?;
                self.value(start, body, 0).map(drop)
            }
            "elif" => {
                self.elif += 1;
                if self.elif > MAX_ELIF {
                    return refuse(start, format!("has more than {MAX_ELIF} `elif`"));
                }
                self.value(start, body, 0).map(drop)
            }
            "endif" | "endfor" | "endwith" | "endautoescape" => {
                self.blocks.pop();
                Ok(())
            }
            _ => self.value(start, body, 0).map(drop),
        }
    }

    fn open(&mut self, start: usize, variables: bool) -> Result<(), Refused> {
        self.blocks.push(variables);
        if self.blocks.len() > MAX_BLOCKS {
            return refuse(start, format!("has more than {MAX_BLOCKS} blocks inside each other"));
        }
        Ok(())
    }

    /// Makes every name of `names` as heavy as `value`, and says how heavy that is.
    fn bind(&mut self, start: usize, names: &[Token<'a>], value: &[Token<'a>]) -> Result<usize, Refused> {
        // `a = b, c` is a list, as `[b, c]` is.
        let list = usize::from(top_level(value, |token| token.is(",")).is_some());
        let weight = self.value(start, value, list)?;
        let depth = self.blocks.iter().filter(|variables| **variables).count();
        for name in names.iter().filter(|token| token.kind == Kind::Word) {
            if NO_VALUES.contains(&name.text) {
                return deny(name.at, format!("`{}` is no name for a variable", name.text));
            }
            self.weigh(name.text, weight);
            // A variable that only names another value shares it.
            if grows(value) {
                let stored = self.stored.entry((name.text, depth)).or_default();
                *stored = weight.max(*stored);
            }
        }
        if self.stored.values().sum::<usize>() > MAX_STORED {
            return refuse(start, format!("its variables are made of more than {MAX_STORED} values"));
        }
        Ok(weight)
    }

    fn weigh(&mut self, name: &'a str, weight: usize) {
        let heaviest = self.weights.entry(name).or_default();
        *heaviest = weight.max(*heaviest);
    }

    /// Of how many values the result of an expression is made, at most. Each list or map around a value counts it
    /// twice, because printing a list escapes the quotes in it; `lists` is how many there are besides the brackets.
    fn value(&self, start: usize, tokens: &[Token<'_>], lists: usize) -> Result<usize, Refused> {
        let (mut sum, mut most, mut deepest) = (0_usize, 1_usize, 0_usize);
        let mut brackets: Vec<Bracket> = Vec::new();
        let mut before: Option<&Token<'_>> = None;
        for token in tokens {
            match token.kind {
                Kind::Word if NO_VALUES.contains(&token.text) || before.is_some_and(Token::is_before_a_name) => {}
                Kind::Word => {
                    let weight = self.weights.get(token.text).copied().unwrap_or(1);
                    sum = sum.saturating_add(weight);
                    most = most.max(weight);
                }
                Kind::Literal => {}
                Kind::Sign => match token.text {
                    "(" | "[" | "{" => {
                        let operand = before.is_some_and(Token::is_operand);
                        let list = token.text == "{" || token.text == "[" && !operand;
                        brackets.push(Bracket { list, operand, ..Bracket::default() });
                        if brackets.len() > MAX_BRACKETS {
                            let problem = format!("has more than {MAX_BRACKETS} brackets inside each other");
                            return refuse(token.at, problem);
                        }
                    }
                    ")" | "]" | "}" => {
                        let lists = brackets.pop().map_or(0, |bracket| bracket.inner + usize::from(bracket.list));
                        let around = brackets.last_mut().map_or(&mut deepest, |bracket| &mut bracket.inner);
                        *around = lists.max(*around);
                    }
                    "," => {
                        // `(a, b)` is a list and `(a)` is not; between arguments stands a comma as well.
                        if let Some(bracket) = brackets.last_mut() {
                            bracket.list |= !bracket.operand;
                        }
                    }
                    // A filter makes a value of its own.
                    "|" => sum = sum.saturating_add(1),
                    ":" => {
                        if let Some(Bracket { list: false, colons, .. }) = brackets.last_mut() {
                            *colons += 1;
                            if *colons > 1 {
                                return deny(token.at, "a slice with a step is not available");
                            }
                        }
                    }
                    _ => {}
                },
            }
            before = Some(token);
        }
        let lists = u32::try_from(deepest + lists).unwrap_or(u32::MAX);
        let weight = if grows(tokens) { sum.max(most).saturating_mul(2_usize.saturating_pow(lists)) } else { most };
        if weight > MAX_VALUES {
            return refuse(start, format!("a tag makes one value of more than {MAX_VALUES}"));
        }
        Ok(weight)
    }
}

/// Whether an expression can make a value that is larger than each of its own.
fn grows(tokens: &[Token<'_>]) -> bool {
    tokens.iter().any(|token| token.kind == Kind::Sign && matches!(token.text, "~" | "+" | "," | "[" | "{" | "|" | ":"))
}

/// Where the first of `wanted` stands outside every bracket.
fn top_level(tokens: &[Token<'_>], wanted: impl Fn(&Token<'_>) -> bool) -> Option<usize> {
    let mut depth = 0_i64;
    tokens.iter().position(|token| {
        if token.kind == Kind::Sign {
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
        }
        depth == 0 && wanted(token)
    })
}

fn in_word(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric() || !c.is_ascii()
}

fn word(rest: &str) -> usize {
    rest.find(|c| !in_word(c)).unwrap_or(rest.len())
}

/// Length of a text in quotes; `None` where it does not end.
fn string(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    rest.char_indices().skip(1).find_map(|(at, c)| {
        let end = !escaped && c == quote;
        escaped = !escaped && c == '\\';
        end.then_some(at + 1)
    })
}

/// Length of `name %}`, with white space and the signs that the engine allows around it.
fn basic_tag(rest: &str, name: &str, sign: bool) -> Option<usize> {
    let space = |text: &'_ str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_whitespace()).len();
    let mut at = usize::from(sign && rest.starts_with(['-', '+']));
    at += space(&rest[at..]);
    at += rest[at..].starts_with(name).then_some(name.len())?;
    at += space(&rest[at..]);
    at += usize::from(rest[at..].starts_with(['-', '+']));
    rest[at..].starts_with("%}").then_some(at + 2)
}

/// Where the text after `{% endraw %}` begins.
fn end_of_raw(source: &str, from: usize) -> Option<usize> {
    source.get(from..)?.match_indices("{%").find_map(|(found, _)| {
        let inside = from + found + 2;
        basic_tag(source.get(inside..)?, "endraw", true).map(|length| inside + length)
    })
}

#[cfg(test)]
mod tests;
