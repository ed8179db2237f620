//! Includes: which files a script is made of, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use crate::body::{end_of_block, is_variable};
use crate::error::Findings;
use crate::lexer::{Kind, Token};

/// A line `-- @include "includes/name"`.
#[derive(Debug, Clone)]
pub(crate) struct Mention {
    pub(crate) name: String,
    pub(crate) line: usize,
}

/// Reads the `@include` lines of a file.
pub(crate) fn mentions(
    source: &str,
    tokens: &[Token<'_>],
    findings: &mut Findings<'_>,
) -> Vec<Mention> {
    let mut found: Vec<Mention> = Vec::new();
    for token in tokens
        .iter()
        .filter(|token| token.kind == Kind::LineComment)
    {
        let Some(quoted) = token.text[2..].trim().strip_prefix("@include") else {
            continue;
        };
        let name = quoted
            .trim()
            .strip_prefix("\"includes/")
            .and_then(|rest| rest.strip_suffix('"'));
        let Some(name) = name.filter(|_| is_whole_line(source, token)) else {
            findings.add(
                token.line,
                "an include is a line of its own: -- @include \"includes/name\"",
            );
            continue;
        };
        if found.iter().any(|mention| mention.name == name) {
            findings.add(token.line, format!("{name} is included twice"));
            continue;
        }
        found.push(Mention {
            name: name.to_owned(),
            line: token.line,
        });
    }
    found
}

/// Whether nothing but blanks stands before the token on its line.
pub(crate) fn is_whole_line(source: &str, token: &Token<'_>) -> bool {
    let line_start = source[..token.start].rfind('\n').map_or(0, |at| at + 1);
    source[line_start..token.start].trim().is_empty()
}

/// Checks that an include is a header comment and the one function it is named after.
pub(crate) fn check_shape(
    name: &str,
    tokens: &[Token<'_>],
    code: &[Token<'_>],
    findings: &mut Findings<'_>,
) {
    let is_described = tokens
        .iter()
        .take_while(|token| token.is_comment())
        .any(|token| token.kind == Kind::BlockComment || !token.text.contains("@include"));
    if !is_described {
        findings.add(1, "an include begins with a comment that says what it does");
    }
    let line = code.first().map_or(1, |token| token.line);
    let begins_well = matches!(code, [local, function, given, ..]
        if local.is_name("local") && function.is_name("function") && given.is_name(name));
    if !begins_well {
        findings.add(
            line,
            format!("an include holds one function: local function {name}(...)"),
        );
        return;
    }
    if let Some(next) = end_of_block(code, 1).and_then(|end| code.get(end)) {
        findings.add(
            next.line,
            format!("an include holds nothing beside its function {name}"),
        );
    }
}

/// The includes that a file calls, with the line of the first call of each.
pub(crate) fn calls(
    own_name: &str,
    code: &[Token<'_>],
    includes: &BTreeSet<&str>,
) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for (index, pair) in code.windows(2).enumerate() {
        let [callee, bracket] = pair else { continue };
        let is_call = bracket.is_symbol("(") && is_variable(code, index, callee.text);
        if is_call && callee.text != own_name && includes.contains(callee.text) {
            lines.entry(callee.text.to_owned()).or_insert(callee.line);
        }
    }
    lines
}

/// Reports includes that a file mentions and never calls.
pub(crate) fn check_called(code: &[Token<'_>], mentioned: &[Mention], findings: &mut Findings<'_>) {
    for mention in mentioned {
        if !(0..code.len()).any(|index| is_variable(code, index, &mention.name)) {
            findings.add(
                mention.line,
                format!("{} is included but never called", mention.name),
            );
        }
    }
}

/// Reports calls of includes that neither the file nor its includes mention.
///
/// A function that is not there, or that stands further down, is a global for Lua, and only fails
/// when the line runs. One that comes with another include is there in time.
pub(crate) fn check_reached(
    called: &BTreeMap<String, usize>,
    mentioned: &[Mention],
    graph: &Graph,
    findings: &mut Findings<'_>,
) {
    let reached = in_order(mentioned, graph);
    for (callee, line) in called
        .iter()
        .filter(|(callee, _)| !reached.contains(callee))
    {
        findings.add(
            *line,
            format!("{callee} is called without -- @include \"includes/{callee}\""),
        );
    }
}

/// The mentions of every include, by the name of the include.
pub(crate) type Graph = BTreeMap<String, Vec<Mention>>;

/// The includes that `roots` need, each once, every include after those it needs itself.
///
/// A mention of a file that does not exist is passed over; [`check_exist`] reports it.
pub(crate) fn in_order(roots: &[Mention], graph: &Graph) -> Vec<String> {
    fn visit(name: &str, graph: &Graph, seen: &mut BTreeSet<String>, order: &mut Vec<String>) {
        let Some(mentions) = graph.get(name) else {
            return;
        };
        if !seen.insert(name.to_owned()) {
            return;
        }
        for mention in mentions {
            visit(&mention.name, graph, seen, order);
        }
        order.push(name.to_owned());
    }
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for root in roots {
        visit(&root.name, graph, &mut seen, &mut order);
    }
    order
}

/// Reports mentions of files that are not there.
pub(crate) fn check_exist(mentioned: &[Mention], graph: &Graph, findings: &mut Findings<'_>) {
    for mention in mentioned
        .iter()
        .filter(|mention| !graph.contains_key(&mention.name))
    {
        findings.add(
            mention.line,
            format!("there is no includes/{}.lua", mention.name),
        );
    }
}

/// A way through the includes that comes back to where it began: `a -> b -> a`.
///
/// Each cycle is found from the first of its members in the order of the alphabet only, so that it
/// is reported once.
pub(crate) fn cycle_from(start: &str, graph: &Graph) -> Option<Vec<String>> {
    fn visit<'a>(
        start: &str,
        at: &'a str,
        graph: &'a Graph,
        seen: &mut BTreeSet<&'a str>,
        path: &mut Vec<String>,
    ) -> bool {
        path.push(at.to_owned());
        for mention in graph.get(at).into_iter().flatten() {
            if mention.name == start {
                path.push(start.to_owned());
                return true;
            }
            let is_new = mention.name.as_str() > start && seen.insert(&mention.name);
            if is_new && visit(start, &mention.name, graph, seen, path) {
                return true;
            }
        }
        path.pop();
        false
    }
    let mut path = Vec::new();
    visit(start, start, graph, &mut BTreeSet::new(), &mut path).then_some(path)
}
