//! What a server knows one of our connections by, so that it can be told to end it.

use std::time::{Duration, Instant};

use redis::{Cmd, Value, aio::MultiplexedConnection};

use crate::{
    clock::wall_us,
    link::{integer, items, text},
};

/// A connection as the server sees it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    id: String,
    /// Beside the id, since a server that was started anew counts from 1 again.
    addr: String,
    /// By the server's clock at the beginning; `None` for a user who may not ask.
    pub(crate) ahead: Option<Ahead>,
}

impl Peer {
    /// Asks the server who we are, whether we may end a connection, and for its time; `None` where it does not say who we
    /// are, or we may not.
    pub(crate) async fn meet(connection: &mut MultiplexedConnection) -> Option<Self> {
        let asked = connection
            .send_packed_command(redis::cmd("CLIENT").arg("INFO"))
            .await;
        let told = text(&asked.and_then(Value::extract_error).ok()?);
        let field = |name: &str| {
            told.split_ascii_whitespace()
                .find_map(|field| field.strip_prefix(name))
                .map(str::to_owned)
        };
        let mut peer = Self {
            id: field("id=")?,
            addr: field("addr=")?,
            ahead: None,
        };
        // It passes over whoever asks, so this ends nothing.
        let tried = connection.send_packed_command(&peer.end()).await;
        tried.and_then(Value::extract_error).ok()?;
        let asked = wall_us();
        let time = connection.send_packed_command(&redis::cmd("TIME")).await;
        peer.ahead = time.ok().and_then(|time| Ahead::of(asked, time));
        Some(peer)
    }

    /// The command that ends it. When that was answered, nothing that was sent on it is done any more.
    pub(crate) fn end(&self) -> Cmd {
        let mut cmd = redis::cmd("CLIENT");
        cmd.arg("KILL").arg("ID").arg(&self.id);
        cmd.arg("ADDR").arg(&self.addr).arg("SKIPME").arg("yes");
        cmd
    }
}

// Clocks drift apart by a few milliseconds in that time, at worst.
const FRESH: Duration = Duration::from_secs(60);
/// More than this, and our clock was set since.
const STEP: u64 = 5_000;

/// How far this machine's clock is ahead of a server's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    micros: i64,
    /// When that was found out, by both clocks.
    since: (Instant, i64),
}

impl Ahead {
    /// From what TIME answered to a question that was `asked` at this machine's time, and has just been answered. Clocks
    /// that may be the same count as such: on one machine they are, and a job must not seem to have begun before it was
    /// added. Otherwise what the question took to get there is left out, so that nothing is thought to be due too early.
    pub(crate) fn of(asked: i64, time: Value) -> Option<Self> {
        match items(time).as_slice() {
            [seconds, micros] => {
                let answered = wall_us();
                let theirs = integer(seconds) * 1_000_000 + integer(micros);
                let may_be_same = (asked..=answered).contains(&theirs);
                Some(Self {
                    micros: if may_be_same { 0 } else { asked - theirs },
                    since: (Instant::now(), answered),
                })
            }
            _ => None,
        }
    }

    /// Whether nothing tells that it may be otherwise by now.
    pub(crate) fn is_fresh(&self) -> bool {
        let passed = self.since.0.elapsed();
        let by_wall = wall_us() - self.since.1;
        let by_both = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
        passed < FRESH && by_wall.abs_diff(by_both) < STEP
    }

    /// In whole milliseconds.
    pub(crate) fn millis(&self) -> i64 {
        self.micros.div_euclid(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(micros: i64) -> Value {
        let parts = [micros / 1_000_000, micros % 1_000_000];
        Value::Array(parts.map(Value::Int).into())
    }

    #[test]
    fn clocks_that_may_be_the_same_count_as_such() {
        let now = wall_us();
        let ahead = |theirs| Ahead::of(now - 9_000, time(theirs)).map(|ahead| ahead.micros);
        assert_eq!(ahead(now - 9_000), Some(0));
        assert_eq!(ahead(now - 4_000), Some(0));
        assert_eq!(ahead(now - 9_001), Some(1));
        assert_eq!(ahead(now + 3_600_000_000), Some(-3_600_009_000));
    }
}
