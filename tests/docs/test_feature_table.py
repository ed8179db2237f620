"""The page of features says what is true: every public name has a test, and every name of BullMQ is accounted for."""

from __future__ import annotations

import pytest

from tests.docs.feature_table import COMMAND, SURFACE, TABLE, render, sections, theirs_of, unseen_of, with_tests


@pytest.mark.parametrize("section", with_tests(), ids=lambda section: section.title)
def test_every_public_name_has_a_test(section: object) -> None:
    rows = section.rows  # type: ignore[attr-defined]
    assert [row.ours for row in rows if row.alone is None and row.across is None] == []


@pytest.mark.parametrize("section", with_tests(), ids=lambda section: section.title)
def test_every_public_name_is_tested_across_clients_or_says_why_not(section: object) -> None:
    rows = section.rows  # type: ignore[attr-defined]
    # A test in tests/interop, or a reason in bullmq_surface.toml under `unseen`.
    assert [row.ours for row in rows if row.across is None and row.unseen is None] == []


@pytest.mark.parametrize("title", SURFACE)
def test_what_no_client_can_see_exists(title: str) -> None:
    (section,) = (section for section in sections() if section.title == title)
    assert unseen_of(title).keys() <= {row.ours for row in section.rows}


@pytest.mark.parametrize("title", SURFACE)
def test_every_name_of_bullmq_is_here_or_explained(title: str) -> None:
    (section,) = (section for section in sections() if section.title == title)
    ours = {row.ours for row in section.rows}
    assert {name: theirs for name, theirs in theirs_of(title).items() if name not in ours} == {}


@pytest.mark.parametrize("title", SURFACE)
def test_what_is_explained_as_absent_is_absent(title: str) -> None:
    stated = SURFACE[title]
    names = set(stated["names"].split())
    for key in ("absent", "renamed"):
        assert set(stated.get(key, {})) <= names, key


@pytest.mark.parametrize("title", ["Queue", "Job", "Worker", "FlowProducer", "QueueEvents", "QueueEventsProducer"])
def test_both_faces_have_every_public_name(title: str) -> None:
    (section,) = (section for section in sections() if section.title == title)
    assert [row.ours for row in section.rows if row.faces != "both"] == []


def test_the_page_is_fresh() -> None:
    stored = TABLE.read_text(encoding="utf-8") if TABLE.exists() else ""
    assert stored == render(), f"docs/features.md is stale; write it again with {COMMAND}"
