//! The Lua folder as a whole: reads every file, checks each alone and all together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use crate::body;
use crate::codes::{self, Codes};
use crate::error::{BuildError, Findings, Problem};
use crate::header::{self, Header};
use crate::include::{self, Depth, Graph, IncludeCall, Mention};
use crate::lexer;
use crate::script::{self, Script};

/// Reads the folder and gives its codes and its expanded commands.
pub(crate) fn read(lua_dir: &Path) -> Result<(Codes, Vec<Script>), BuildError> {
    let codes_path = lua_dir.join("codes.toml");
    let codes_text =
        fs::read_to_string(&codes_path).map_err(|error| BuildError::io(&codes_path, error))?;
    let command_texts = read_folder(&lua_dir.join("commands"))?;
    let include_texts = read_folder(&lua_dir.join("includes"))?;

    let mut problems = Vec::new();
    let codes = codes::parse("codes.toml", &codes_text, &mut problems);
    if !problems.is_empty() {
        // With a broken list every use of a code would be reported as well.
        return Err(BuildError::Problems(problems));
    }

    let names: BTreeSet<&str> = include_texts.keys().map(String::as_str).collect();
    let mut includes = BTreeMap::new();
    for (name, text) in &include_texts {
        if let Some(part) = read_include(name, text, &codes, &names, &mut problems) {
            includes.insert(name.clone(), part);
        }
    }
    if !problems.is_empty() {
        return Err(BuildError::Problems(problems));
    }
    let graph: Graph = includes
        .iter()
        .map(|(name, part)| (name.clone(), part.mentions.clone()))
        .collect();
    check_graph(&includes, &graph, &mut problems);

    let mut used_includes = BTreeSet::new();
    let mut scripts = Vec::new();
    for (name, text) in &command_texts {
        let file = format!("commands/{name}.lua");
        let mut findings = Findings::new(&file, &mut problems);
        let Some((part, header)) = read_command(name, text, &codes, &names, &mut findings) else {
            continue;
        };
        include::check_exist(&part.mentions, &graph, &mut findings);
        include::check_reached(&part.calls, &part.mentions, &graph, &mut findings);
        let order = include::in_order(&part.mentions, &graph, Depth::All);
        let needed: Vec<&Part> = order
            .iter()
            .filter_map(|include| includes.get(include))
            .collect();
        check_returns(&part, &needed, &header, &mut findings);

        let source = expand(&part, &includes, &mut BTreeSet::new());
        scripts.push(Script::new(name, source, &header));
        used_includes.extend(order);
    }
    if problems.is_empty() {
        // A command that could not be read would make its includes look unused.
        for name in names.iter().filter(|name| !used_includes.contains(**name)) {
            Findings::new(&include_file(name), &mut problems)
                .add(1, "no command needs this include");
        }
    }

    if problems.is_empty() {
        Ok((codes, scripts))
    } else {
        Err(BuildError::Problems(problems))
    }
}

/// What one file gives to a script.
struct Part {
    text: String,
    mentions: Vec<Mention>,
    /// Its calls of includes.
    calls: Vec<IncludeCall>,
    /// The codes it answers with, and the line of the first use of each.
    codes: BTreeMap<String, usize>,
}

/// The text of a part with all it includes: outer ones before it, inner ones where their lines stand.
///
/// `there` are the includes that are there already, and those that this brings.
fn expand(part: &Part, includes: &BTreeMap<String, Part>, there: &mut BTreeSet<String>) -> String {
    fn bring(
        name: &str,
        includes: &BTreeMap<String, Part>,
        there: &mut BTreeSet<String>,
        text: &mut String,
    ) {
        if let Some(include) = includes.get(name)
            && there.insert(name.to_owned())
        {
            text.push_str(&expand(include, includes, there));
        }
    }
    let mut text = String::new();
    for mention in part.mentions.iter().filter(|mention| !mention.is_inner) {
        bring(&mention.name, includes, there, &mut text);
    }
    let mut inner: Option<BTreeSet<String>> = None;
    for line in part.text.split_inclusive('\n') {
        if let Some(name) = include::included_name(line) {
            // What a block brings is there for the lines that follow at once, and may be gone further down.
            let there = inner.get_or_insert_with(|| there.clone());
            bring(name, includes, there, &mut text);
        } else {
            inner = None;
            text.push_str(line);
        }
    }
    text
}

/// The Lua files of a folder by their name without `.lua`.
fn read_folder(folder: &Path) -> Result<BTreeMap<String, String>, BuildError> {
    let mut texts = BTreeMap::new();
    let entries = match fs::read_dir(folder) {
        // Git keeps no empty folder, and a project may have no includes.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(texts),
        entries => entries.map_err(|error| BuildError::io(folder, error))?,
    };
    for entry in entries {
        let path = entry.map_err(|error| BuildError::io(folder, error))?.path();
        let (Some(stem), Some("lua")) = (
            path.file_stem().and_then(|stem| stem.to_str()),
            path.extension().and_then(|extension| extension.to_str()),
        ) else {
            continue;
        };
        let text = fs::read_to_string(&path).map_err(|error| BuildError::io(&path, error))?;
        // A checkout with Windows line ends must give the same SHA-1.
        texts.insert(stem.to_owned(), text.replace("\r\n", "\n"));
    }
    Ok(texts)
}

fn read_include(
    name: &str,
    source: &str,
    codes: &Codes,
    includes: &BTreeSet<&str>,
    problems: &mut Vec<Problem>,
) -> Option<Part> {
    let file = include_file(name);
    let mut findings = Findings::new(&file, problems);
    let tokens = lexed(source, &mut findings)?;
    let code = body::without_comments(&tokens);
    include::check_shape(name, &tokens, &code, &mut findings);
    body::check_takes_parameters(&code, &mut findings);
    Some(read_part(
        name,
        source,
        &tokens,
        codes,
        includes,
        &mut findings,
    ))
}

fn read_command(
    name: &str,
    source: &str,
    codes: &Codes,
    includes: &BTreeSet<&str>,
    findings: &mut Findings<'_>,
) -> Option<(Part, Header)> {
    let tokens = lexed(source, findings)?;
    let header = header::parse(name, &tokens, codes, findings);
    let part = read_part(name, source, &tokens, codes, includes, findings);
    let header = header?;
    body::check_tables(&body::without_comments(&tokens), &header, findings);
    Some((part, header))
}

/// What commands and includes have in common.
fn read_part(
    name: &str,
    source: &str,
    tokens: &[lexer::Token<'_>],
    codes: &Codes,
    includes: &BTreeSet<&str>,
    findings: &mut Findings<'_>,
) -> Part {
    let code = body::without_comments(tokens);
    let mentions = include::mentions(source, tokens, findings);
    include::check_called(&code, &mentions, findings);
    body::check_blocks(&code, findings);
    Part {
        text: script::compact(source, tokens, codes, &mentions),
        calls: include::calls(name, &code, includes),
        codes: body::used_codes(&code, codes, findings),
        mentions,
    }
}

fn lexed<'a>(source: &'a str, findings: &mut Findings<'_>) -> Option<Vec<lexer::Token<'a>>> {
    match lexer::lex(source) {
        Ok(tokens) => Some(tokens),
        Err(error) => {
            findings.add(error.line, error.message);
            None
        }
    }
}

/// Reports what is wrong between includes: missing files, calls of what is not there, cycles.
fn check_graph(includes: &BTreeMap<String, Part>, graph: &Graph, problems: &mut Vec<Problem>) {
    for (name, part) in includes {
        let file = include_file(name);
        let mut findings = Findings::new(&file, problems);
        include::check_exist(&part.mentions, graph, &mut findings);
        include::check_reached(&part.calls, &part.mentions, graph, &mut findings);
        if let Some(cycle) = include::cycle_from(name, graph) {
            let mention = part
                .mentions
                .iter()
                .find(|mention| mention.name == cycle[1]);
            let line = mention.map_or(1, |mention| mention.line);
            findings.add(
                line,
                format!("includes in a circle: {}", cycle.join(" -> ")),
            );
        }
    }
}

/// Compares RETURNS with the codes of the command and of all it includes.
fn check_returns(part: &Part, needed: &[&Part], header: &Header, findings: &mut Findings<'_>) {
    for (code, line) in &part.codes {
        if !header.codes.contains_key(code) {
            findings.add(
                *line,
                format!("CODE.{code} is answered, but RETURNS does not list it"),
            );
        }
    }
    let through_includes: BTreeSet<&String> = needed
        .iter()
        .flat_map(|include| include.codes.keys())
        .collect();
    for code in &through_includes {
        if !header.codes.contains_key(*code) && !part.codes.contains_key(*code) {
            findings.add(
                1,
                format!("an include answers CODE.{code}, but RETURNS does not list it"),
            );
        }
    }
    for (code, line) in &header.codes {
        if !part.codes.contains_key(code) && !through_includes.contains(code) {
            findings.add(
                *line,
                format!("RETURNS lists {code}, which neither the body nor an include uses"),
            );
        }
    }
}

fn include_file(name: &str) -> String {
    format!("includes/{name}.lua")
}
