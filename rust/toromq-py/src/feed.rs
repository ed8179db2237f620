//! The events of a queue, as they come.

use std::{sync::Arc, time::Duration};

use pyo3::{exceptions::PyValueError, prelude::*};
use tokio::task::AbortHandle;
use toromq_core::{
    events::{EntryId, Place, Start},
    feed::{Feed, Told},
    keys::QueueKeys,
};

use crate::{
    connection::NativeConnection,
    port::{Item, Port},
    runtime::{self, OfProcess},
};

/// Tells a port of a queue's events until it is closed.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeFeed {
    feed: OfProcess<Feed>,
}

/// Reads what somebody missed who fell behind.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeCatchUp {
    task: OfProcess<AbortHandle>,
}

impl From<Told> for Item {
    fn from(told: Told) -> Self {
        let (what, value) = match told {
            Told::Connected(place) => ("connected", Self::Place(place)),
            Told::Events(events, place) => ("events", Self::Entries(events, place)),
            Told::Lost(after) => ("lost", Self::Text(after.to_string())),
            Told::Trouble(error) => ("error", Self::Failed(error)),
            Told::Closed => ("closed", Self::None),
        };
        Self::Event(what, Box::new(value))
    }
}

fn entry_id(text: &str) -> PyResult<EntryId> {
    EntryId::parse(text)
        .ok_or_else(|| PyValueError::new_err(format!("{text} is no id of an entry")))
}

#[pymethods]
impl NativeFeed {
    /// Starts it, after the entry `after`, or with what happens from now on. `block` in milliseconds.
    #[new]
    fn new(
        port: &Port,
        ticket: u64,
        connection: &NativeConnection,
        prefix: &str,
        queue: &str,
        after: Option<&str>,
        block: u64,
    ) -> PyResult<Self> {
        let start = match after {
            Some(id) => Start::After(entry_id(id)?),
            None => Start::Now,
        };
        let runtime = runtime::handle()?;
        let _entered = runtime.enter();
        let inbox = Arc::clone(&port.inbox);
        let feed = Feed::start(
            &connection.settings,
            connection.link(),
            QueueKeys::new(prefix, queue),
            start,
            Duration::from_millis(block),
            move |told| inbox.put(ticket, told.into()),
        );
        Ok(Self {
            feed: OfProcess::new(feed),
        })
    }

    /// What was told of events was taken: there is room for more.
    fn go_on(&self) {
        if self.feed.is_ours() {
            self.feed.go_on();
        }
    }

    /// Answers with the events after a place, as (entries, the place behind them, whether some went unread, whether there
    /// are no more).
    fn catch_up(
        &self,
        port: &Port,
        ticket: u64,
        place: (String, Option<i64>),
    ) -> PyResult<NativeCatchUp> {
        let inbox = Arc::clone(&port.inbox);
        let caught = self.feed.catch_up(Place {
            position: entry_id(&place.0)?,
            counted: place.1,
        });
        let task = runtime::handle()?.spawn(async move {
            let (events, place, lost, is_last) = caught.await;
            inbox.put(ticket, Item::CaughtUp(events, place, lost, is_last));
        });
        Ok(NativeCatchUp {
            task: OfProcess::new(task.abort_handle()),
        })
    }

    /// Reads no more.
    fn close(&self) {
        if self.feed.is_ours() {
            self.feed.close();
        }
    }
}

#[pymethods]
impl NativeCatchUp {
    /// Answers no more.
    fn cancel(&self) {
        if self.task.is_ours() {
            self.task.abort();
        }
    }
}
