//! Lua 5.1 text cut into tokens.
//!
//! The checks and rewrites work on tokens rather than on lines, because only a lexer knows that a
//! `--` or a `CODE.` inside a string is neither a comment nor a code.

/// What a token is, as far as the checks care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or a keyword.
    Name,
    /// A numeral.
    Number,
    /// A string in quotes or in long brackets.
    Str,
    /// An operator or a bracket.
    Symbol,
    /// `-- ...` up to the end of the line.
    LineComment,
    /// `--[[ ... ]]`, at any bracket level.
    BlockComment,
}

/// One token and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    /// Offset of the first byte.
    pub(crate) start: usize,
    /// Line of the first byte, counted from 1.
    pub(crate) line: usize,
}

impl Token<'_> {
    /// Offset just past the last byte.
    pub(crate) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    pub(crate) fn is_comment(&self) -> bool {
        matches!(self.kind, Kind::LineComment | Kind::BlockComment)
    }

    pub(crate) fn is_name(&self, text: &str) -> bool {
        self.kind == Kind::Name && self.text == text
    }

    pub(crate) fn is_symbol(&self, text: &str) -> bool {
        self.kind == Kind::Symbol && self.text == text
    }
}

/// A text that is not Lua: what is wrong, and on which line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LexError {
    pub(crate) line: usize,
    pub(crate) message: &'static str,
}

/// Cuts Lua source into tokens, comments included.
pub(crate) fn lex(source: &str) -> Result<Vec<Token<'_>>, LexError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut line = 1;
    while let Some(first) = source[at..].chars().next() {
        if first.is_ascii_whitespace() {
            line += usize::from(first == '\n');
            at += 1;
            continue;
        }
        let (kind, length) =
            measure(&source[at..], first).map_err(|message| LexError { line, message })?;
        let text = &source[at..at + length];
        tokens.push(Token {
            kind,
            text,
            start: at,
            line,
        });
        line += text.matches('\n').count();
        at += length;
    }
    Ok(tokens)
}

/// Kind and length of the token that `rest` begins with.
fn measure(rest: &str, first: char) -> Result<(Kind, usize), &'static str> {
    if let Some(comment) = rest.strip_prefix("--") {
        if let Some(level) = long_bracket_level(comment) {
            let length =
                long_bracket_length(comment, level).ok_or("this block comment is never closed")?;
            return Ok((Kind::BlockComment, 2 + length));
        }
        return Ok((Kind::LineComment, rest.find('\n').unwrap_or(rest.len())));
    }
    if first == '"' || first == '\'' {
        let length = quoted_length(rest, first).ok_or("this string is never closed")?;
        return Ok((Kind::Str, length));
    }
    if let Some(level) = long_bracket_level(rest) {
        let length = long_bracket_length(rest, level).ok_or("this long string is never closed")?;
        return Ok((Kind::Str, length));
    }
    let mut bytes = rest.bytes();
    let second_is_digit = bytes.nth(1).is_some_and(|byte| byte.is_ascii_digit());
    if first.is_ascii_digit() || (first == '.' && second_is_digit) {
        return Ok((Kind::Number, number_length(rest)));
    }
    if first.is_ascii_alphabetic() || first == '_' {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        return Ok((Kind::Name, rest.find(|c| !is_part(c)).unwrap_or(rest.len())));
    }
    for symbol in ["...", "..", "==", "~=", "<=", ">="] {
        if rest.starts_with(symbol) {
            return Ok((Kind::Symbol, symbol.len()));
        }
    }
    if "+-*/%^#<>=(){}[];:,.".contains(first) {
        return Ok((Kind::Symbol, 1));
    }
    Err("a character that Lua 5.1 does not know")
}

/// The number of `=` signs when `rest` opens a long bracket.
fn long_bracket_level(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('[')?;
    let level = inner.bytes().take_while(|&byte| byte == b'=').count();
    inner[level..].starts_with('[').then_some(level)
}

fn long_bracket_length(rest: &str, level: usize) -> Option<usize> {
    let close = format!("]{}]", "=".repeat(level));
    rest.find(&close).map(|at| at + close.len())
}

fn quoted_length(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' => return None,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn number_length(rest: &str) -> usize {
    let mut previous = '0';
    for (at, c) in rest.char_indices() {
        let is_sign_of_exponent =
            matches!(c, '+' | '-') && matches!(previous, 'e' | 'E') && !rest.starts_with("0x");
        if !(c.is_ascii_alphanumeric() || c == '.' || is_sign_of_exponent) {
            return at;
        }
        previous = c;
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Vec<(Kind, &str)> {
        let tokens = lex(source).expect("the source is Lua");
        tokens
            .iter()
            .map(|token| (token.kind, token.text))
            .collect()
    }

    #[test]
    fn comment_marks_inside_strings_are_text() {
        assert_eq!(
            kinds("x = '-- no' .. [[-- no]] -- yes"),
            [
                (Kind::Name, "x"),
                (Kind::Symbol, "="),
                (Kind::Str, "'-- no'"),
                (Kind::Symbol, ".."),
                (Kind::Str, "[[-- no]]"),
                (Kind::LineComment, "-- yes"),
            ]
        );
    }

    #[test]
    fn escaped_quotes_do_not_end_a_string() {
        assert_eq!(
            kinds(r#""a\"b\\" c"#),
            [(Kind::Str, r#""a\"b\\""#), (Kind::Name, "c")]
        );
    }

    #[test]
    fn long_brackets_close_at_their_own_level() {
        assert_eq!(
            kinds("--[=[ ]] ]=] [==[ ]=] ]==]"),
            [
                (Kind::BlockComment, "--[=[ ]] ]=]"),
                (Kind::Str, "[==[ ]=] ]==]")
            ]
        );
    }

    #[test]
    fn an_index_with_a_blank_is_not_a_long_bracket() {
        let texts: Vec<&str> = kinds("a[ b[1]]")
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(texts, ["a", "[", "b", "[", "1", "]", "]"]);
    }

    #[test]
    fn numbers_keep_their_exponent() {
        assert_eq!(kinds("1e-3 0xFE-1").len(), 4);
        assert_eq!(kinds(".5")[0], (Kind::Number, ".5"));
    }

    #[test]
    fn lines_are_counted_through_long_strings() {
        let tokens = lex("a [[\n\n]]\nb").expect("the source is Lua");
        assert_eq!(tokens[2].line, 4);
    }

    #[test]
    fn an_open_string_is_reported_with_its_line() {
        let error = lex("a\n'b\n").expect_err("the string is open");
        assert_eq!(error.line, 2);
    }
}
