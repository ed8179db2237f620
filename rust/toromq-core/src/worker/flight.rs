//! The calls of a worker that are under way: sent one after the other over one connection, and answered in that order.
//!
//! Several of them, because else Redis has nothing to do for a worker while an answer and the next call travel. Each is made
//! as if those before it were done already, so they must not pass each other: all go over the connection of the first, or
//! fail with it.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use redis::Value;
use tokio::time::Instant;

use super::{Shared, actor::BATCH, exchange::prepare, outcome::Entry};
use crate::{clock::wall_ms, error::Result, link::Session};

/// How many at most.
const MOST: usize = 4;
/// How many jobs a call must be worth that is not the only one: a call by itself costs Redis as much as half a job.
const FEWEST_JOBS: usize = 16;

/// A call that was sent.
pub(super) struct Sent {
    /// What it writes.
    pub(super) batch: Vec<Entry>,
    /// How many jobs it fetches at most.
    pub(super) want: usize,
    /// The time that it writes.
    pub(super) now: i64,
    pub(super) at: Instant,
    pub(super) token: String,
}

impl Sent {
    /// Whether it puts back a job that ran into a rate limit.
    pub(super) fn is_bounced(&self) -> bool {
        self.batch.iter().any(|entry| entry.limited)
    }
}

enum Answer {
    Awaited(Pin<Box<dyn Future<Output = Result<Value>> + Send>>),
    Here(Result<Value>),
}

impl Answer {
    /// Takes it further.
    fn look(&mut self, cx: &mut Context<'_>) {
        if let Self::Awaited(answer) = self
            && let Poll::Ready(answer) = answer.as_mut().poll(cx)
        {
            *self = Self::Here(answer);
        }
    }
}

#[derive(Default)]
pub(super) struct Flight {
    calls: VecDeque<(Sent, Answer)>,
    session: Option<Session>,
}

impl Flight {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// How many slots more than now the worker may need when all have been answered, and how many fewer.
    pub(super) fn slots(&self) -> (usize, usize) {
        self.calls.iter().fold((0, 0), |(more, fewer), (sent, _)| {
            (more + sent.want, fewer + sent.batch.len())
        })
    }

    /// How many outcomes are worth another call; none where that must wait for an answer.
    pub(super) fn enough(&self, concurrency: usize) -> Option<usize> {
        // What a limit says is not known before its answer.
        let is_open =
            self.calls.len() < MOST && !self.calls.iter().any(|(sent, _)| sent.is_bounced());
        // One half of the jobs is with Redis while the other runs, or travels.
        is_open.then(|| (concurrency / 2).clamp(FEWEST_JOBS, BATCH))
    }

    /// Sends a call that writes a batch and fetches.
    pub(super) async fn send(&mut self, shared: &Arc<Shared>, batch: Vec<Entry>, want: usize) {
        let (now, at) = (wall_ms(), Instant::now());
        let token = shared.next_token();
        let call = prepare(
            &shared.keys,
            &shared.settings,
            &token,
            &batch,
            want,
            now,
            false,
        );
        let session = match &self.session {
            Some(session) if !self.is_empty() => Ok(session.clone()),
            _ => shared.commands.session().await,
        };
        let answer = match session {
            Err(error) => Answer::Here(Err(error)),
            Ok(session) => {
                self.session = Some(session.clone());
                let shared = Arc::clone(shared);
                Answer::Awaited(Box::pin(async move {
                    shared.commands.call_over(&session, &call).await
                }))
            }
        };
        let sent = Sent {
            batch,
            want,
            now,
            at,
            token,
        };
        self.calls.push_back((sent, answer));
        // It is on its way after that, and behind those before it.
        poll_fn(|cx| {
            self.look(cx);
            Poll::Ready(())
        })
        .await;
        // Lets the task that writes to the socket have its turn before anything else is done here.
        tokio::task::yield_now().await;
    }

    /// Takes all of them further, in their order; whether the first is answered.
    fn look(&mut self, cx: &mut Context<'_>) -> bool {
        for (_, answer) in &mut self.calls {
            answer.look(cx);
        }
        matches!(self.calls.front(), Some((_, Answer::Here(_))))
    }

    /// The next answer; none when nothing is under way. May be given up and asked for again.
    pub(super) async fn next(&mut self) -> Option<(Sent, Result<Value>)> {
        if self.is_empty() {
            return None;
        }
        poll_fn(|cx| match self.look(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        match self.calls.pop_front() {
            Some((sent, Answer::Here(answer))) => Some((sent, answer)),
            _ => None,
        }
    }
}
