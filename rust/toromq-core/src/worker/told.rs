//! What the actor is told by the task that waits: a message lies there first, and the actor is woken for it after that, in
//! its own time. Whatever else wakes it meanwhile, it hears the message before it does anything.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::exchange::Fetched;

/// A message.
pub(super) enum Told {
    /// The score of the marker it took, or that there was none for so long.
    Mark(Option<i64>),
    /// The same, and what the armed fetch behind it brought for the slots that were set aside, of which there were so many.
    Fetched(Option<i64>, Fetched, usize),
    /// It is not known what became of the armed fetch.
    Lost,
    /// Limits of the queue were removed or changed.
    LimitsChanged,
}

/// With what tells its sender that it was taken.
type Message = (Told, oneshot::Sender<()>);

#[derive(Default)]
struct Place {
    message: Option<Message>,
    /// Whether none will follow.
    is_over: bool,
}

#[derive(Default)]
struct Between {
    place: Mutex<Place>,
    rung: Notify,
}

impl Between {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who tells.
pub(super) struct Teller(Arc<Between>);

/// Who is told.
pub(super) struct Hearer(Arc<Between>);

pub(super) fn channel() -> (Teller, Hearer) {
    let between = Arc::default();
    (Teller(Arc::clone(&between)), Hearer(between))
}

impl Teller {
    /// Lays a message down, after the one before was taken; gives what tells that this one was.
    pub(super) fn lay(&self, told: Told) -> oneshot::Receiver<()> {
        let (taken, is_taken) = oneshot::channel();
        self.0.place().message = Some((told, taken));
        is_taken
    }

    /// Wakes the actor for it.
    pub(super) fn ring(&self) {
        self.0.rung.notify_one();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.place().is_over = true;
        self.ring();
    }
}

impl Hearer {
    pub(super) fn is_empty(&self) -> bool {
        self.0.place().message.is_none()
    }

    pub(super) fn try_hear(&self) -> Option<Message> {
        self.0.place().message.take()
    }

    /// The next message, or `None` where none will come.
    pub(super) async fn hear(&self) -> Option<Message> {
        loop {
            let rung = self.0.rung.notified();
            {
                let mut place = self.0.place();
                if let Some(message) = place.message.take() {
                    return Some(message);
                }
                if place.is_over {
                    return None;
                }
            }
            rung.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_heard_before_anybody_rings() {
        let (teller, hearer) = channel();
        assert!(hearer.is_empty());
        let mut is_taken = teller.lay(Told::Lost);
        assert!(is_taken.try_recv().is_err());
        let (told, taken) = hearer.try_hear().unwrap();
        assert!(matches!(told, Told::Lost) && hearer.is_empty());
        taken.send(()).unwrap();
        is_taken.await.unwrap();
        // Nor is it heard again when they do.
        teller.ring();
        let _is_taken = teller.lay(Told::LimitsChanged);
        let heard = hearer.hear().await.unwrap();
        assert!(matches!(heard.0, Told::LimitsChanged));
        drop(teller);
        assert!(hearer.hear().await.is_none());
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_ring_and_by_the_end() {
        let (teller, hearer) = channel();
        let hearing = tokio::spawn(async move {
            let heard = hearer.hear().await;
            (heard.map(|(told, _)| told), hearer.hear().await.is_none())
        });
        tokio::task::yield_now().await;
        let _is_taken = teller.lay(Told::Mark(Some(7)));
        teller.ring();
        tokio::task::yield_now().await;
        drop(teller);
        let (told, is_over) = hearing.await.unwrap();
        assert!(matches!(told, Some(Told::Mark(Some(7)))) && is_over);
    }
}
