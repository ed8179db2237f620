//! Trees of jobs: added in one script call, read level by level.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::Value;
use tokio::time::Instant;

use crate::{
    clock::wall_ms,
    error::{Error, Outcome, Result},
    job::JobRecord,
    keys::QueueKeys,
    link::{Call, Link, integer, items, text},
    packed::{Packed, unpacked},
    queue::{Added, FIRST_PAUSE, LONGEST_PAUSE, NewJob, Seen, repeat},
    scripts::{self, Code},
    telemetry::{self, Activity},
};

/// A tree to add, or several: their jobs level by level, parents before children.
#[derive(Debug, Clone, Default)]
pub struct Flow {
    /// The queues that jobs refer to by their place.
    pub queues: Vec<QueueKeys>,
    /// The jobs.
    pub nodes: Vec<NewNode>,
}

/// A job of a tree to add. Every one has an id; whose child it is stands in the job.
#[derive(Debug, Clone, Default)]
pub struct NewNode {
    /// Where its queue stands.
    pub queue: usize,
    /// Where its caller has it, for errors: "children[2]".
    pub place: String,
    /// Whether its id was made for it, and so can be no other job's.
    pub made: bool,
    /// Whether it has children.
    pub parent: bool,
    /// The job.
    pub job: NewJob,
}

/// A job of a tree that was read.
#[derive(Debug, Clone)]
pub struct Node {
    /// What its queue's keys begin with.
    pub prefix: String,
    /// Its queue.
    pub queue: String,
    /// Its state, where that was asked for.
    pub state: String,
    /// The job.
    pub record: JobRecord,
    /// Where its children stand.
    pub children: Vec<usize>,
    /// How many children it has, where the state was asked for.
    pub count: i64,
}

/// How much of a tree to read.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// How many levels, at least one.
    pub depth: usize,
    /// How many children of each outcome of one job.
    pub children: usize,
    /// Whether the state of each job is asked for, and how many children it has.
    pub states: bool,
}

// Jobs of one reading call, which holds Redis for about a millisecond.
const BATCH: usize = 100;

/// Adds trees and reads them.
#[derive(Debug)]
pub struct Flows {
    link: Arc<Link>,
    timeout: Duration,
    // A std mutex: held for a copy only, never across an await.
    seen: Mutex<Option<Seen>>,
}

impl Flows {
    /// On a connection that others may use as well. Nothing is sent until it is used.
    #[must_use]
    pub fn new(link: Arc<Link>) -> Self {
        Self {
            timeout: link.command_timeout(),
            link,
            seen: Mutex::new(None),
        }
    }

    /// Adds all jobs of a flow or none; gives what became of each.
    ///
    /// # Errors
    ///
    /// [`Error::FlowRefused`] when one of them can't be added; [`Error::Connection`] when Redis stays away for the whole
    /// command timeout.
    pub async fn add(&self, flow: &Flow) -> Result<Vec<Added>> {
        let deadline = Instant::now() + self.timeout;
        let mut pause = FIRST_PAUSE;
        let mut again = false;
        let mut since = None;
        loop {
            let attempt = async {
                let before = match &since {
                    Some(since) => since,
                    None => since.insert(self.moment().await?),
                };
                self.link.call(&call(flow, again, before)).await
            };
            match attempt.await {
                Ok(reply) => return self.outcome(flow, reply),
                Err(error) => {
                    let retry = match &error {
                        Error::Connection { outcome, .. } => {
                            again |= *outcome == Outcome::Unknown && since.is_some();
                            true
                        }
                        Error::Server { transient, .. } => *transient,
                        _ => false,
                    };
                    if !retry || Instant::now() + pause > deadline {
                        return Err(given_up(error, again));
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The id of an event from before now, and little before it: what is told since then may be of our doing.
    async fn moment(&self) -> Result<String> {
        let known = self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(seen) = known {
            return Ok(seen.before(Instant::now()));
        }
        let at = Instant::now();
        let reply = items(self.link.send("TIME", &redis::cmd("TIME")).await?);
        let seconds = reply.first().map_or(0, integer);
        let micros = reply.get(1).map_or(0, integer);
        let seen = Seen::new(format!("{}-0", seconds * 1000 + micros / 1000), at);
        let moment = seen.before(Instant::now());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        Ok(moment)
    }

    fn outcome(&self, flow: &Flow, reply: Value) -> Result<Vec<Added>> {
        let mut reply = items(reply).into_iter();
        let last = match reply.next() {
            Some(Value::Int(code)) => {
                let n = reply.next().as_ref().map_or(0, integer);
                return Err(refusal(flow, code, n, reply.next().as_ref().map(text)));
            }
            other => other.as_ref().map_or_else(String::new, text),
        };
        if !last.is_empty() {
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Seen::new(last, Instant::now()));
        }
        let mut added = Vec::with_capacity(flow.nodes.len());
        let said = unpacked(Value::Array(reply.collect()));
        for (node, said) in flow.nodes.iter().zip(said) {
            let outcome = match said {
                Value::Array(owner) => Added {
                    id: owner.first().map_or_else(String::new, text),
                    duplicate: true,
                },
                id => Added {
                    id: text(&id),
                    duplicate: false,
                },
            };
            if !outcome.duplicate {
                Activity::count(&telemetry::of(&flow.queues[node.queue]).added, 1);
            }
            added.push(outcome);
        }
        Ok(added)
    }

    /// A job and those below it, the job first; nothing where there is none.
    ///
    /// # Errors
    ///
    /// As [`Link::call`].
    pub async fn read(&self, keys: &QueueKeys, id: &str, extent: Extent) -> Result<Vec<Node>> {
        let mut nodes: Vec<Node> = Vec::new();
        let mut known = HashSet::new();
        let mut level = vec![(None, keys.job(id))];
        for depth in (0..extent.depth).rev() {
            let children = if depth == 0 { 0 } else { extent.children };
            let mut below = Vec::new();
            // A job that is its own ancestor, by somebody's mistake, ends there.
            level.retain(|(_, key)| known.insert(key.clone()));
            for batch in level.chunks(BATCH) {
                let mut call = Call::new(&scripts::READ_FLOW, keys);
                call.number(children)
                    .arg(if extent.states { "1" } else { "" });
                for (_, key) in batch {
                    call.arg(key);
                }
                let reply = repeat(self.timeout, Outcome::Unknown, || self.link.call(&call));
                for ((parent, _), found) in batch.iter().zip(items(reply.await?)) {
                    let Some((node, keys)) = read(found) else {
                        continue;
                    };
                    if let Some(parent) = *parent {
                        let place = nodes.len();
                        let above: &mut Node = &mut nodes[parent];
                        above.children.push(place);
                    }
                    below.extend(keys.into_iter().map(|key| (Some(nodes.len()), key)));
                    nodes.push(node);
                }
            }
            level = below;
        }
        Ok(nodes)
    }

    /// Returns once Redis answers.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub async fn wait_until_ready(&self) -> Result<()> {
        let ping = redis::cmd("PING");
        repeat(self.timeout, Outcome::Unknown, || {
            self.link.send("PING", &ping)
        })
        .await
        .map(|_| ())
    }
}

fn call(flow: &Flow, again: bool, since: &str) -> Call {
    let first = flow.nodes.first().map_or(0, |node| node.queue);
    let mut call = Call::new(&scripts::ADD_FLOW, &flow.queues[first]);
    call.number(wall_ms())
        .arg(if again { "1" } else { "" })
        .arg(since);
    let mut nodes = Packed::default();
    for node in &flow.nodes {
        nodes
            .text(flow.queues[node.queue].base())
            .text(&node.job.id)
            .flag(node.made)
            .flag(node.parent);
        node.job.put_content(&mut nodes);
        nodes.named(&node.job.more()).end_group(9);
    }
    nodes.put(&mut call);
    call
}

fn given_up(error: Error, again: bool) -> Error {
    if !again {
        return error;
    }
    // An earlier try was sent, and may have been done whatever became of this one.
    Error::Connection {
        message: format!(
            "{error}; an earlier try got no answer, so it is not known whether the flow was added"
        ),
        outcome: Outcome::Unknown,
    }
}

/// Why the flow was not added: which job it was, and what helps.
fn refusal(flow: &Flow, code: i64, n: i64, key: Option<String>) -> Error {
    let at = usize::try_from(n).unwrap_or(0).saturating_sub(1);
    let (Some(code), Some(node)) = (Code::from_value(code), flow.nodes.get(at)) else {
        return Error::Broken(format!("the flow's script answered {code}"));
    };
    let key = key.unwrap_or_default();
    let why = match code {
        Code::ParentMissing => {
            format!("its parent {key} does not exist; add that first, or leave the option out")
        }
        Code::OtherParent => format!(
            "it is the child of {key} already; let that go without it first (job.remove_child_dependency()), or give \
             this one another job_id"
        ),
        Code::OwnAncestor => format!(
            "its parent {key} is below it, so that both would wait for ever; give one of them another job_id"
        ),
        Code::KeyCorrupt => {
            format!(
                "{key} holds something else than it must; find out what wrote it, and delete it"
            )
        }
        other => other.meaning().to_owned(),
    };
    let queue = flow.queues[node.queue].base().trim_end_matches(':');
    Error::FlowRefused {
        message: format!(
            "{} (job {:?} {} of {queue}): {why}; nothing was added",
            node.place, node.job.name, node.job.id
        ),
        code,
        job_id: node.job.id.clone(),
    }
}

/// A job as the script tells of it, with the keys of its children.
fn read(found: Value) -> Option<(Node, Vec<String>)> {
    let mut found = items(found).into_iter();
    let base = text(&found.next()?);
    let id = text(&found.next()?);
    let state = text(&found.next()?);
    let record = JobRecord::new(id, String::new(), found.next()?);
    let children = items(found.next()?).iter().map(text).collect();
    let count = integer(&found.next()?);
    if record.fields.is_empty() {
        return None;
    }
    let (prefix, queue) = base.trim_end_matches(':').rsplit_once(':')?;
    let node = Node {
        prefix: prefix.to_owned(),
        queue: queue.to_owned(),
        state,
        record,
        children: Vec::new(),
        count,
    };
    Some((node, children))
}
