"""Data directories with unusual names."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import redis

from tests.integration.server.users import User, read, write
from toromq import Queue, server
from toromq.server import files


class TestUnusualCharacters:
    def test_a_path_with_spaces_and_percent_signs_works_and_is_quoted_in_the_url(self, directory: Path) -> None:
        odd = directory / "my data 100% #1?"
        with server.connect(odd) as used:
            assert "%20" in used.url
            assert "#" not in used.url
            with redis.Redis.from_url(used.url, protocol=2) as client:
                assert client.ping() is True

    @pytest.mark.parametrize(
        "name",
        [
            *("a b", " a ", "100%", "100%25", "a%2Fb", "a?db=7", "a#1", "user:word@host", "a:b", "a+b;c&d=e", "[::1]"),
            *("back\\slash", "quote'\"", "tab\tline\n", "h\xe9llo \u65e5\u672c", "not UTF-8 \udcff", "-", "~"),
        ],
        ids=ascii,
    )
    async def test_a_queue_works_in_a_directory_of_this_name(self, directory: Path, name: str) -> None:
        path = directory / name
        try:
            async with Queue("paths", connection=f"embedded:{path}") as queue:
                added = await queue.add("job", {"number": 1})
                url = server.status(path).url
                async with Queue("paths", connection=url) as by_url:
                    for found in (await queue.get_job(added.id), await by_url.get_job(added.id)):
                        assert found is not None
                        assert found.data == {"number": 1}
        finally:
            server.stop(path)


class TestLongPath:
    def test_a_path_too_long_for_a_unix_socket_gets_its_socket_in_a_private_folder_elsewhere(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runtime = directory.parent / "run"
        runtime.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        long = directory / ("x" * 60) / ("y" * 60)
        with server.connect(long) as used:
            socket_path = Path(used.socket_path)
            assert socket_path.parent == runtime / f"toromq-{os.getuid()}"
            assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
            # Another process with another idea of the temp directory must still find it.
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory.parent))
            with User(long) as user:
                assert user.server_pid() == used.pid
                user.leave()
            write(used, "key", "value")
        with server.connect(long) as used:
            assert read(used, "key") == "value"

    def test_a_folder_in_the_temp_directory_that_others_can_open_is_not_trusted(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runtime = directory.parent / "run"
        (runtime / f"toromq-{os.getuid()}").mkdir(parents=True)
        (runtime / f"toromq-{os.getuid()}").chmod(0o777)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        chosen = files.choose_socket_path(directory / ("x" * 120))
        assert not Path(chosen).is_relative_to(runtime)
