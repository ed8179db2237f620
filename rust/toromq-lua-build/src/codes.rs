//! `codes.toml`: the one list of negative reply codes, and the Rust enum made from it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use crate::error::{Findings, Problem};

/// One reply code.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Code {
    pub(crate) value: i64,
    pub(crate) meaning: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CodesFile {
    codes: BTreeMap<String, Code>,
}

/// The codes by name.
pub(crate) type Codes = BTreeMap<String, Code>;

/// Reads and checks the text of `codes.toml`.
pub(crate) fn parse(file: &str, text: &str, problems: &mut Vec<Problem>) -> Codes {
    let mut findings = Findings::new(file, problems);
    let codes = match basic_toml::from_str::<CodesFile>(text) {
        Ok(parsed) => parsed.codes,
        Err(error) => {
            // The reader names the line inside its message, when it knows it.
            findings.add(1, error.to_string());
            return Codes::new();
        }
    };
    let mut seen = BTreeMap::new();
    for (name, code) in &codes {
        let line = line_of(text, name);
        if !is_upper_case(name) {
            findings.add(line, format!("the code {name} is not in UPPER_CASE"));
        }
        if code.value >= 0 {
            findings.add(
                line,
                format!(
                    "the code {name} has the value {}; codes are negative",
                    code.value
                ),
            );
        }
        if code.meaning.trim().is_empty() || code.meaning.contains('\n') {
            findings.add(line, format!("the code {name} needs a meaning of one line"));
        }
        if let Some(other) = seen.insert(code.value, name) {
            findings.add(
                line,
                format!(
                    "the codes {other} and {name} share the value {}",
                    code.value
                ),
            );
        }
    }
    codes
}

/// Whether `word` is spelled like a code: `JOB_MISSING`.
pub(crate) fn is_upper_case(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.len() > 1
        && word
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The text of `codes.rs`.
pub(crate) fn render(codes: &Codes) -> String {
    // Sorted from -1 down, as one reads the list.
    let mut sorted: Vec<(&String, &Code)> = codes.iter().collect();
    sorted.sort_by_key(|(_, code)| std::cmp::Reverse(code.value));

    let mut variants = String::new();
    let mut from_value = String::new();
    let mut name_arms = String::new();
    let mut meaning_arms = String::new();
    for (name, code) in sorted {
        let variant = camel_case(name);
        let Code { value, meaning } = code;
        // Writing to a String cannot fail.
        let _ = writeln!(variants, "    /// `{name}`: {}", escape_markdown(meaning));
        let _ = writeln!(variants, "    {variant} = {value},");
        let _ = writeln!(from_value, "            {value} => Some(Self::{variant}),");
        let _ = writeln!(name_arms, "            Self::{variant} => {name:?},");
        let _ = writeln!(meaning_arms, "            Self::{variant} => {meaning:?},");
    }
    format!(
        "// Generated from lua/codes.toml by toromq-lua-build; change that file instead.

/// What a command answers when it does not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub enum Code {{
{variants}}}

impl Code {{
    /// The code with this value, if there is one.
    pub fn from_value(value: i64) -> Option<Self> {{
        match value {{
{from_value}            _ => None,
        }}
    }}

    /// The name as it stands in `codes.toml`.
    pub fn name(self) -> &'static str {{
        match self {{
{name_arms}        }}
    }}

    /// What the code means, in one line.
    pub fn meaning(self) -> &'static str {{
        match self {{
{meaning_arms}        }}
    }}
}}
"
    )
}

fn line_of(text: &str, name: &str) -> usize {
    let heading = format!("[codes.{name}]");
    let found = text.lines().position(|line| line.trim() == heading);
    found.map_or(1, |index| index + 1)
}

fn camel_case(name: &str) -> String {
    let mut variant = String::with_capacity(name.len());
    for word in name.split('_') {
        let (first, rest) = word.split_at(word.len().min(1));
        variant.push_str(first);
        variant.push_str(&rest.to_ascii_lowercase());
    }
    variant
}

/// The meaning becomes a doc comment, where `<lock>` or `KEYS[1]` would be read as mark-up.
fn escape_markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if "<>[]*_`\\".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        parse("codes.toml", text, &mut problems);
        problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn two_codes_with_one_value_are_refused() {
        let text = "[codes.A_GONE]\nvalue = -1\nmeaning = \"a\"\n[codes.B_GONE]\nvalue = -1\nmeaning = \"b\"\n";
        assert_eq!(
            messages(text),
            ["codes.toml:4: the codes A_GONE and B_GONE share the value -1"]
        );
    }

    #[test]
    fn a_code_that_is_not_negative_is_refused() {
        let text = "[codes.A_GONE]\nvalue = 0\nmeaning = \"a\"\n";
        assert_eq!(
            messages(text),
            ["codes.toml:1: the code A_GONE has the value 0; codes are negative"]
        );
    }

    #[test]
    fn a_code_without_meaning_is_refused() {
        assert_eq!(messages("[codes.A_GONE]\nvalue = -1\n").len(), 1);
        assert_eq!(
            messages("[codes.A_GONE]\nvalue = -1\nmeaning = \" \"\n").len(),
            1
        );
    }

    #[test]
    fn names_become_variants() {
        assert_eq!(camel_case("JOB_MISSING"), "JobMissing");
        assert_eq!(camel_case("LOCK"), "Lock");
    }

    #[test]
    fn mark_up_in_a_meaning_is_escaped() {
        assert_eq!(
            escape_markdown("a <lock> in KEYS[1]"),
            r"a \<lock\> in KEYS\[1\]"
        );
    }
}
