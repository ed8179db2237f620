//! The events of a queue for somebody who takes them at their own pace.
//!
//! What was read and not taken yet is bounded: until it is taken, nothing more is read. The stream holds the rest.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    connection::ConnectionSettings,
    error::{Error, Result},
    events::{EntryId, Event, EventReader, Place, Start, read_page},
    keys::QueueKeys,
    link::{Backoff, Link},
};

// How many batches are on their way or being taken: one is read while the other is worked on.
const UNTAKEN: usize = 2;
// Of a batch, so that whoever takes it can do other things in between.
const MOST: usize = 250;
// Between tries while Redis is away: milliseconds, as workers pause.
const LONGEST_PAUSE: u64 = 1000;

/// What is told of a queue's events.
#[derive(Debug)]
pub enum Told {
    /// From here on nothing is missed.
    Connected(Place),
    /// What happened, and how far it was read with it. It wants a [`Feed::go_on`].
    Events(Vec<Event>, Place),
    /// Entries after this one may have gone unread.
    Lost(EntryId),
    /// Why there is nothing at present.
    Trouble(Error),
    /// This was the last.
    Closed,
}

/// Reads the events of a queue on a connection of its own until it is closed or dropped, whatever becomes of Redis.
#[derive(Debug)]
pub struct Feed {
    room: Arc<Semaphore>,
    closed: CancellationToken,
    link: Arc<Link>,
    keys: QueueKeys,
}

impl Feed {
    /// Starts. `link` is for those who fell behind; `block` is how long a silence lasts before the stream itself is
    /// looked at. Must be called within a Tokio runtime.
    pub fn start(
        connection: &ConnectionSettings,
        link: Arc<Link>,
        keys: QueueKeys,
        start: Start,
        block: Duration,
        tell: impl Fn(Told) + Send + Sync + 'static,
    ) -> Self {
        let feed = Self {
            room: Arc::new(Semaphore::new(UNTAKEN)),
            closed: CancellationToken::new(),
            link,
            keys: keys.clone(),
        };
        let reader = EventReader::new(connection, keys, start)
            .with_most(MOST)
            .with_block(block);
        let (room, closed) = (Arc::clone(&feed.room), feed.closed.clone());
        tokio::spawn(async move {
            closed
                .run_until_cancelled(follow(reader, &room, &tell))
                .await;
            tell(Told::Closed);
        });
        feed
    }

    /// A batch was taken.
    pub fn go_on(&self) {
        self.room.add_permits(1);
    }

    /// Reads no more.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// What comes after a place, for whoever does not take what the others take: the next events, the place behind them,
    /// whether entries went unread, and whether these were the last ones there are. It tries until there is an answer, or
    /// it was closed.
    pub fn catch_up(
        &self,
        place: Place,
    ) -> impl Future<Output = (Vec<Event>, Place, bool, bool)> + Send + use<> {
        let (link, keys, closed) = (
            Arc::clone(&self.link),
            self.keys.clone(),
            self.closed.clone(),
        );
        async move {
            let caught = closed.run_until_cancelled(async {
                let mut backoff = Backoff::new(LONGEST_PAUSE);
                loop {
                    if let Ok(caught) = next_page(&link, &keys, place).await {
                        return caught;
                    }
                    backoff.pause().await;
                }
            });
            caught.await.unwrap_or((Vec::new(), place, false, true))
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.close();
    }
}

async fn next_page(
    link: &Link,
    keys: &QueueKeys,
    mut place: Place,
) -> Result<(Vec<Event>, Place, bool, bool)> {
    if place == Place::default() {
        place = read_page(link, keys, None, 0).await?.beginning();
    }
    let page = read_page(link, keys, Some(place.position), MOST).await?;
    let lost = place.turn(&page);
    let is_last = page.is_last;
    Ok((page.events(), place, lost, is_last))
}

async fn follow(mut reader: EventReader, room: &Semaphore, tell: &impl Fn(Told)) {
    let mut backoff = Backoff::new(LONGEST_PAUSE);
    loop {
        let Ok(permit) = room.acquire().await else {
            return;
        };
        let before = reader.sure();
        match reader.read().await {
            Ok(news) => {
                backoff.reset();
                if news.connected {
                    tell(Told::Connected(news.place));
                }
                if news.lost {
                    tell(Told::Lost(before));
                }
                if !news.events.is_empty() {
                    permit.forget();
                    tell(Told::Events(news.events, news.place));
                }
            }
            Err(error) => {
                tell(Told::Trouble(error));
                backoff.pause().await;
            }
        }
    }
}
