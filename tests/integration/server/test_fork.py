"""Forked children are users only if they connect, and never in the place of their parent."""

from __future__ import annotations

from pathlib import Path

from tests.integration.server.users import User
from tests.support.eventually import eventually
from toromq import server


class TestFork:
    def test_a_forked_child_that_exits_leaves_the_server_to_its_parent(self, directory: Path) -> None:
        script = """
import os, sys
from toromq import server
used = server.connect(sys.argv[1])
child = os.fork()
if child == 0:
    used.release()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
print(used.pid, flush=True)
# The lock must have survived as well: another process that comes and goes is not the last user.
import subprocess
subprocess.run([sys.executable, "-c",
    "import sys; from toromq import server; server.connect(sys.argv[1]).release()", sys.argv[1]], check=True)
print(used.pid, flush=True)
sys.stdin.read()
"""
        with User(directory, script) as user:
            pid = user.read_line()
            assert pid.isdigit()
            assert user.read_line() == pid
            user.leave()
        assert server.status(directory).pid is None

    def test_a_forked_child_that_lives_on_does_not_keep_the_server_of_its_parent(self, directory: Path) -> None:
        script = """
import os, sys
from toromq import server
used = server.connect(sys.argv[1])
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
used.release()
print(server.status(sys.argv[1]).running, flush=True)
os.waitpid(child, 0)
"""
        with User(directory, script) as user:
            assert user.read_line() == "False"
            user.leave()

    def test_a_forked_child_that_connects_is_a_user_of_its_own(self, directory: Path) -> None:
        script = """
import os, sys
from toromq import server
used = server.connect(sys.argv[1])
pid = used.pid
child = os.fork()
if child == 0:
    used.ensure()
    print(used.pid == pid, flush=True)
    sys.stdin.read()
    sys.exit(0)
os.close(0)
# The parent's part of the process group ends here; only the child still uses the server.
os._exit(0)
"""
        with User(directory, script) as user:
            assert user.read_line() == "True"
            assert user.process.wait(30) == 0
            with User(directory) as other:
                other.server_pid()
                other.leave()
            assert server.status(directory).running
            user.process.communicate(timeout=30)
        eventually(lambda: server.status(directory).pid is None)

    def test_a_forked_child_does_not_hold_the_place_of_its_killed_parent(self, directory: Path) -> None:
        script = """
import os, sys
from toromq import server
used = server.connect(sys.argv[1])
child = os.fork()
if child == 0:
    print("alive", flush=True)
    sys.stdin.read()
    os._exit(0)
os.waitpid(child, 0)
"""
        with User(directory, script) as user:
            user.read_line()
            user.process.kill()
            user.process.wait(30)
            # The orphan still runs, because its stdin is still open.
            server.connect(directory).release()
            assert server.status(directory).pid is None
            user.process.communicate(timeout=30)

    def test_children_forked_while_another_thread_starts_the_server_neither_block_it_nor_keep_it(
        self, directory: Path
    ) -> None:
        script = """
import os, subprocess, sys, threading, warnings
warnings.simplefilter("ignore")
from toromq import server
from toromq.server import embedded
launching = threading.Event()
run = subprocess.run
def announced_run(*args, **kwargs):
    launching.set()
    return run(*args, **kwargs)
subprocess.run = announced_run
thread = threading.Thread(target=server.connect, args=(sys.argv[1],))
thread.start()
launching.wait()
children = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        sys.stdin.read()
        os._exit(0)
    children.append(child)
thread.join()
embedded.release_all()
print(server.status(sys.argv[1]).running, flush=True)
sys.stdin.read()
for child in children:
    os.waitpid(child, 0)
"""
        with User(directory, script) as user:
            assert user.read_line() == "False"
            user.leave()
