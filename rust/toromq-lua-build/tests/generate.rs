//! The generator on small Lua folders: one that is right, and one for each rule that can be broken.
//!
//! `fixtures/good` is right. Each folder in `fixtures/refused` holds the files that differ from it.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use toromq_lua_build::{BuildError, generate};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the copy can be made");
    for entry in fs::read_dir(from).expect("the fixture exists") {
        let entry = entry.expect("the fixture can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("the fixture can be copied");
        }
    }
}

/// What the generator says of `good` with the files of `refused/<case>` laid over it.
fn refusal(case: &str) -> String {
    let lua = TempDir::new().expect("there is room for a folder");
    let out = TempDir::new().expect("there is room for a folder");
    copy_folder(&fixture("good"), lua.path());
    copy_folder(&fixture("refused").join(case), lua.path());
    let error = generate(lua.path(), out.path()).expect_err("the folder breaks a rule");
    assert!(
        !out.path().join("scripts.rs").exists(),
        "nothing is written on failure"
    );
    assert!(matches!(error, BuildError::Problems(_)));
    error.to_string()
}

#[test]
fn a_right_folder_becomes_a_table_of_scripts() {
    let out = TempDir::new().expect("there is room for a folder");
    generate(&fixture("good"), out.path()).expect("the folder is right");
    for name in ["scripts.rs", "codes.rs"] {
        let written = fs::read_to_string(out.path().join(name)).expect("the file is written");
        let expected = include_expected(name);
        assert_eq!(written, expected, "{name}");
    }
}

fn include_expected(name: &str) -> String {
    // With another ending, so that no formatter takes the snapshots for sources.
    let path = fixture("expected").join(format!("{name}.txt"));
    fs::read_to_string(path)
        .expect("the snapshot exists")
        .replace("\r\n", "\n")
}

#[test]
fn windows_line_ends_give_the_same_scripts() {
    let lua = TempDir::new().expect("there is room for a folder");
    let out = TempDir::new().expect("there is room for a folder");
    copy_folder(&fixture("good"), lua.path());
    for file in [
        "commands/extend_lock.lua",
        "commands/say_missing.lua",
        "includes/read_lock.lua",
    ] {
        let path = lua.path().join(file);
        let text = fs::read_to_string(&path).expect("the fixture can be read");
        fs::write(&path, text.replace("\r\n", "\n").replace('\n', "\r\n"))
            .expect("the fixture can be written");
    }
    generate(lua.path(), out.path()).expect("the folder is right");
    let written = fs::read_to_string(out.path().join("scripts.rs")).expect("the file is written");
    assert_eq!(written, include_expected("scripts.rs"));
}

#[test]
fn an_include_that_comes_with_another_stands_before_it_and_only_once() {
    let lua = TempDir::new().expect("there is room for a folder");
    let out = TempDir::new().expect("there is room for a folder");
    copy_folder(&fixture("good"), lua.path());
    copy_folder(&fixture("diamond"), lua.path());
    generate(lua.path(), out.path()).expect("the folder is right");
    let written = fs::read_to_string(out.path().join("scripts.rs")).expect("the file is written");
    let functions: Vec<&str> = written
        .lines()
        .skip_while(|line| !line.contains("DIAMOND"))
        .filter_map(|line| line.split_once("local function ").map(|(_, name)| name))
        .take(4)
        .collect();
    assert_eq!(
        functions,
        ["base()", "left()", "right()", "read_lock(lock, token)"]
    );
}

#[test]
fn an_include_within_a_block_stands_there_unless_it_is_there_already() {
    let lua = TempDir::new().expect("there is room for a folder");
    let out = TempDir::new().expect("there is room for a folder");
    copy_folder(&fixture("good"), lua.path());
    copy_folder(&fixture("inner"), lua.path());
    generate(lua.path(), out.path()).expect("the folder is right");
    let written = fs::read_to_string(out.path().join("scripts.rs")).expect("the file is written");
    let (_, from) = written
        .split_once("if common() then\n")
        .expect("the command is there");
    let expected = "\
local function rare(more)
  base()
  if more then
local function deep()
end
    deep()
  end
end
local function deep()
end
  rare(true)
  deep()
else
local function deep()
end
  deep()
end
";
    assert!(from.starts_with(expected), "{from}");
}

#[test]
fn a_missing_folder_is_named() {
    let out = TempDir::new().expect("there is room for a folder");
    let error = generate(&fixture("nowhere"), out.path()).expect_err("the folder is missing");
    assert!(matches!(&error, BuildError::Io { path, .. } if path.ends_with("nowhere/codes.toml")));
}

macro_rules! refused {
    ($($name:ident: $case:literal => [$($line:literal),+ $(,)?],)+) => {$(
        #[test]
        fn $name() {
            assert_eq!(refusal($case), [$($line),+].join("\n"));
        }
    )+};
}

refused! {
    includes_in_a_circle_are_refused: "cycle" => [
        "includes/other.lua:1: includes in a circle: other -> read_lock -> other",
    ],
    an_include_of_itself_is_refused: "cycle_of_one" => [
        "includes/read_lock.lua:1: includes in a circle: read_lock -> read_lock",
    ],
    an_include_that_does_not_exist_is_refused: "missing_include" => [
        "commands/extend_lock.lua:19: there is no includes/gone.lua",
    ],
    an_include_that_another_misses_is_refused: "missing_include_of_an_include" => [
        "includes/read_lock.lua:1: there is no includes/gone.lua",
    ],
    an_include_nobody_needs_is_refused: "unused_include" => [
        "includes/lonely.lua:1: no command needs this include",
    ],
    an_include_that_is_never_called_is_refused: "include_never_called" => [
        "commands/extend_lock.lua:19: idle is included but never called",
    ],
    a_call_without_its_include_is_refused: "call_without_include" => [
        "commands/extend_lock.lua:24: unlock is called without -- @include \"includes/unlock\"",
    ],
    a_call_outside_the_block_of_its_include_is_refused: "call_outside_the_block" => [
        "commands/extend_lock.lua:30: unlock is called without -- @include \"includes/unlock\"",
    ],
    an_include_in_a_block_that_is_there_already_is_refused: "included_in_a_block_and_outside" => [
        "commands/extend_lock.lua:26: read_lock is included twice",
    ],
    an_include_line_without_quotes_is_refused: "badly_written_include_line" => [
        "commands/extend_lock.lua:18: an include is a line of its own: -- @include \"includes/name\"",
    ],
    an_include_that_defines_another_name_is_refused: "include_with_other_name" => [
        "includes/read_lock.lua:4: an include holds one function: local function read_lock(...)",
    ],
    an_include_with_two_functions_is_refused: "include_with_two_functions" => [
        "includes/read_lock.lua:13: an include holds nothing beside its function read_lock",
    ],
    an_include_with_a_variable_is_refused: "include_with_a_variable" => [
        "includes/read_lock.lua:4: an include holds one function: local function read_lock(...)",
    ],
    an_include_without_a_comment_is_refused: "include_without_comment" => [
        "includes/read_lock.lua:1: an include begins with a comment that says what it does",
    ],
    an_include_that_reads_keys_is_refused: "include_reads_keys" => [
        "includes/read_lock.lua:5: an include takes parameters and does not read KEYS",
    ],
    a_command_without_a_header_is_refused: "no_header" => [
        "commands/extend_lock.lua:1: a command begins with a header: --[[ ... ]]",
    ],
    a_header_with_another_name_is_refused: "wrong_name" => [
        "commands/extend_lock.lua:2: the header names extend, the file extend_lock",
    ],
    a_header_without_a_purpose_is_refused: "no_purpose" => [
        "commands/extend_lock.lua:2: the header does not say what the command is for",
    ],
    a_missing_section_is_refused: "section_missing" => [
        "commands/extend_lock.lua:1: the header has no section EVENTS",
    ],
    an_empty_section_is_refused: "section_empty" => [
        "commands/extend_lock.lua:1: the section EVENTS is empty; it may say `none`",
    ],
    a_hole_in_the_numbering_is_refused: "numbering_with_a_hole" => [
        "commands/extend_lock.lua:7: KEYS counts 3 where 2 comes next",
    ],
    numbering_from_zero_is_refused: "numbering_from_zero" => [
        "commands/extend_lock.lua:9: ARGV counts 0 where 1 comes next",
        "commands/extend_lock.lua:21: ARGV[1] is not listed in the header",
        "commands/extend_lock.lua:9: ARGV[0] token is listed, but the body never reads it",
    ],
    a_key_without_a_type_is_refused: "line_without_type" => [
        "commands/extend_lock.lua:7: KEYS lists `<number> <name> <type>`, not `2 stalled`",
        "commands/extend_lock.lua:20: KEYS[2] is not listed in the header",
    ],
    a_name_listed_twice_is_refused: "name_listed_twice" => [
        "commands/extend_lock.lua:7: KEYS lists lock twice",
    ],
    a_key_that_is_not_listed_is_refused: "key_not_listed" => [
        "commands/extend_lock.lua:20: KEYS[3] is not listed in the header",
    ],
    a_listed_key_that_is_not_used_is_refused: "key_not_used" => [
        "commands/extend_lock.lua:8: KEYS[3] third is listed, but the body never reads it",
    ],
    a_listed_argument_that_is_not_used_is_refused: "argument_not_used" => [
        "commands/extend_lock.lua:9: ARGV[1] token is listed, but the body never reads it",
    ],
    a_number_below_the_first_lines_is_refused: "number_below_the_first_lines" => [
        "commands/extend_lock.lua:29: KEYS[2] is read below the first lines of the body; give it a name in an unbroken run of `local name = KEYS[2]` at the top",
    ],
    a_number_after_another_statement_is_refused: "run_broken_by_a_statement" => [
        "commands/extend_lock.lua:22: ARGV[1] is read below the first lines of the body; give it a name in an unbroken run of `local name = ARGV[1]` at the top",
    ],
    keys_without_a_number_are_refused: "keys_without_number" => [
        "commands/extend_lock.lua:24: KEYS is only read with a number, as in KEYS[1]",
    ],
    loose_arguments_without_a_repeated_group_are_refused: "loose_arguments_without_group" => [
        "commands/extend_lock.lua:27: ARGV is read without a number, and the header lists no repeated group (`N.. name`)",
    ],
    a_repeated_group_that_is_never_read_is_refused: "group_without_loose_arguments" => [
        "commands/extend_lock.lua:10: the header lists the repeated group 2.. job, which the body never reads",
    ],
    a_repeated_group_before_the_last_line_is_refused: "group_before_the_last_line" => [
        "commands/extend_lock.lua:10: the repeated group is the last line of ARGV",
        "commands/extend_lock.lua:10: ARGV[2] job is listed, but the body never reads it",
        "commands/extend_lock.lua:29: ARGV is read without a number, and the header lists no repeated group (`N.. name`)",
    ],
    a_repeated_group_of_keys_is_refused: "group_of_keys" => [
        "commands/extend_lock.lua:7: a repeated group is for ARGV; the number of keys is fixed",
    ],
    a_code_missing_from_returns_is_refused: "code_not_in_returns" => [
        "commands/extend_lock.lua:24: CODE.LOCK_MISMATCH is answered, but RETURNS does not list it",
    ],
    a_code_of_an_include_missing_from_returns_is_refused: "code_of_an_include_not_in_returns" => [
        "commands/extend_lock.lua:1: an include answers CODE.LOCK_MISMATCH, but RETURNS does not list it",
    ],
    a_code_in_returns_that_nothing_uses_is_refused: "code_in_returns_never_used" => [
        "commands/extend_lock.lua:15: RETURNS lists JOB_MISSING, which neither the body nor an include uses",
    ],
    an_unknown_code_in_returns_is_refused: "unknown_code_in_returns" => [
        "commands/extend_lock.lua:15: RETURNS lists LOCK_MISING, which is not in codes.toml",
    ],
    an_unknown_code_in_the_body_is_refused: "unknown_code_in_body" => [
        "commands/extend_lock.lua:26: CODE.LOCK_MISING is not in codes.toml",
    ],
    codes_read_as_a_table_are_refused: "codes_as_a_table" => [
        "commands/extend_lock.lua:26: CODE is only read as CODE.NAME",
    ],
    a_block_that_is_never_closed_is_refused: "block_never_closed" => [
        "commands/extend_lock.lua:25: this `if` is never closed",
    ],
    text_that_is_not_lua_is_refused: "not_lua" => [
        "commands/extend_lock.lua:24: this string is never closed",
    ],
    all_mistakes_are_listed_at_once: "two_mistakes" => [
        "commands/extend_lock.lua:2: the header names extend, the file extend_lock",
        "commands/extend_lock.lua:1: the header has no section EVENTS",
    ],
    a_list_of_codes_that_is_not_toml_is_refused: "codes_not_toml" => [
        "codes.toml:1: expected a right bracket, found a newline at line 1 column 20",
    ],
}
