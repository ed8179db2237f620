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
    /// The entry up to which everything that is still there was read.
    pub position: EntryId,
}

/// How to tell later that nothing after a position went unread.
#[derive(Debug, Clone, Copy)]
enum Anchor {
    /// There was an entry at it: trimming takes the oldest first, so while it stands, so does all that came after it.
    Entry,
    /// The stream was empty, and so many entries had ever been in it (-1 where the server does not count).
    Counted(i64),
}

impl Anchor {
    fn holds(self, end: &End) -> bool {
        match self {
            Self::Entry => end.present,
            Self::Counted(added) => added >= 0 && end.added - added == end.length,
        }
    }
}

/// The reply of `check_events`.
struct End {
    present: bool,
    last: EntryId,
    length: i64,
    added: i64,
}

impl End {
    fn anchor(&self) -> Anchor {
        if self.length > 0 {
            Anchor::Entry
        } else {
            Anchor::Counted(self.added)
        }
    }
}

/// Follows the events of a queue. Redis is asked only while somebody calls [`EventReader::read`].
#[derive(Debug)]
pub struct EventReader {
    link: Link,
    keys: QueueKeys,
    position: EntryId,
    anchor: Anchor,
    /// Whether the position is one: a reader that begins now has none before it was connected.
    placed: bool,
    connected: bool,
    /// The oldest position since which it was not looked whether something went unread, and when it was left.
    unchecked: Option<(EntryId, Anchor)>,
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
            position,
            anchor: if position == EntryId::default() {
                Anchor::Counted(0)
            } else {
                Anchor::Entry
            },
            placed: start != Start::Now,
            connected: false,
            unchecked: None,
            checked: Instant::now(),
        }
    }

    /// The next news: at once that it is connected, later what happened, or after ten seconds of silence nothing.
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
            let lost = self.connect().await?;
            self.connected = true;
            return Ok(News {
                connected: true,
                ..self.news(Vec::new(), lost)
            });
        }
        let mut block = BLOCK;
        if let Some((position, anchor)) = self.unchecked {
            block = BETWEEN_CHECKS.saturating_sub(self.checked.elapsed());
            if block.is_zero() {
                let lost = self.check(position, anchor).await?;
                self.unchecked = None;
                self.checked = Instant::now();
                if lost {
                    return Ok(self.news(Vec::new(), true));
                }
                block = BLOCK;
            }
        }
        let entries = self.wait(block).await?;
        if let Some(last) = entries.last() {
            let id = id_of(last).ok_or_else(|| {
                Error::Broken(format!("{} holds an entry without an id", self.events()))
            })?;
            self.unchecked.get_or_insert((self.position, self.anchor));
            (self.position, self.anchor) = (id, Anchor::Entry);
            let events = entries.into_iter().filter_map(Event::new).collect();
            return Ok(self.news(events, false));
        }
        if self.unchecked.is_some() {
            return Ok(self.news(Vec::new(), false));
        }
        let end = self.end(Some(self.position)).await?;
        let lost = self.settle(&end);
        Ok(self.news(Vec::new(), lost))
    }

    fn news(&self, events: Vec<Event>, lost: bool) -> News {
        News {
            events,
            connected: false,
            lost,
            position: self.position,
        }
    }

    fn events(&self) -> String {
        self.keys.of("events")
    }

    /// Finds its place, for the first time or again; gives whether entries went unread.
    async fn connect(&mut self) -> Result<bool> {
        if !self.placed {
            let end = self.end(None).await?;
            self.position = end.last;
            self.anchor = end.anchor();
            self.placed = true;
            return Ok(false);
        }
        let end = self.end(Some(self.position)).await?;
        Ok(self.settle(&end))
    }

    /// After a silence or an outage: whether this is still the stream that was read, and its end where we are. Gives
    /// whether entries went unread.
    fn settle(&mut self, end: &End) -> bool {
        let lost = if end.last < self.position {
            // Deleted and begun anew, or a server that came back with less than it had. What it holds from before may
            // have been read already, so it is not read again.
            true
        } else if end.length == 0 {
            end.last > self.position || self.unchecked.is_some()
        } else {
            return false;
        };
        self.position = end.last;
        self.anchor = end.anchor();
        self.unchecked = None;
        lost
    }

    /// Whether entries after a position went unread.
    async fn check(&self, position: EntryId, anchor: Anchor) -> Result<bool> {
        Ok(!anchor.holds(&self.end(Some(position)).await?))
    }

    async fn end(&self, position: Option<EntryId>) -> Result<End> {
        let mut call = Call::new(&scripts::CHECK_EVENTS, &self.keys);
        call.arg(position.map_or_else(String::new, |position| position.to_string()));
        let patience = self.link.command_timeout();
        let reply = items(self.answered(patience, self.link.call(&call)).await?);
        let number = |n: usize| reply.get(n).map_or(0, integer);
        let last = reply.get(1).map(text).and_then(|id| EntryId::parse(&id));
        Ok(End {
            present: number(0) > 0,
            last: last.unwrap_or_default(),
            length: number(2),
            added: number(3),
        })
    }

    /// The entries after the position, as soon as there are some; none when there were none for so long.
    async fn wait(&self, block: Duration) -> Result<Vec<Value>> {
        let events = self.events();
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("BLOCK")
            // 0 would be for ever.
            .arg(block.as_millis().max(1).to_string())
            .arg("COUNT")
            .arg(MOST)
            .arg("STREAMS")
            .arg(events)
            .arg(self.position.to_string());
        let reply = self.link.send("read events", &cmd);
        let stream = items(self.answered(block + GRACE, reply).await?);
        let stream = stream.into_iter().next().map(items).unwrap_or_default();
        Ok(stream.into_iter().nth(1).map(items).unwrap_or_default())
    }

    async fn answered(
        &self,
        patience: Duration,
        reply: impl Future<Output = Result<Value>>,
    ) -> Result<Value> {
        match timeout(patience, reply).await {
            Ok(reply) => reply,
            Err(_) => {
                // The server stopped answering without closing: only a new connection helps.
                self.link.reset().await;
                Err(Error::Connection {
                    message: format!(
                        "Redis did not answer the reader of {} within {patience:?}",
                        self.events()
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
    use crate::connection::{Address, ConnectionOptions};

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

    fn end(present: bool, last: u64, length: i64, added: i64) -> End {
        let last = EntryId {
            ms: last,
            number: 0,
        };
        End {
            present,
            last,
            length,
            added,
        }
    }

    fn reader_at(ms: u64, anchor: Anchor) -> EventReader {
        let settings = ConnectionSettings::new(ConnectionOptions {
            address: Address::Tcp("localhost".to_owned(), 1, None),
            db: 0,
            username: None,
            password: None,
            client_name: None,
            connect_timeout: Duration::ZERO,
            command_timeout: Duration::ZERO,
        });
        let start = Start::After(EntryId { ms, number: 0 });
        let mut reader =
            EventReader::new(&settings.unwrap(), QueueKeys::new("bull", "mail"), start);
        reader.anchor = anchor;
        reader
    }

    #[test]
    fn nothing_went_unread_while_the_last_read_entry_stands_or_all_that_were_added_since() {
        assert!(Anchor::Entry.holds(&end(true, 9, 5, 20)));
        assert!(!Anchor::Entry.holds(&end(false, 9, 5, 20)));
        assert!(Anchor::Counted(15).holds(&end(false, 9, 5, 20)));
        assert!(!Anchor::Counted(14).holds(&end(false, 9, 5, 20)));
        // Servers before 7.0 don't count.
        assert!(!Anchor::Counted(-1).holds(&end(false, 9, 5, -1)));
        assert!(!Anchor::Counted(0).holds(&end(false, 9, 5, -1)));
    }

    #[test]
    fn after_a_silence_the_reader_knows_whether_the_stream_is_still_the_one_it_read() {
        let cases = [
            ("nothing new", end(true, 7, 5, 20), 7, false),
            ("more to read", end(true, 9, 5, 20), 7, false),
            ("more to read, some gone", end(false, 9, 5, 20), 7, false),
            ("all gone that was read", end(false, 7, 0, 20), 7, false),
            ("gone before it was read", end(false, 9, 0, 20), 9, true),
            ("no stream any more", end(false, 0, 0, 0), 0, true),
            ("less than was read", end(false, 5, 3, 3), 5, true),
        ];
        for (what, end, position, lost) in cases {
            let mut reader = reader_at(7, Anchor::Entry);
            assert_eq!(reader.settle(&end), lost, "{what}");
            assert_eq!(reader.position.ms, position, "{what}");
        }
    }

    #[test]
    fn a_stream_emptied_before_it_was_looked_at_may_have_lost_something() {
        let mut reader = reader_at(7, Anchor::Entry);
        reader.unchecked = Some((EntryId::default(), Anchor::Entry));
        assert!(reader.settle(&end(false, 7, 0, 20)));
        assert!(!reader.settle(&end(false, 7, 0, 20)));
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
