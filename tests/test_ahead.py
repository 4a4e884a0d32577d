"""Items made in another thread: their order, their errors, and that the thread ends."""

import threading
import time

import pytest

from jointnet.prediction import ahead


def test_items_come_in_their_order_from_one_other_thread():
    makers = set()

    def make():
        for number in range(50):
            makers.add(threading.get_ident())
            yield number

    assert list(ahead(make())) == list(range(50))
    assert len(makers) == 1
    assert threading.get_ident() not in makers


def test_no_more_than_asked_for_are_made_in_advance():
    made = []

    def make():
        for number in range(20):
            made.append(number)
            yield number

    items = ahead(make(), depth=3)
    assert next(items) == 0
    time.sleep(0.3)
    # Three wait, and one is in hand; the first is taken.
    assert len(made) <= 5
    assert list(items) == list(range(1, 20))


def test_what_goes_wrong_is_raised_after_the_items_before_it():
    def make():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    items = ahead(make())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)


def test_the_thread_ends_when_nobody_takes_more():
    before = threading.active_count()
    items = ahead(iter(range(1000)))
    next(items)
    assert threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before


def test_no_items_are_a_case():
    assert list(ahead(iter(()))) == []
