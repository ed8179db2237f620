//! Expands and checks the Lua commands.

use std::{env, path::Path, process::exit};

fn main() {
    let lua = Path::new(env!("CARGO_MANIFEST_DIR")).join("lua");
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    if let Err(error) = toromq_lua_build::generate(&lua, Path::new(&out)) {
        // A build script's standard error is what cargo shows when it fails.
        #[allow(clippy::print_stderr)]
        {
            eprintln!("{error}");
        }
        exit(1);
    }
}
