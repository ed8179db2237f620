//! Expands and checks the Lua commands.

use std::{env, path::Path, process::exit};

fn main() {
    // Relative to the package, where cargo runs this: checkouts that share a target folder must not see each other's files.
    let lua = Path::new("lua");
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    if let Err(error) = toromq_lua_build::generate(lua, Path::new(&out)) {
        // A build script's standard error is what cargo shows when it fails.
        #[allow(clippy::print_stderr)]
        {
            eprintln!("{error}");
        }
        exit(1);
    }
}
