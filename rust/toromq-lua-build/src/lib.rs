//! Turns the Lua commands of `toromq-core` into a table of Rust statics, and refuses what breaks
//! the rules they are written by.
//!
//! This crate only runs while `toromq-core` is built. The folder it reads:
//!
//! ```text
//! lua/commands/<name>.lua   one command, with a header that says what it takes and answers
//! lua/includes/<name>.lua   one local function, shared by commands
//! lua/codes.toml            the negative reply codes
//! ```
//!
//! A command or include names what it needs with `-- @include "includes/<name>"`. Such a line within
//! a block brings the function there: Redis makes every function that stands outside anew in each
//! call, so what few calls need stands where they need it. The header of a command is a contract, because a header that nothing checks drifts away from its body:
//!
//! ```text
//! --[[
//!   extend_lock: push back the expiry of a lock the caller still holds.
//!
//!   KEYS
//!     1 lock      STRING  <prefix>:<queue>:<job id>:lock
//!   ARGV
//!     1 token     string
//!     2.. job_id  string, for each job
//!   RETURNS
//!     1             extended
//!     LOCK_MISSING  the lock had run out
//!   EVENTS
//!     none
//! ]]
//! ```

mod body;
mod codes;
mod error;
mod header;
mod include;
mod lexer;
mod script;
mod tree;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

pub use error::{BuildError, Problem};

/// Reads `lua_dir`, checks it, and writes `scripts.rs` and `codes.rs` into `out_dir`.
///
/// Tells Cargo on standard output to run the build script again when the folder changes.
///
/// # Errors
///
/// [`BuildError::Problems`] with everything found when the sources break the rules, and
/// [`BuildError::Io`] when a file cannot be read or written.
pub fn generate(lua_dir: &Path, out_dir: &Path) -> Result<(), BuildError> {
    // Cargo looks at every file below a folder it is given. This comes first: the next try must
    // also happen after a failure.
    writeln!(io::stdout(), "cargo:rerun-if-changed={}", lua_dir.display())
        .map_err(|error| BuildError::io(lua_dir, error))?;

    let (codes, scripts) = tree::read(lua_dir)?;
    write(&out_dir.join("codes.rs"), &codes::render(&codes))?;
    write(&out_dir.join("scripts.rs"), &script::render(&scripts))
}

fn write(path: &Path, text: &str) -> Result<(), BuildError> {
    fs::write(path, text).map_err(|error| BuildError::io(path, error))
}
