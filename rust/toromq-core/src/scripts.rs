//! The Lua commands: one file each under `lua/commands`, expanded and checked at build time.

/// One command: what `lua/commands/<name>.lua` became.
#[derive(Debug)]
pub struct Script {
    /// The command's name, as its file is called.
    pub name: &'static str,
    /// The expanded text that Redis runs.
    pub source: &'static str,
    /// SHA-1 of `source`, by which Redis knows it.
    pub sha1: &'static str,
    /// Names of its keys, in order.
    pub keys: &'static [&'static str],
    /// Names of its arguments, in order; a name that ends in ".." is the repeated rest.
    pub args: &'static [&'static str],
}

#[allow(missing_docs)]
mod generated {
    use super::Script;
    include!(concat!(env!("OUT_DIR"), "/scripts.rs"));
}
#[allow(missing_docs)]
mod codes {
    include!(concat!(env!("OUT_DIR"), "/codes.rs"));
}

pub use codes::Code;
pub use generated::*;
