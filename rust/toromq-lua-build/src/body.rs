//! The checks on Lua code: how it reads `KEYS` and `ARGV`, which codes it answers, whether its
//! blocks close.

use std::collections::BTreeMap;

use crate::codes::Codes;
use crate::error::Findings;
use crate::header::{Entry, Header};
use crate::lexer::{Kind, Token};

/// The tokens of a file that Lua executes.
pub(crate) fn without_comments<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    tokens
        .iter()
        .filter(|token| !token.is_comment())
        .copied()
        .collect()
}

/// Whether the token at `index` is a variable `name`, and not a field of something.
pub(crate) fn is_variable(code: &[Token<'_>], index: usize, name: &str) -> bool {
    code[index].is_name(name)
        && !index
            .checked_sub(1)
            .is_some_and(|before| code[before].is_symbol(".") || code[before].is_symbol(":"))
}

/// The codes used as `CODE.NAME`, with the line of their first use.
pub(crate) fn used_codes(
    code: &[Token<'_>],
    codes: &Codes,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, usize> {
    let mut used = BTreeMap::new();
    for (index, token) in code.iter().enumerate() {
        if !is_variable(code, index, "CODE") {
            continue;
        }
        match code_name(code, index) {
            None => findings.add(token.line, "CODE is only read as CODE.NAME"),
            Some(name) if !codes.contains_key(name) => {
                findings.add(token.line, format!("CODE.{name} is not in codes.toml"));
            }
            Some(name) => {
                used.entry(name.to_owned()).or_insert(token.line);
            }
        }
    }
    used
}

/// The `NAME` of the `CODE.NAME` that begins at `index`.
pub(crate) fn code_name<'a>(code: &[Token<'a>], index: usize) -> Option<&'a str> {
    match (code.get(index + 1), code.get(index + 2)) {
        (Some(dot), Some(name)) if dot.is_symbol(".") && name.kind == Kind::Name => Some(name.text),
        _ => None,
    }
}

/// Checks that what opens also closes: a forgotten `end` would otherwise only show in Redis, and in
/// an expanded script, where it is hard to place.
pub(crate) fn check_blocks(code: &[Token<'_>], findings: &mut Findings<'_>) {
    let mut open: Vec<&Token<'_>> = Vec::new();
    for token in code {
        if opens(token) {
            open.push(token);
        } else if let Some(openers) = closes(token) {
            match open.pop() {
                Some(opener) if openers.contains(&opener.text) => {}
                Some(opener) => {
                    let message = format!(
                        "`{}` closes the `{}` of line {}",
                        token.text, opener.text, opener.line
                    );
                    findings.add(token.line, message);
                    return;
                }
                None => {
                    findings.add(token.line, format!("`{}` closes nothing", token.text));
                    return;
                }
            }
        }
    }
    if let Some(opener) = open.last() {
        findings.add(
            opener.line,
            format!("this `{}` is never closed", opener.text),
        );
    }
}

/// Index just past the block or bracket that opens at `index`.
pub(crate) fn end_of_block(code: &[Token<'_>], index: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in code.iter().enumerate().skip(index) {
        if opens(token) {
            depth += 1;
        } else if closes(token).is_some() {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(at + 1);
            }
        }
    }
    None
}

/// Where the block ends that the place before the token at `index` is in, if it is in one.
pub(crate) fn end_of_surrounding(code: &[Token<'_>], index: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in code.iter().enumerate().skip(index) {
        if opens(token) {
            depth += 1;
        } else if closes(token).is_some() {
            if depth == 0 {
                return Some(at);
            }
            depth -= 1;
        } else if depth == 0 && (token.is_name("else") || token.is_name("elseif")) {
            return Some(at);
        }
    }
    None
}

/// `for` and `while` are left out: they have a `do`, which is what their `end` closes.
fn opens(token: &Token<'_>) -> bool {
    match token.kind {
        Kind::Name => matches!(token.text, "function" | "do" | "if" | "repeat"),
        Kind::Symbol => matches!(token.text, "(" | "[" | "{"),
        _ => false,
    }
}

/// What `token` may close, if it closes anything.
fn closes(token: &Token<'_>) -> Option<&'static [&'static str]> {
    match (token.kind, token.text) {
        (Kind::Name, "end") => Some(&["function", "do", "if"]),
        (Kind::Name, "until") => Some(&["repeat"]),
        (Kind::Symbol, ")") => Some(&["("]),
        (Kind::Symbol, "]") => Some(&["["]),
        (Kind::Symbol, "}") => Some(&["{"]),
        _ => None,
    }
}

/// Reports any look at `KEYS` or `ARGV` in an include.
pub(crate) fn check_takes_parameters(code: &[Token<'_>], findings: &mut Findings<'_>) {
    for index in 0..code.len() {
        for table in ["KEYS", "ARGV"] {
            if is_variable(code, index, table) {
                findings.add(
                    code[index].line,
                    format!("an include takes parameters and does not read {table}"),
                );
            }
        }
    }
}

/// Compares how the body reads `KEYS` and `ARGV` with what the header lists.
pub(crate) fn check_tables(code: &[Token<'_>], header: &Header, findings: &mut Findings<'_>) {
    let naming = naming_lines_end(code);
    let keys = table_uses(code, "KEYS");
    let args = table_uses(code, "ARGV");
    for (table, uses, listed) in [("KEYS", &keys, &header.keys), ("ARGV", &args, &header.args)] {
        check_literals(code, table, uses, listed, naming, findings);
    }
    for at in keys
        .iter()
        .filter(|(_, number)| number.is_none())
        .map(|(at, _)| *at)
    {
        findings.add(
            code[at].line,
            "KEYS is only read with a number, as in KEYS[1]",
        );
    }
    let loose = args.iter().find(|(_, number)| number.is_none());
    match (&header.repeated, loose) {
        (None, Some((at, _))) => findings.add(
            code[*at].line,
            "ARGV is read without a number, and the header lists no repeated group (`N.. name`)",
        ),
        (
            Some(Entry {
                number, name, line, ..
            }),
            None,
        ) => findings.add(
            *line,
            format!(
                "the header lists the repeated group {number}.. {name}, which the body never reads"
            ),
        ),
        _ => {}
    }
}

/// A use of `KEYS` or `ARGV`: the index of the token, and the number when it is a literal.
type Use = (usize, Option<usize>);

fn table_uses(code: &[Token<'_>], table: &str) -> Vec<Use> {
    let uses = (0..code.len()).filter(|&index| is_variable(code, index, table));
    uses.map(|index| (index, literal_index(code, index)))
        .collect()
}

fn literal_index(code: &[Token<'_>], index: usize) -> Option<usize> {
    match code.get(index + 1..index + 4)? {
        [open, number, close] if open.is_symbol("[") && close.is_symbol("]") => {
            number.text.parse().ok()
        }
        _ => None,
    }
}

fn check_literals(
    code: &[Token<'_>],
    table: &str,
    uses: &[Use],
    listed: &[Entry],
    naming: usize,
    findings: &mut Findings<'_>,
) {
    for &(at, number) in uses {
        let Some(number) = number else { continue };
        let line = code[at].line;
        if !listed.iter().any(|entry| entry.number == number) {
            findings.add(
                line,
                format!("{table}[{number}] is not listed in the header"),
            );
        } else if at >= naming {
            let message = format!(
                "{table}[{number}] is read below the first lines of the body; \
                 give it a name in an unbroken run of `local name = {table}[{number}]` at the top"
            );
            findings.add(line, message);
        }
    }
    for entry in listed {
        if !uses.iter().any(|(_, number)| *number == Some(entry.number)) {
            let message = format!(
                "{table}[{}] {} is listed, but the body never reads it",
                entry.number, entry.name
            );
            findings.add(entry.line, message);
        }
    }
}

/// Index just past the run of `local name = KEYS[1]` statements that the body begins with.
fn naming_lines_end(code: &[Token<'_>]) -> usize {
    let mut end = 0;
    while code.get(end).is_some_and(|token| token.is_name("local")) {
        let next = end_of_statement(code, end);
        let statement = &code[end..next];
        let names_something =
            (end..next).any(|at| is_variable(code, at, "KEYS") || is_variable(code, at, "ARGV"));
        if !names_something || statement.iter().any(|token| token.is_name("function")) {
            break;
        }
        end = next;
    }
    end
}

/// Index just past the statement that begins at `start`.
///
/// Lua has no separator: a statement ends where something that cannot continue an expression
/// follows something that completes one.
fn end_of_statement(code: &[Token<'_>], start: usize) -> usize {
    for at in start + 1..code.len() {
        let (before, token) = (&code[at - 1], &code[at]);
        if before.is_symbol(";") {
            return at;
        }
        if token.kind != Kind::Name || matches!(token.text, "and" | "or" | "not") {
            continue;
        }
        let completes = match before.kind {
            Kind::Name => !matches!(before.text, "and" | "or" | "not" | "local"),
            Kind::Number | Kind::Str => true,
            _ => matches!(before.text, ")" | "]" | "}" | "..."),
        };
        if completes {
            return at;
        }
    }
    code.len()
}
