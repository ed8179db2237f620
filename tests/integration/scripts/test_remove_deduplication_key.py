"""``remove_deduplication_key``: who may end a window."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import NewJob, Queue


@pytest.mark.parametrize(
    ("job_id", "removed"),
    [
        pytest.param("", True, id="whoever owns it"),
        pytest.param("1", True, id="the owner"),
        pytest.param("2", False, id="another job"),
    ],
)
def test_a_window_is_ended_by_its_owner_or_by_name(mail: Queue, job_id: str, removed: bool) -> None:
    mail.add(NewJob(more={"deduplication_id": "D"}), NewJob(more={"deduplication_id": "E"}))
    reply, changed = mail.call("remove_deduplication_key", at={"owner": "de:D"}, job_id=job_id)
    assert reply == int(removed)
    assert changed == ({"de:D": None} if removed else {})


@pytest.mark.parametrize("job_id", ["", "1"])
def test_there_is_no_window_to_end(mail: Queue, job_id: str) -> None:
    assert mail.call("remove_deduplication_key", at={"owner": "de:D"}, job_id=job_id) == (0, {})
