import pytest

from services.errors import OrthancNotFound, OrthancTimedOut, OrthancUnavailable
from services.orthanc.transport import CircuitBreaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def call(breaker: CircuitBreaker, error: Exception | None = None) -> None:
    with breaker.guarded():
        if error is not None:
            raise error


def fail(breaker: CircuitBreaker, error: Exception) -> None:
    with pytest.raises(type(error)):
        call(breaker, error)


def opened() -> tuple[CircuitBreaker, Clock]:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    for _ in range(3):
        assert not breaker.is_open
        fail(breaker, OrthancUnavailable())
    return breaker, clock


def test_three_faults_open_it_and_calls_are_refused_unsent() -> None:
    breaker, _ = opened()
    reached = []
    with pytest.raises(OrthancUnavailable) as refused, breaker.guarded():
        reached.append(True)
    assert refused.value.detail == "circuit breaker is open"
    assert reached == []


def test_one_probe_at_a_time_goes_through_and_closes_it() -> None:
    breaker, clock = opened()
    clock.now += 0.5
    with breaker.guarded():
        fail(breaker, OrthancUnavailable())
    assert not breaker.is_open


def test_a_failing_probe_keeps_it_open() -> None:
    breaker, clock = opened()
    clock.now += 0.5
    fail(breaker, OrthancUnavailable())
    with pytest.raises(OrthancUnavailable):
        call(breaker)
    clock.now += 0.5
    call(breaker)
    assert not breaker.is_open


def test_an_answer_between_faults_keeps_it_closed() -> None:
    breaker = CircuitBreaker(Clock())
    for _ in range(5):
        fail(breaker, OrthancUnavailable())
        fail(breaker, OrthancUnavailable())
        fail(breaker, OrthancNotFound())
    assert not breaker.is_open


def test_slow_answers_and_old_faults_do_not_count() -> None:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    for _ in range(5):
        fail(breaker, OrthancTimedOut())
        fail(breaker, OrthancUnavailable())
        clock.now += 6
    assert not breaker.is_open
