//! `hot_path STEP ROUNDS`: takes a step of the hot path so often, without a server, for a tool that counts instructions.
//!
//! Whatever the step, the same comes before the first round, so the difference of two runs is that of their rounds.

use std::{env, error::Error, hint::black_box};

use fixtures::HotPath;

#[path = "../benches/fixtures/mod.rs"]
mod fixtures;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(step), Some(rounds)) = (arguments.next(), arguments.next()) else {
        return Err("usage: hot_path STEP ROUNDS".into());
    };
    let mut path = HotPath::new();
    for _ in 0..rounds.parse()? {
        match &*step {
            "add_encode" => drop(black_box(path.add_encode())),
            "add_decode" => path.add_decode(),
            "finish_encode" => drop(black_box(path.finish_encode())),
            "fetch_parse" => drop(black_box(path.fetch_parse())),
            "worker_round" => drop(black_box(path.round())),
            "json_check" => path.json_check(),
            "lock_renewal" => path.renew(),
            _ => return Err(format!("no such step: {step}").into()),
        }
    }
    Ok(())
}
