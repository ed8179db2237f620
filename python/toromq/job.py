"""A job."""

from __future__ import annotations

from typing import Any, cast

from toromq._bridge import NativeByHand, port, to_json
from toromq._failure import failure_of
from toromq._job_fields import DataT, JobFields, ResultT
from toromq.errors import ToroError
from toromq.options import text


class Job(JobFields[DataT, ResultT]):
    """One unit of work, as it was stored when it was read. Data is decoded when it is first looked at."""

    _hand: NativeByHand | None = None

    async def get_state(self) -> str:
        """The state it is in now."""
        return cast(str, await self._queue.get_job_state(self.id))

    async def update_data(self, data: DataT) -> None:
        """Replace its data.

        Raises:
            JobNotFoundError: it was removed.
        """
        stored = to_json(data, "data")
        await port().call(self._queue._native().update_data, self.id, stored)
        self._fields["data"] = stored
        self._decoded.pop("data", None)

    async def update_progress(self, progress: Any) -> None:
        """Store and publish its progress: anything that is JSON.

        Raises:
            JobNotFoundError: it was removed.
        """
        stored = to_json(progress, "progress")
        await port().call(self._queue._native().update_progress, self.id, stored)
        self._fields["progress"] = stored
        self._decoded.pop("progress", None)
        self._queue._progressed(self, progress)

    async def log(self, row: str) -> int:
        """Append a line to its log; gives how many there are.

        Raises:
            JobNotFoundError: it was removed.
        """
        keep = self.opts.get("kl") or 0
        return cast(int, await port().call(self._queue._native().add_log, self.id, text("row", row), int(keep)))

    async def move_to_completed(self, returnvalue: ResultT, token: str, fetch_next: bool = True) -> Any:
        """Finish a job that was fetched by hand; gives the next one, or None, unless `fetch_next` is False.

        Raises:
            LockMissingError, LockMismatchError: the lock is gone; nothing was changed.
        """
        return await self._finish(token, fetch_next, to_json(returnvalue, "returnvalue"), None, None, False)

    async def move_to_failed(self, error: BaseException, token: str, fetch_next: bool = True) -> Any:
        """Fail a job that was fetched by hand; it is tried again if it has attempts left.

        Raises:
            LockMissingError, LockMismatchError: the lock is gone; nothing was changed.
        """
        return await self._finish(token, fetch_next, None, *failure_of(error))

    async def _finish(self, token: str, fetch_next: bool, *outcome: Any) -> Any:
        hand = self._hand
        if hand is None:
            raise ToroError(f"job {self.id} was not fetched by hand; get it with worker.get_next_job(token)")
        await port().call(hand.finish, self.id, token, self.attempts_made, list(self._fields.items()), *outcome)
        if not fetch_next:
            return None
        return by_hand(self._queue, hand, await port().call(hand.fetch, token, False))


def by_hand(queue: Any, hand: NativeByHand, stored: Any) -> Job[Any, Any] | None:
    """A job that its user finishes without a worker's loop."""
    if stored is None:
        return None
    job: Job[Any, Any] = Job(queue, stored)
    job._hand = hand
    return job
