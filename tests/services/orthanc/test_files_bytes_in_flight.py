import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.errors import OrthancUnavailable
from services.orthanc.files import BytesInFlight
from services.tasks import AbortSignal

_PATIENCE_SECONDS = 10


class Sending:
    """Files that are under way until they are let go."""

    def __init__(self, in_flight: BytesInFlight, threads: ThreadPoolExecutor) -> None:
        self._in_flight = in_flight
        self._threads = threads
        self.entered: list[str] = []
        self._has_entered = threading.Condition()

    def send(self, name: str, size_bytes: int) -> threading.Event:
        """Begin to send a file; it is under way until the event is set."""
        done = threading.Event()
        self._threads.submit(self._hold, name, size_bytes, done)
        return done

    def _hold(self, name: str, size_bytes: int, done: threading.Event) -> None:
        with self._in_flight.holding(size_bytes):
            with self._has_entered:
                self.entered.append(name)
                self._has_entered.notify_all()
            done.wait(_PATIENCE_SECONDS)

    def wait_for(self, *names: str) -> None:
        """Wait until exactly these have entered, in this order."""
        with self._has_entered:
            assert self._has_entered.wait_for(
                lambda: len(self.entered) >= len(names), _PATIENCE_SECONDS
            )
        assert self.entered == list(names)


def test_files_go_side_by_side_within_the_limit_and_nobody_is_overtaken() -> None:
    with ThreadPoolExecutor(4) as threads:
        sending = Sending(BytesInFlight(100), threads)
        first = sending.send("60", 60)
        sending.wait_for("60")
        second = sending.send("40", 40)
        sending.wait_for("60", "40")
        large = sending.send("300", 300)
        second.set()
        # The large one waits for the first, and lets no small one pass meanwhile.
        while len(sending._in_flight._waiting) != 1:
            threading.Event().wait(0.001)
        small = sending.send("1", 1)
        assert sending.entered == ["60", "40"]
        first.set()
        sending.wait_for("60", "40", "300")
        large.set()
        sending.wait_for("60", "40", "300", "1")
        small.set()


def test_a_file_that_waits_can_be_aborted_and_lets_the_next_one_pass() -> None:
    in_flight, abort = BytesInFlight(10), AbortSignal()
    with ThreadPoolExecutor(2) as threads, in_flight.holding(5):
        sending = Sending(in_flight, threads)

        def wait_in_vain() -> None:
            with in_flight.holding(10, abort):
                raise AssertionError

        waiting = threads.submit(wait_in_vain)
        while len(in_flight._waiting) != 1:
            threading.Event().wait(0.001)
        small = sending.send("5", 5)
        assert sending.entered == []
        abort.set()
        with pytest.raises(OrthancUnavailable):
            waiting.result(_PATIENCE_SECONDS)
        sending.wait_for("5")
        small.set()


def test_a_file_that_fails_makes_room() -> None:
    in_flight = BytesInFlight(10)
    for _ in range(3):
        with pytest.raises(OSError, match="broken"), in_flight.holding(10):
            raise OSError("broken")
    with in_flight.holding(10):
        assert in_flight._held_bytes == 10
    assert in_flight._held_bytes == 0
