//! Reading the events of a queue, on a connection of their own.
//!
//! What was read is continued from after every outage, and where entries went unread that is said.

use std::{fmt, time::Duration};

use redis::Value;
use tokio::time::{Instant, timeout};

use crate::{
    connection::ConnectionSettings,
    error::{Error, Outcome, Result},
    keys::QueueKeys,
    link::{Call, Link, integer, items, text},
    scripts,
};

// As other clients block; how long a silence lasts before the stream itself is looked at.
const BLOCK: Duration = Duration::from_secs(10);
// How much later than promised an answer may be before the connection is taken for dead.
const GRACE: Duration = Duration::from_secs(1);
// Bounds what one reply holds after an outage.
const MOST: usize = 1000;
// A busy stream is looked at for losses this often, not after every reply.
const BETWEEN_CHECKS: Duration = Duration::from_millis(100);

/// The id of an entry of a stream; later ones are greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    /// Milliseconds since the epoch.
    pub ms: u64,
    /// Which one of its millisecond.
    pub number: u64,
}

impl EntryId {
    /// From its text, `<ms>-<number>`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, number) = text.split_once('-').unwrap_or((text, "0"));
        Some(Self {
            ms: ms.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

fn id_of(entry: &Value) -> Option<EntryId> {
    match entry {
        Value::Array(parts) => EntryId::parse(&text(parts.first()?)),
        _ => None,
    }
}

/// An entry of the events stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the stream.
    pub id: EntryId,
    /// Its name.
    pub name: String,
    /// What else it says, as text that may be no UTF-8.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Event {
    /// From an entry as Redis gives it; `None` for what is no event.
    fn new(entry: Value) -> Option<Self> {
        let id = id_of(&entry)?;
        let mut name = None;
        let mut fields = Vec::new();
        let mut values = items(items(entry).into_iter().nth(1)?).into_iter();
        while let (Some(field), Some(Value::BulkString(value))) = (values.next(), values.next()) {
            match text(&field) {
                field if field == "event" && name.is_none() => {
                    name = Some(String::from_utf8_lossy(&value).into_owned());
                }
                field => fields.push((field, value)),
            }
        }
        Some(Self {
            id,
            name: name?,
            fields,
        })
    }

    /// A field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_slice())
    }

    /// A field as text, empty where it is missing.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.field(name).unwrap_or_default()).into_owned()
    }
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what happens from now on.
    Now,
    /// After this entry; after `0-0`, with the oldest there is.
    After(EntryId),
}

/// What one look at the stream gave.
#[derive(Debug, Default)]
pub struct News {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Whether the connection was made (or made anew) by this look.
    pub connected: bool,
    /// Whether entries may have gone unread: the stream was trimmed past the reader, or deleted.
    pub lost: bool,
    /// Up to where everything that is still there was read.
    pub place: Place,
}

/// How far a stream was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// The last entry that was read.
    pub position: EntryId,
    /// How many entries had ever been added up to it, where that is known: servers before 7.0 don't count.
    pub counted: Option<i64>,
}

impl Place {
    /// Behind an entry, of which nobody knows how many went before.
    #[must_use]
    pub fn after(position: EntryId) -> Self {
        Self {
            position,
            counted: None,
        }
    }

    /// Goes on over a page that was read from here; whether entries went unread since the last page.
    pub(crate) fn turn(&mut self, page: &Page) -> bool {
        let begun_anew = page.last < self.position;
        let read = page.number();
        // Whatever was there before is gone, so all that is left comes after the position.
        let first_left = page.added - page.length;
        let lost = if begun_anew {
            // Deleted and begun anew, or a server that came back with less than it had. What it holds from before may
            // have been read already, so it is not read again.
            true
        } else {
            match self.counted.filter(|_| page.counts()) {
                Some(counted) if page.is_last => counted + read != page.added,
                Some(counted) if !page.joins => counted != first_left,
                // What was before the position is gone, so maybe what came next as well.
                None if !page.joins => self.position != EntryId::default() && first_left != 0,
                _ => false,
            }
        };
        self.counted = if !page.counts() {
            None
        } else if page.is_last {
            Some(page.added)
        } else if !page.joins {
            Some(first_left + read)
        } else {
            self.counted.map(|counted| counted + read)
        };
        self.position = match page.end {
            _ if begun_anew => page.last,
            Some(end) => end,
            // Of a stream that was emptied, it is still known how far it had come.
            None => page.last,
        };
        lost
    }

    /// Goes on over entries that came while nothing else was there to be read.
    fn follow(&mut self, end: EntryId, read: usize) {
        self.position = end;
        self.counted = self.counted.map(|counted| counted + as_count(read));
    }
}

// No stream has more entries than that.
fn as_count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The reply of `read_events`.
pub(crate) struct Page {
    /// Whether an entry at or before the position is there: trimming takes the oldest first, so all after it are.
    joins: bool,
    /// The newest id that the stream ever gave.
    last: EntryId,
    length: i64,
    added: i64,
    entries: Vec<Value>,
    /// The last one of the entries.
    end: Option<EntryId>,
    /// Whether there was nothing behind them.
    pub(crate) is_last: bool,
}

impl Page {
    fn counts(&self) -> bool {
        self.added >= 0
    }

    fn number(&self) -> i64 {
        as_count(self.entries.len())
    }

    /// The place before the oldest entry there is: what went before that was not unread.
    pub(crate) fn beginning(&self) -> Place {
        Place {
            position: EntryId::default(),
            counted: self.counts().then_some(self.added - self.length),
        }
    }

    pub(crate) fn events(self) -> Vec<Event> {
        self.entries.into_iter().filter_map(Event::new).collect()
    }
}

/// Reads what comes after a place, `most` entries of it.
pub(crate) async fn read_page(
    link: &Link,
    keys: &QueueKeys,
    position: Option<EntryId>,
    most: usize,
) -> Result<Page> {
    let mut call = Call::new(&scripts::READ_EVENTS, keys);
    call.arg(position.map_or_else(String::new, |position| position.to_string()))
        .number(most);
    let mut reply = items(link.call(&call).await?);
    let entries = reply.pop().map(items).unwrap_or_default();
    let number = |n: usize| reply.get(n).map_or(0, integer);
    let last = reply.get(1).map(text).and_then(|id| EntryId::parse(&id));
    Ok(Page {
        joins: number(0) > 0,
        last: last.unwrap_or_default(),
        length: number(2),
        added: number(3),
        end: end_of(&entries, keys)?,
        is_last: entries.len() < most,
        entries,
    })
}

fn end_of(entries: &[Value], keys: &QueueKeys) -> Result<Option<EntryId>> {
    let Some(last) = entries.last() else {
        return Ok(None);
    };
    id_of(last).map(Some).ok_or_else(|| {
        Error::Broken(format!(
            "{} holds an entry without an id",
            keys.of("events")
        ))
    })
}

/// Follows the events of a queue. Redis is asked only while somebody calls [`EventReader::read`].
#[derive(Debug)]
pub struct EventReader {
    link: Link,
    keys: QueueKeys,
    most: usize,
    block: Duration,
    place: Place,
    /// Up to where it was looked whether something went unread.
    sure: EntryId,
    /// Whether the place is one: a reader that begins now has none before it was connected.
    placed: bool,
    connected: bool,
    /// Whether the next thing to do is a look at what went unread.
    checks: bool,
    /// Whether entries were read since it was last looked whether some went unread.
    unchecked: bool,
    checked: Instant,
}

impl EventReader {
    /// Nothing is sent until it reads.
    #[must_use]
    pub fn new(connection: &ConnectionSettings, keys: QueueKeys, start: Start) -> Self {
        let position = match start {
            Start::Now => EntryId::default(),
            Start::After(id) => id,
        };
        Self {
            link: Link::blocking(connection, keys.events_client_name()),
            keys,
            most: MOST,
            block: BLOCK,
            place: Place::after(position),
            sure: position,
            placed: start != Start::Now,
            connected: false,
            checks: false,
            unchecked: false,
            checked: Instant::now(),
        }
    }

    /// With at most so many entries in one look.
    #[must_use]
    pub fn with_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// With so long a silence before the stream itself is looked at.
    #[must_use]
    pub fn with_block(self, block: Duration) -> Self {
        Self { block, ..self }
    }

    /// The entry up to which it is known whether something went unread.
    #[must_use]
    pub fn sure(&self) -> EntryId {
        self.sure
    }

    /// The next news: at once that it is connected, later what happened, or after a silence nothing.
    ///
    /// Not to be dropped half-way but with the reader itself: a command that blocks would stay on the connection.
    ///
    /// # Errors
    ///
    /// As [`Link::send`]. Pause, then read again: it goes on from where it was.
    pub async fn read(&mut self) -> Result<News> {
        let news = self.look().await;
        if news.is_err() {
            self.connected = false;
        }
        news
    }

    async fn look(&mut self) -> Result<News> {
        if !self.connected {
            let news = self.connect().await?;
            self.connected = true;
            return Ok(news);
        }
        if self.checks {
            let news = self.turn().await?;
            if news.lost || !news.events.is_empty() || self.checks {
                return Ok(news);
            }
        }
        let block = if self.unchecked {
            BETWEEN_CHECKS.saturating_sub(self.checked.elapsed())
        } else {
            self.block
        };
        let entries = self.wait(block).await?;
        let Some(end) = end_of(&entries, &self.keys)? else {
            // Nothing for so long: what was read meanwhile is checked, or whether this is still the same stream.
            return self.turn().await;
        };
        if self.place.counted.is_none() {
            // It could not be told afterwards whether they are all.
            return self.turn().await;
        }
        if !self.unchecked {
            self.unchecked = true;
            self.checked = Instant::now();
        }
        self.place.follow(end, entries.len());
        self.checks = self.checked.elapsed() >= BETWEEN_CHECKS;
        let events = entries.into_iter().filter_map(Event::new).collect();
        Ok(self.news(events, false))
    }

    /// Reads on with a look at what went unread.
    async fn turn(&mut self) -> Result<News> {
        let page = self.page(Some(self.place.position), self.most).await?;
        let lost = self.place.turn(&page);
        // In the middle of what can be counted, the end will tell.
        if page.is_last || !page.joins || self.place.counted.is_none() {
            self.sure = self.place.position;
        }
        // What can't be counted is only sure page by page.
        self.checks = !page.is_last && self.place.counted.is_none();
        self.unchecked = false;
        Ok(self.news(page.events(), lost))
    }

    fn news(&self, events: Vec<Event>, lost: bool) -> News {
        News {
            events,
            connected: false,
            lost,
            place: self.place,
        }
    }

    /// Finds its place, for the first time or again.
    async fn connect(&mut self) -> Result<News> {
        let mut news = if self.placed {
            if self.place == Place::default() {
                self.place = self.page(None, 0).await?.beginning();
            }
            self.turn().await?
        } else {
            let page = self.page(None, 0).await?;
            self.place = Place {
                position: page.last,
                counted: page.counts().then_some(page.added),
            };
            self.sure = page.last;
            self.placed = true;
            self.news(Vec::new(), false)
        };
        news.connected = true;
        Ok(news)
    }

    async fn page(&self, position: Option<EntryId>, most: usize) -> Result<Page> {
        let patience = self.link.command_timeout();
        let page = read_page(&self.link, &self.keys, position, most);
        self.answered(patience, page).await
    }

    /// The entries after the position, as soon as there are some; none when there were none for so long.
    async fn wait(&self, block: Duration) -> Result<Vec<Value>> {
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("BLOCK")
            // 0 would be for ever.
            .arg(block.as_millis().max(1).to_string())
            .arg("COUNT")
            // Where it can't be counted, this only waits, and what there is is read with a look at what is missing.
            .arg(self.place.counted.map_or(1, |_| self.most))
            .arg("STREAMS")
            .arg(self.keys.of("events"))
            .arg(self.place.position.to_string());
        let reply = self.link.send("read events", &cmd);
        let stream = items(self.answered(block + GRACE, reply).await?);
        let stream = stream.into_iter().next().map(items).unwrap_or_default();
        Ok(stream.into_iter().nth(1).map(items).unwrap_or_default())
    }

    async fn answered<T>(
        &self,
        patience: Duration,
        reply: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match timeout(patience, reply).await {
            Ok(reply) => reply,
            Err(_) => {
                // The server stopped answering without closing: only a new connection helps.
                self.link.reset().await;
                Err(Error::Connection {
                    message: format!(
                        "Redis did not answer the reader of {} within {patience:?}",
                        self.keys.of("events")
                    ),
                    outcome: Outcome::NotDone,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[&str]) -> Value {
        let bulk = |text: &&str| Value::BulkString(text.as_bytes().to_vec());
        let fields = fields.iter().map(bulk).collect();
        Value::Array(vec![bulk(&"17-4"), Value::Array(fields)])
    }

    #[test]
    fn ids_are_ordered_by_time_and_then_by_number() {
        let ids =
            ["0-0", "1-0", "1-9", "1-10", "2-0", "10-0"].map(|id| EntryId::parse(id).unwrap());
        assert!(ids.is_sorted());
        assert_eq!(EntryId::parse("7"), EntryId::parse("7-0"));
        assert_eq!(EntryId::parse("x-1"), None);
        assert_eq!(EntryId { ms: 7, number: 8 }.to_string(), "7-8");
    }

    fn page(joins: bool, last: u64, length: i64, added: i64, read: &[u64], is_last: bool) -> Page {
        let at = |ms| EntryId { ms, number: 0 };
        Page {
            joins,
            last: at(last),
            length,
            added,
            entries: read.iter().map(|_| Value::Nil).collect(),
            end: read.last().copied().map(at),
            is_last,
        }
    }

    fn place(ms: u64, counted: Option<i64>) -> Place {
        Place {
            position: EntryId { ms, number: 0 },
            counted,
        }
    }

    #[test]
    fn a_reader_knows_whether_something_went_unread() {
        let at = |counted| place(7, counted);
        let known = at(Some(20));
        let cases = [
            (
                "nothing new",
                known,
                page(true, 7, 5, 20, &[], true),
                place(7, Some(20)),
                false,
            ),
            (
                "more to read",
                known,
                page(true, 9, 5, 22, &[8, 9], true),
                place(9, Some(22)),
                false,
            ),
            (
                "more than a page",
                known,
                page(true, 30, 5, 43, &[8, 9], false),
                place(9, Some(22)),
                false,
            ),
            (
                "all gone that was read",
                known,
                page(false, 7, 0, 20, &[], true),
                place(7, Some(20)),
                false,
            ),
            (
                "only what was read is gone",
                known,
                page(false, 9, 2, 22, &[8, 9], true),
                place(9, Some(22)),
                false,
            ),
            (
                "that, before a page",
                known,
                page(false, 30, 4, 24, &[8, 9], false),
                place(9, Some(22)),
                false,
            ),
            (
                "more is gone",
                known,
                page(false, 9, 1, 22, &[9], true),
                place(9, Some(22)),
                true,
            ),
            (
                "that, before a page",
                known,
                page(false, 30, 4, 25, &[9, 10], false),
                place(10, Some(23)),
                true,
            ),
            (
                "gone before it was read",
                known,
                page(false, 9, 0, 22, &[], true),
                place(9, Some(22)),
                true,
            ),
            (
                "one was missed before",
                known,
                page(true, 9, 5, 23, &[8, 9], true),
                place(9, Some(23)),
                true,
            ),
            (
                "no stream any more",
                known,
                page(false, 0, 0, 0, &[], true),
                place(0, Some(0)),
                true,
            ),
            (
                "less than was read",
                known,
                page(true, 5, 3, 3, &[], true),
                place(5, Some(3)),
                true,
            ),
            (
                "begun anew meanwhile",
                known,
                page(false, 9, 2, 2, &[8, 9], true),
                place(9, Some(2)),
                true,
            ),
            (
                "from an id that is there",
                at(None),
                page(true, 9, 5, 22, &[8, 9], false),
                place(9, None),
                false,
            ),
            (
                "that, to the end",
                at(None),
                page(true, 9, 5, 22, &[8, 9], true),
                place(9, Some(22)),
                false,
            ),
            (
                "from an id that is gone",
                at(None),
                page(false, 9, 2, 22, &[8, 9], true),
                place(9, Some(22)),
                true,
            ),
            (
                "from before them all",
                at(None),
                page(false, 9, 2, 2, &[8, 9], true),
                place(9, Some(2)),
                false,
            ),
            (
                "a server that can't count",
                at(None),
                page(true, 9, 5, -1, &[8, 9], true),
                place(9, None),
                false,
            ),
            (
                "that, and it is gone",
                at(None),
                page(false, 9, 5, -1, &[8, 9], true),
                place(9, None),
                true,
            ),
            (
                "it can't any more",
                known,
                page(true, 9, 5, -1, &[8, 9], true),
                place(9, None),
                false,
            ),
            (
                "from the oldest on",
                place(0, Some(18)),
                page(false, 9, 4, 22, &[2, 3], false),
                place(3, Some(20)),
                false,
            ),
            (
                "that, trimmed meanwhile",
                place(0, Some(17)),
                page(false, 9, 4, 22, &[3], false),
                place(3, Some(19)),
                true,
            ),
        ];
        for (what, mut place, page, then, lost) in cases {
            assert_eq!(place.turn(&page), lost, "{what}");
            assert_eq!(place, then, "{what}");
        }
    }

    #[test]
    fn what_came_while_it_waited_is_counted() {
        let mut known = place(7, Some(20));
        known.follow(EntryId { ms: 9, number: 0 }, 2);
        assert_eq!(known, place(9, Some(22)));
    }

    #[test]
    fn an_entry_without_a_name_is_no_event() {
        let event = Event::new(entry(&["event", "failed", "jobId", "5", "event", "x"])).unwrap();
        assert_eq!(
            (event.name.as_str(), event.text("jobId")),
            ("failed", "5".to_owned())
        );
        assert_eq!(event.text("event"), "x");
        for bad in [
            entry(&["jobId", "5"]),
            entry(&["event"]),
            entry(&[]),
            Value::Nil,
            Value::Array(vec![]),
        ] {
            assert_eq!(Event::new(bad), None);
        }
    }
}
