//! The header of a command: the contract that the rest of the file is checked against.

use std::collections::BTreeMap;

use crate::codes::{Codes, is_upper_case};
use crate::error::Findings;
use crate::lexer::{Kind, Token};

/// What the header of a command promises.
#[derive(Debug, Default)]
pub(crate) struct Header {
    /// The names of `KEYS[1]`, `KEYS[2]`, ...
    pub(crate) keys: Vec<Entry>,
    /// The names of `ARGV[1]`, `ARGV[2]`, ... without a repeated group.
    pub(crate) args: Vec<Entry>,
    /// The `N.. name` line: from its number on, the arguments come in groups.
    pub(crate) repeated: Option<Entry>,
    /// Codes listed under RETURNS, with their line.
    pub(crate) codes: BTreeMap<String, usize>,
}

/// One numbered line under KEYS or ARGV.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) line: usize,
    is_repeated: bool,
}

const SECTIONS: [&str; 4] = ["KEYS", "ARGV", "RETURNS", "EVENTS"];

/// A line of the header with its number in the file.
type Line<'a> = (usize, &'a str);

/// Reads the header of the command `name`, or reports that there is none.
pub(crate) fn parse(
    name: &str,
    tokens: &[Token<'_>],
    codes: &Codes,
    findings: &mut Findings<'_>,
) -> Option<Header> {
    // The `@include` lines may stand above the header.
    let comment = match tokens.iter().find(|token| token.kind != Kind::LineComment) {
        Some(token) if token.kind == Kind::BlockComment => token,
        _ => {
            findings.add(1, "a command begins with a header: --[[ ... ]]");
            return None;
        }
    };
    let (purpose, mut sections) = split(comment, findings);
    check_purpose(name, comment.line, &purpose, findings);

    let mut header = Header::default();
    if let Some(lines) = take_section(&mut sections, "KEYS", comment.line, findings) {
        header.keys = numbered("KEYS", &lines, findings);
        if let Some(entry) = header.keys.iter().find(|entry| entry.is_repeated) {
            findings.add(
                entry.line,
                "a repeated group is for ARGV; the number of keys is fixed",
            );
        }
    }
    if let Some(lines) = take_section(&mut sections, "ARGV", comment.line, findings) {
        header.args = numbered("ARGV", &lines, findings);
        header.repeated = header.args.pop_if(|entry| entry.is_repeated);
        if let Some(entry) = header.args.iter().find(|entry| entry.is_repeated) {
            findings.add(entry.line, "the repeated group is the last line of ARGV");
        }
    }
    if let Some(lines) = take_section(&mut sections, "RETURNS", comment.line, findings) {
        header.codes = listed_codes(&lines, codes, findings);
    }
    take_section(&mut sections, "EVENTS", comment.line, findings);
    Some(header)
}

/// Cuts the header into its purpose and its sections.
fn split<'a>(
    comment: &Token<'a>,
    findings: &mut Findings<'_>,
) -> (Vec<Line<'a>>, BTreeMap<&'static str, Vec<Line<'a>>>) {
    let mut purpose = Vec::new();
    let mut sections: BTreeMap<&'static str, Vec<Line<'a>>> = BTreeMap::new();
    let mut current = None;
    for (index, text) in inner_text(comment.text).lines().enumerate() {
        let line = (comment.line + index, text.trim());
        if line.1.is_empty() {
            continue;
        }
        if let Some(section) = SECTIONS.into_iter().find(|section| *section == line.1) {
            if sections.insert(section, Vec::new()).is_some() {
                findings.add(line.0, format!("the header has two sections {section}"));
            }
            current = Some(section);
            continue;
        }
        match current {
            Some(section) => sections.entry(section).or_default().push(line),
            None => purpose.push(line),
        }
    }
    (purpose, sections)
}

/// The text between `--[[` and `]]`, at any bracket level.
fn inner_text(comment: &str) -> &str {
    let level = comment
        .bytes()
        .skip(3)
        .take_while(|&byte| byte == b'=')
        .count();
    &comment[4 + level..comment.len() - 2 - level]
}

fn check_purpose(
    name: &str,
    header_line: usize,
    purpose: &[Line<'_>],
    findings: &mut Findings<'_>,
) {
    let Some((line, first)) = purpose.first() else {
        findings.add(
            header_line,
            format!("the header begins with `{name}: ` and its purpose"),
        );
        return;
    };
    match first.split_once(':') {
        Some((given, _)) if given != name => {
            findings.add(*line, format!("the header names {given}, the file {name}"));
        }
        Some((_, text)) if text.trim().is_empty() && purpose.len() == 1 => {
            findings.add(*line, "the header does not say what the command is for");
        }
        Some(_) => {}
        None => findings.add(
            *line,
            format!("the header begins with `{name}: ` and its purpose"),
        ),
    }
}

fn take_section<'a>(
    sections: &mut BTreeMap<&'static str, Vec<Line<'a>>>,
    section: &str,
    header_line: usize,
    findings: &mut Findings<'_>,
) -> Option<Vec<Line<'a>>> {
    match sections.remove(section) {
        None => findings.add(header_line, format!("the header has no section {section}")),
        Some(lines) if lines.is_empty() => {
            findings.add(
                header_line,
                format!("the section {section} is empty; it may say `none`"),
            );
        }
        Some(lines) => return Some(lines),
    }
    None
}

/// Reads `1 wait LIST text` lines; a line without a number continues the one above.
fn numbered(section: &str, lines: &[Line<'_>], findings: &mut Findings<'_>) -> Vec<Entry> {
    if let [(_, "none")] = lines {
        return Vec::new();
    }
    let mut entries: Vec<Entry> = Vec::new();
    for &(line, text) in lines {
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            if entries.is_empty() {
                findings.add(
                    line,
                    format!("{section} lists `<number> <name> <type>`, or says `none`"),
                );
            }
            continue;
        }
        let mut words = text.split_whitespace();
        let (numeral, name, kind) = (words.next().unwrap_or_default(), words.next(), words.next());
        let is_repeated = numeral.ends_with("..");
        let number = numeral.trim_end_matches("..").parse::<usize>();
        let (Ok(number), Some(name), Some(_)) = (number, name, kind) else {
            findings.add(
                line,
                format!("{section} lists `<number> <name> <type>`, not `{text}`"),
            );
            continue;
        };
        if !is_identifier(name) {
            findings.add(line, format!("{name} is not a name in snake_case"));
        }
        let expected = entries.last().map_or(1, |entry| entry.number + 1);
        if number != expected {
            findings.add(
                line,
                format!("{section} counts {number} where {expected} comes next"),
            );
        }
        if entries.iter().any(|entry| entry.name == name) {
            findings.add(line, format!("{section} lists {name} twice"));
        }
        entries.push(Entry {
            number,
            name: name.to_owned(),
            line,
            is_repeated,
        });
    }
    entries
}

/// The codes under RETURNS: first words in `UPPER_CASE`.
///
/// A single capital word that is not a code, as in `JSON of the job`, is prose. One with an
/// underscore can only be a code, so a slip of the pen in it is found here.
fn listed_codes(
    lines: &[Line<'_>],
    codes: &Codes,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, usize> {
    let mut listed = BTreeMap::new();
    for &(line, text) in lines {
        let first = text.split_whitespace().next().unwrap_or_default();
        if codes.contains_key(first) {
            if listed.insert(first.to_owned(), line).is_some() {
                findings.add(line, format!("RETURNS lists {first} twice"));
            }
        } else if is_upper_case(first) && first.contains('_') {
            findings.add(
                line,
                format!("RETURNS lists {first}, which is not in codes.toml"),
            );
        }
    }
    listed
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
