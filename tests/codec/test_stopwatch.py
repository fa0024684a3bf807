import pytest

from distillkit.codec import stopwatch


def test_inner_time_is_not_counted_twice(monkeypatch):
    """By hand: file 0-1 and 3-5 and 6-8, coder 1-3 inside it, transform 5-6 inside; coder again 10-14."""
    moments = iter([0, 1, 3, 5, 6, 8, 10, 14])
    monkeypatch.setattr(stopwatch, "perf_counter", lambda: next(moments))
    watch = stopwatch.Stopwatch()
    with watch.time("file"):
        with watch.time("coder"):
            pass
        with pytest.raises(ZeroDivisionError), watch.time("transform"):
            1 / 0  # noqa: B018
    with watch.time("coder"):
        pass
    assert watch.seconds == {"file": 5, "coder": 6, "transform": 1}
    watch.reset()
    assert watch.seconds == {}
