//! What a job that runs asks for itself: to be put somewhere else, or to keep its lock for longer.

use std::time::Duration;

use redis::Value;
use tokio::time::{Instant, sleep};

use super::{exchange::describe_end, outcome::Entry};
use crate::{
    clock::wall_ms,
    error::{Error, Outcome, Result},
    job::JobRecord,
    keys::QueueKeys,
    link::{Call, Link, integer, items, text},
    packed::Packed,
    scripts::{self, Code},
};

/// How many locks one call extends: that holds Redis for about a millisecond.
pub(super) const BATCH: usize = 500;
const PAUSE: Duration = Duration::from_millis(50);

/// One run of a job.
#[derive(Debug, Clone)]
pub struct Run {
    /// The job.
    pub id: String,
    /// What its lock holds.
    pub token: String,
    /// How often the job was begun, this run included.
    pub attempts_started: i64,
}

impl Run {
    pub(super) fn of(record: &JobRecord) -> Self {
        Self {
            id: record.id.clone(),
            token: record.token.clone(),
            attempts_started: record.attempts_started,
        }
    }
}

/// Where a processor puts its own job.
#[derive(Debug, Clone)]
pub enum Move {
    /// Among the delayed jobs, due at this time in milliseconds since the epoch.
    Delayed(i64),
    /// Back to where it waited, next to run.
    Wait,
    /// Among those that wait for their children, of which one may be named by its full key.
    WaitingChildren(Option<String>),
}

impl Move {
    pub(super) fn operation(&self) -> &'static str {
        match self {
            Self::Delayed(_) => "move_to_delayed",
            Self::Wait => "move_to_wait",
            Self::WaitingChildren(_) => "move_to_waiting_children",
        }
    }

    pub(super) fn refused(&self, code: Code, job_id: &str) -> Error {
        Error::Script {
            operation: self.operation(),
            code,
            job_id: job_id.to_owned(),
        }
    }

    /// The call; with `again`, the script looks first whether an earlier one was done.
    fn call(&self, keys: &QueueKeys, run: &Run, now: i64, again: bool) -> Call {
        if let Self::WaitingChildren(child) = self {
            let mut call = Call::new(&scripts::MOVE_TO_WAITING_CHILDREN, keys);
            call.arg(keys.base())
                .arg(&run.id)
                .arg(&run.token)
                .number(now)
                .arg(child.as_deref().unwrap_or_default());
            if again {
                call.number(run.attempts_started);
            } else {
                call.arg("");
            }
            return call;
        }
        let delay = match self {
            Self::Delayed(due) => Some((due - now).max(0)),
            _ => None,
        };
        let mut call = Call::new(&scripts::FINISH_AND_FETCH, keys);
        // It fetches nothing, so all that a fetch would want is empty.
        call.arg(keys.base()).number(now).number(0);
        for _ in 0..6 {
            call.arg("");
        }
        let entry = Entry::put_back(&run.id, &run.token, run.attempts_started, delay);
        let mut ends = Packed::default();
        describe_end(&mut ends, &entry, again);
        ends.put(&mut call);
        call
    }

    /// What the script says: 0, 1, or a code.
    fn answer(&self, reply: Value) -> i64 {
        match self {
            Self::WaitingChildren(_) => integer(&reply),
            _ => items(reply)
                .into_iter()
                .next()
                .and_then(|codes| items(codes).first().map(integer))
                .unwrap_or_default(),
        }
    }
}

/// Moves a job; false where there was nothing to wait for. A move whose reply was lost is sent again, and recognised.
///
/// # Errors
///
/// [`Error::Script`] when it is refused, [`Error::Connection`] when Redis stays away for the command timeout.
pub(crate) async fn move_job(link: &Link, keys: &QueueKeys, run: &Run, to: &Move) -> Result<bool> {
    // The same for every try: what is recognised is what was sent first.
    let now = wall_ms();
    let reply = persist(link, |again| to.call(keys, run, now, again)).await?;
    let answer = to.answer(reply);
    match Code::from_value(answer) {
        Some(code) => Err(to.refused(code, &run.id)),
        None => Ok(answer == 0),
    }
}

/// Extends locks, once; gives those that are not ours any more, and why.
///
/// # Errors
///
/// As [`Link::call`].
pub(super) async fn try_to_extend_locks(
    link: &Link,
    keys: &QueueKeys,
    runs: &[Run],
    life: Duration,
) -> Result<Vec<(String, Code)>> {
    let lost = items(link.call(&extension(keys, runs, life)).await?);
    Ok(lost.into_iter().filter_map(lost_lock).collect())
}

/// The same for any number, tried for the command timeout.
///
/// # Errors
///
/// [`Error::Connection`] as [`move_job`].
pub(crate) async fn extend_locks(
    link: &Link,
    keys: &QueueKeys,
    runs: &[Run],
    life: Duration,
) -> Result<Vec<(String, Code)>> {
    let mut lost = Vec::new();
    for batch in runs.chunks(BATCH) {
        let reply = persist(link, |_| extension(keys, batch, life)).await?;
        lost.extend(items(reply).into_iter().filter_map(lost_lock));
    }
    Ok(lost)
}

/// An error where the lock that was to be extended is another's or gone.
pub(crate) fn still_ours(lost: Vec<(String, Code)>) -> Result<()> {
    match lost.into_iter().next() {
        Some((job_id, code)) => Err(Error::Script {
            operation: "extend_lock",
            code,
            job_id,
        }),
        None => Ok(()),
    }
}

fn extension(keys: &QueueKeys, runs: &[Run], life: Duration) -> Call {
    let mut call = Call::new(&scripts::EXTEND_LOCKS, keys);
    call.arg(keys.base()).number(life.as_millis());
    for run in runs {
        call.arg(&run.id).arg(&run.token);
    }
    call
}

fn lost_lock(reply: Value) -> Option<(String, Code)> {
    let mut reply = items(reply).into_iter();
    let id = text(&reply.next()?);
    Some((id, Code::from_value(integer(&reply.next()?))?))
}

/// Calls until there is an answer or the command timeout has passed. `make` is told whether an earlier call may have
/// been done.
pub(super) async fn persist(link: &Link, make: impl Fn(bool) -> Call) -> Result<Value> {
    let deadline = Instant::now() + link.command_timeout();
    let mut again = false;
    loop {
        match link.call(&make(again)).await {
            Err(Error::Connection { outcome, .. }) if Instant::now() + PAUSE < deadline => {
                again |= outcome == Outcome::Unknown;
            }
            Err(Error::Server {
                transient: true, ..
            }) if Instant::now() + PAUSE < deadline => {}
            answer => return answer,
        }
        sleep(PAUSE).await;
    }
}
