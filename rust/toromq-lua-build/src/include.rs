//! Includes: which files a script is made of, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::body::{end_of_block, end_of_surrounding, is_variable, without_comments};
use crate::error::Findings;
use crate::lexer::{Kind, Token};

/// A line `-- @include "includes/name"`.
#[derive(Debug, Clone)]
pub(crate) struct Mention {
    pub(crate) name: String,
    pub(crate) line: usize,
    /// The tokens, of those that Lua executes, which see the include: from the line to the end of the
    /// block that it stands in. Outside of any block that is the whole file, however far down.
    pub(crate) seen_by: Range<usize>,
    /// Whether it stands in a block, and so is made only when that runs.
    pub(crate) is_inner: bool,
}

/// Reads the `@include` lines of a file.
pub(crate) fn mentions(
    source: &str,
    tokens: &[Token<'_>],
    findings: &mut Findings<'_>,
) -> Vec<Mention> {
    let mut found: Vec<Mention> = Vec::new();
    let code = without_comments(tokens);
    for token in tokens
        .iter()
        .filter(|token| token.kind == Kind::LineComment)
    {
        if !token.text[2..].trim().starts_with("@include") {
            continue;
        }
        let Some(name) = included_name(token.text).filter(|_| is_whole_line(source, token)) else {
            findings.add(
                token.line,
                "an include is a line of its own: -- @include \"includes/name\"",
            );
            continue;
        };
        let at = code.partition_point(|other| other.start < token.start);
        if found
            .iter()
            .any(|mention| mention.name == name && mention.seen_by.contains(&at))
        {
            findings.add(token.line, format!("{name} is included twice"));
            continue;
        }
        let end = end_of_surrounding(&code, at);
        found.push(Mention {
            name: name.to_owned(),
            line: token.line,
            is_inner: end.is_some(),
            // One past the last token, so that a line below all code is told from one that was seen before.
            seen_by: end.map_or(0..code.len() + 1, |end| at..end),
        });
    }
    found
}

/// The name in a line `-- @include "includes/name"`.
pub(crate) fn included_name(line: &str) -> Option<&str> {
    line.trim()
        .strip_prefix("--")?
        .trim()
        .strip_prefix("@include")?
        .trim()
        .strip_prefix("\"includes/")?
        .strip_suffix('"')
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

/// A call of an include.
#[derive(Debug)]
pub(crate) struct IncludeCall {
    callee: String,
    line: usize,
    /// The token, of those that Lua executes.
    at: usize,
}

/// The includes that a file calls.
pub(crate) fn calls(
    own_name: &str,
    code: &[Token<'_>],
    includes: &BTreeSet<&str>,
) -> Vec<IncludeCall> {
    let mut found = Vec::new();
    for (index, pair) in code.windows(2).enumerate() {
        let [callee, bracket] = pair else { continue };
        let is_call = bracket.is_symbol("(") && is_variable(code, index, callee.text);
        if is_call && callee.text != own_name && includes.contains(callee.text) {
            found.push(IncludeCall {
                callee: callee.text.to_owned(),
                line: callee.line,
                at: index,
            });
        }
    }
    found
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

/// Reports calls of includes that neither the file nor its includes mention where the call sees it.
///
/// A function that is not there, or that stands further down, is a global for Lua, and only fails
/// when the line runs. One that comes with another include is there in time.
pub(crate) fn check_reached(
    called: &[IncludeCall],
    mentioned: &[Mention],
    graph: &Graph,
    findings: &mut Findings<'_>,
) {
    let mut reported = BTreeSet::new();
    for IncludeCall { callee, line, at } in called {
        let seen = mentioned
            .iter()
            .filter(|mention| mention.seen_by.contains(at));
        if !in_order(seen, graph, Depth::Outer).contains(callee) && reported.insert(callee) {
            findings.add(
                *line,
                format!("{callee} is called without -- @include \"includes/{callee}\""),
            );
        }
    }
}

/// The mentions of every include, by the name of the include.
pub(crate) type Graph = BTreeMap<String, Vec<Mention>>;

/// Which mentions count of the includes that others need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Those outside of any block: what comes along and can be called.
    Outer,
    /// All of them.
    All,
}

/// The includes that `roots` need, each once, every include after those it needs itself.
///
/// A mention of a file that does not exist is passed over; [`check_exist`] reports it.
pub(crate) fn in_order<'a>(
    roots: impl IntoIterator<Item = &'a Mention>,
    graph: &Graph,
    depth: Depth,
) -> Vec<String> {
    fn visit(
        name: &str,
        graph: &Graph,
        depth: Depth,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<String>,
    ) {
        let Some(mentions) = graph.get(name) else {
            return;
        };
        if !seen.insert(name.to_owned()) {
            return;
        }
        for mention in mentions {
            if depth == Depth::All || !mention.is_inner {
                visit(&mention.name, graph, depth, seen, order);
            }
        }
        order.push(name.to_owned());
    }
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for root in roots {
        visit(&root.name, graph, depth, &mut seen, &mut order);
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
