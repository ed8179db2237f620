//! Expanded scripts, and the table of them in Rust.

use std::fmt::Write as _;

use crate::body::{code_name, is_variable, without_comments};
use crate::codes::Codes;
use crate::header::Header;
use crate::include::{Mention, is_whole_line};
use crate::lexer::{Kind, Token};

/// A command ready for Redis.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) keys: Vec<String>,
    pub(crate) args: Vec<String>,
}

impl Script {
    pub(crate) fn new(name: &str, source: String, header: &Header) -> Self {
        let names = |entries: &[crate::header::Entry]| {
            entries.iter().map(|entry| entry.name.clone()).collect()
        };
        let mut args: Vec<String> = names(&header.args);
        // The two dots tell a caller that counts its arguments that this one may come many times.
        args.extend(
            header
                .repeated
                .iter()
                .map(|entry| format!("{}..", entry.name)),
        );
        Self {
            name: name.to_owned(),
            source,
            keys: names(&header.keys),
            args,
        }
    }
}

/// The text of a file as it goes into a script: without header, comment lines and blank lines, and
/// with numbers for codes. Where an include is mentioned in a block, its line stays.
///
/// Every server keeps each script whole, and every load sends it, so it carries no prose.
pub(crate) fn compact(
    source: &str,
    tokens: &[Token<'_>],
    codes: &Codes,
    mentions: &[Mention],
) -> String {
    let first_code = tokens.iter().position(|token| !token.is_comment());
    let first_code = first_code.unwrap_or(tokens.len());
    let dropped = |index: usize, token: &Token<'_>| match token.kind {
        Kind::LineComment => {
            let is_inner = |mention: &Mention| mention.is_inner && mention.line == token.line;
            is_whole_line(source, token) && !mentions.iter().any(is_inner)
        }
        Kind::BlockComment => index < first_code,
        _ => false,
    };
    let kept: Vec<Token<'_>> = tokens
        .iter()
        .enumerate()
        .filter(|(index, token)| !dropped(*index, token))
        .map(|(_, token)| *token)
        .collect();

    let code = without_comments(&kept);
    let mut text = String::with_capacity(source.len());
    let mut replaced_up_to = 0;
    let mut code_index = 0;
    let mut previous: Option<&Token<'_>> = None;
    for token in &kept {
        let mut replacement = None;
        if !token.is_comment() {
            if is_variable(&code, code_index, "CODE") {
                let code_of = code_name(&code, code_index).and_then(|name| codes.get(name));
                replacement = code_of.map(|found| (found.value, code[code_index + 2].end()));
            }
            code_index += 1;
        }
        if token.start < replaced_up_to {
            // The `.NAME` of a code whose number has already been written.
            continue;
        }
        push_gap(&mut text, source, previous, token, replaced_up_to);
        if let Some((value, end)) = replacement {
            // A minus before a negative number would make a comment of it.
            let after_minus = previous.is_some_and(|before| before.is_symbol("-"));
            let _ = if after_minus {
                write!(text, "({value})")
            } else {
                write!(text, "{value}")
            };
            replaced_up_to = end;
        } else {
            text.push_str(token.text);
        }
        previous = Some(token);
    }
    text.push('\n');
    text
}

/// Writes the blanks between two tokens, with one line break for any number of dropped lines.
fn push_gap(
    text: &mut String,
    source: &str,
    previous: Option<&Token<'_>>,
    token: &Token<'_>,
    replaced_up_to: usize,
) {
    let Some(previous) = previous else { return };
    let gap_start = previous.end().max(replaced_up_to);
    let gap = &source[gap_start..token.start];
    match gap.rfind('\n') {
        Some(at) => text.push_str(&gap[at..]),
        None => text.push_str(gap),
    }
}

/// The text of `scripts.rs`.
pub(crate) fn render(scripts: &[Script]) -> String {
    let mut text = String::from(
        "// Generated from lua/commands by toromq-lua-build; change those files instead.\n",
    );
    for script in scripts {
        let hashes = "#".repeat(hashes_needed(&script.source));
        let sha1 = sha1_smol::Sha1::from(&script.source).digest().to_string();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "
/// The command `{name}`.
pub static {constant}: Script = Script {{
    name: {name:?},
    source: r{hashes}\"{source}\"{hashes},
    sha1: {sha1:?},
    keys: &{keys:?},
    args: &{args:?},
}};
",
            name = script.name,
            constant = script.name.to_ascii_uppercase(),
            source = script.source,
            keys = script.keys,
            args = script.args,
        );
    }
    text.push_str(
        "\n/// Every command, in the order of their names.\npub static ALL: &[&Script] = &[\n",
    );
    for script in scripts {
        let _ = writeln!(text, "    &{},", script.name.to_ascii_uppercase());
    }
    text.push_str("];\n");
    text
}

/// How many `#` a raw string around `source` needs: Lua writes `"#` in `"a"..#list`.
fn hashes_needed(source: &str) -> usize {
    let runs = source.split('"').skip(1);
    let longest = runs
        .map(|rest| rest.bytes().take_while(|&byte| byte == b'#').count())
        .max();
    longest.map_or(1, |length| length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;
    use crate::lexer::lex;

    fn compacted(source: &str) -> String {
        let toml = "[codes.JOB_MISSING]\nvalue = -1\nmeaning = \"m\"\n";
        let codes = codes::parse("codes.toml", toml, &mut Vec::new());
        compact(
            source,
            &lex(source).expect("the source is Lua"),
            &codes,
            &[],
        )
    }

    #[test]
    fn whole_line_comments_and_blank_lines_go() {
        assert_eq!(
            compacted("--[[ head\n]]\n\nlocal a = 1 -- stays\n\n  -- goes\n  return a\n"),
            "local a = 1 -- stays\n  return a\n"
        );
    }

    #[test]
    fn text_in_strings_is_left_alone() {
        let source = "return [[\n-- not a comment\n\nCODE.JOB_MISSING]] .. 'CODE.JOB_MISSING'\n";
        assert_eq!(compacted(source), source);
    }

    #[test]
    fn codes_become_their_numbers() {
        assert_eq!(compacted("return CODE.JOB_MISSING\n"), "return -1\n");
        assert_eq!(
            compacted("return {CODE.JOB_MISSING, x.CODE.JOB_MISSING}"),
            "return {-1, x.CODE.JOB_MISSING}\n"
        );
    }

    #[test]
    fn a_code_after_a_minus_does_not_become_a_comment() {
        assert_eq!(compacted("return 1 -CODE.JOB_MISSING"), "return 1 -(-1)\n");
    }

    #[test]
    fn a_line_comment_ends_before_the_next_statement() {
        assert_eq!(
            compacted("local a = 1 -- one\n\n\nreturn a"),
            "local a = 1 -- one\nreturn a\n"
        );
    }

    #[test]
    fn a_raw_string_gets_the_hashes_it_needs() {
        assert_eq!(hashes_needed("return 1"), 1);
        assert_eq!(hashes_needed("return \"a\"..\"#\"##"), 3);
    }
}
