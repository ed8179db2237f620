//! The armed fetch: an idle worker's wait for a marker with a fetch right behind it on the same connection.
//!
//! The server holds back what a blocked client has sent after the blocking command, and does it as soon as the wait ends.
//! So jobs come with the answer to the wait, and no round trip lies between the marker and them. What that asks for:
//!
//! - The slots it fetches for are set aside from before it is sent until what became of it is known, and no other fetch
//!   may take them. The actor does that (`order`); the task that waits picks the order up (`begin`).
//! - It runs long after it was sent, so the script takes the server's time, and how far our clock is ahead of that.
//! - The lock of what it brings lives from when it ran, of which we only know that it was after it was sent. So that is what
//!   counts, and a wait must take no more than a part of a lock's life.
//! - It may be done after we have forgotten it: closing a connection takes its time, and a server may not even notice. So
//!   whoever gives it up tells the server to end that connection, and after the answer to that adopts what it has brought.
//!   Where a server does not tell what it knows our connection by, or we may not end it, nothing is armed.
//! - Should this machine vanish without a word, what is armed springs once, and those jobs are held until their locks have
//!   run out; hence only some slots at a time.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    Shared, WorkerSettings,
    exchange::{Fetched, prepare, take_reply},
    marker,
};
use crate::{
    clock::wall_us,
    error::{Error, Outcome, Result},
    link::Link,
    peer::{Ahead, Peer},
};

/// For how many slots at most. More jobs come with the fetch that follows a full one.
pub(super) const SLOTS: usize = 8;

/// What there is of it.
#[derive(Debug)]
enum State {
    /// Nothing.
    Free,
    /// The actor wants one, which is not begun.
    Ordered(usize),
    /// It is sent, or about to be.
    Out {
        slots: usize,
        token: String,
        is_called_off: bool,
    },
    /// It was sent, and its answer is lost. Until the server has ended that connection it may still be done.
    Lost { slots: usize, peer: Option<Peer> },
}

/// The armed fetch of a worker.
#[derive(Debug)]
pub(super) struct Armed {
    state: Mutex<State>,
    called_off: Notify,
}

/// Whether there shall be one at all: a lock must have most of its life left when a wait ends at the latest.
pub(super) fn is_wanted(settings: &WorkerSettings, seconds: f64) -> bool {
    let most = Duration::from_millis(settings.lock_duration / 3);
    !settings.skip_lock_renewal && seconds <= most.as_secs_f64()
}

impl Armed {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State::Free),
            called_off: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many slots are set aside.
    pub(super) fn slots(&self) -> usize {
        match &*self.state() {
            State::Out { slots, .. } | State::Lost { slots, .. } => *slots,
            State::Free | State::Ordered(_) => 0,
        }
    }

    /// Sets slots aside for one to come. False where there is one.
    pub(super) fn order(&self, slots: usize) -> bool {
        let mut state = self.state();
        let is_free = matches!(*state, State::Free);
        if is_free {
            *state = State::Ordered(slots.min(SLOTS));
        }
        is_free
    }

    /// Takes an order back that is not begun; whether there was one.
    pub(super) fn take_back(&self) -> bool {
        let mut state = self.state();
        let is_ordered = matches!(*state, State::Ordered(_));
        if is_ordered {
            *state = State::Free;
        }
        is_ordered
    }

    /// Picks an order up, and gives for how many slots it is; without a `token` for a wait that fetches nothing.
    pub(super) fn begin(&self, token: Option<String>) -> Option<usize> {
        let mut state = self.state();
        let State::Ordered(slots) = *state else {
            return None;
        };
        *state = token.map_or(State::Free, |token| State::Out {
            slots,
            token,
            is_called_off: false,
        });
        Some(slots)
    }

    /// Ends the one that is out; the task that waits tells what became of it. Whether there is one.
    pub(super) fn call_off(&self) -> bool {
        let mut state = self.state();
        let State::Out { is_called_off, .. } = &mut *state else {
            return false;
        };
        *is_called_off = true;
        self.called_off.notify_one();
        true
    }

    /// Returns when the one that is out is to end.
    pub(super) async fn when_called_off(&self) {
        loop {
            let is_called_off = matches!(
                *self.state(),
                State::Out {
                    is_called_off: true,
                    ..
                }
            );
            if is_called_off {
                return;
            }
            self.called_off.notified().await;
        }
    }

    fn lose(&self, peer: Option<Peer>) {
        let slots = self.slots();
        *self.state() = State::Lost { slots, peer };
    }

    /// It is known what became of it.
    pub(super) fn settle(&self) {
        *self.state() = State::Free;
    }

    /// The token of one that is out: who adopts jobs must leave those to it.
    pub(super) fn token(&self) -> Option<String> {
        match &*self.state() {
            State::Out { token, .. } => Some(token.clone()),
            _ => None,
        }
    }

    /// Sees to it that one that was lost will not be done any more, if it has not been yet.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] when that is not certain yet.
    pub(super) async fn make_safe(&self, commands: &Link) -> Result<()> {
        let peer = match &*self.state() {
            State::Lost { peer, .. } => peer.clone(),
            _ => None,
        };
        let Some(peer) = peer else {
            return Ok(());
        };
        match commands.send("ending a connection", &peer.end()).await {
            Err(error @ Error::Connection { .. }) => Err(error),
            // When it was refused that is new. Then the server must notice by itself that nobody is there.
            _ => Ok(()),
        }
    }
}

/// A connection that can be armed.
pub(super) struct Way {
    number: u64,
    peer: Peer,
    ahead: Ahead,
}

/// Finds out what is needed to arm the connection; nothing where that can't be done. `known` is what was found out before.
///
/// # Errors
///
/// As [`Link::send`].
pub(super) async fn way(link: &Link, known: &mut Option<(u64, Ahead)>) -> Result<Option<Way>> {
    let (number, Some(peer)) = link.peer().await? else {
        return Ok(None);
    };
    let newest = known.filter(|(of, _)| *of == number);
    *known = newest.or(peer.ahead.map(|ahead| (number, ahead)));
    if !known.is_some_and(|(_, ahead)| ahead.is_fresh()) {
        *known = None;
        let asked = wall_us();
        let cmd = redis::cmd("TIME");
        match timeout(Duration::from_secs(1), link.send("TIME", &cmd)).await {
            Ok(Ok(time)) => *known = Ahead::of(asked, time).map(|ahead| (number, ahead)),
            Ok(Err(error @ Error::Connection { .. })) => return Err(error),
            // A user who may not ask.
            Ok(Err(_)) => {}
            Err(_) => link.reset().await,
        }
    }
    Ok(known.map(|(_, ahead)| Way {
        number,
        peer,
        ahead,
    }))
}

/// How an armed fetch ended.
pub(super) enum Sprung {
    /// With an answer. The score of the marker, if there was one.
    Fetched(Option<i64>, Fetched),
    /// Nothing was fetched, for lack of the script.
    Unknown(Option<i64>),
    /// Nothing was sent.
    Unsent,
    /// Without an answer.
    Lost,
}

/// Waits for a marker and fetches, under `token` and for that many slots, which are set aside. What went wrong comes along.
pub(super) async fn wait_and_fetch(
    shared: &Arc<Shared>,
    link: &Link,
    seconds: f64,
    way: Way,
    (token, slots): (&str, usize),
) -> (Sprung, Option<Error>) {
    let now = format!("+{}", way.ahead.millis());
    let call = prepare(
        &shared.keys,
        &shared.settings,
        token,
        &[],
        slots,
        now,
        false,
    );
    let sent = Instant::now();
    let (marker, deadline) = marker::pop(&shared.keys, seconds);
    let both = link.call_behind(way.number, marker::WAIT, marker, &call);
    let answers = tokio::select! {
        // What has been answered is not called off.
        biased;
        answers = timeout(deadline, both) => answers,
        () = shared.armed.when_called_off() => {
            link.reset().await;
            shared.armed.lose(Some(way.peer));
            return (Sprung::Lost, None);
        }
    };
    match answers {
        Ok(Ok((marker, fetched))) => {
            let (mark, mut error) = match marker {
                Ok(marker) => (marker::score(marker), None),
                Err(error) => (None, Some(error)),
            };
            let sprung = match fetched {
                // The slots are set aside until the actor has heard of it: those that are taken count twice so long, and it
                // does not end without what is to be written.
                Ok(reply) => {
                    let (mut fetched, brought) =
                        take_reply(shared, &[], token.to_owned(), reply, sent, 0);
                    fetched.again.extend(brought.open(shared));
                    Sprung::Fetched(mark, fetched)
                }
                Err(Error::Server { message, .. })
                    if message.to_ascii_uppercase().contains("NOSCRIPT") =>
                {
                    shared.armed.settle();
                    Sprung::Unknown(mark)
                }
                Err(refused) => {
                    // The script may have ended half-way, and has ended.
                    shared.armed.lose(None);
                    error = Some(refused);
                    Sprung::Lost
                }
            };
            (sprung, error)
        }
        Ok(Err(
            error @ Error::Connection {
                outcome: Outcome::NotDone,
                ..
            },
        )) => {
            shared.armed.settle();
            (Sprung::Unsent, Some(error))
        }
        Ok(Err(error)) => {
            shared.armed.lose(Some(way.peer));
            (Sprung::Lost, Some(error))
        }
        Err(_) => {
            // The server stopped answering without closing: only a new connection helps.
            link.reset().await;
            shared.armed.lose(Some(way.peer));
            (Sprung::Lost, None)
        }
    }
}
