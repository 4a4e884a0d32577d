"""An iterator whose next items are made in another thread."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

_END = object()


def ahead(items: Iterator, depth: int = 2) -> Iterator:
    """Yield the items of an iterator, of which so many more are made meanwhile.

    One thread takes the items, in order, and ends when they do, or when this generator is
    closed. What is raised while they are made is raised here, after the items before it.

    Args:
        items: is used from that thread alone.
        depth: items that may wait, 1 or more.
    """
    waiting: queue.Queue = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(kind: object, value: Any) -> bool:
        while not stopped.is_set():
            try:
                waiting.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(None, item):
                    return
        except BaseException as error:  # noqa: BLE001 (raised again where the items are taken)
            put(error, None)
        else:
            put(_END, None)

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    try:
        while True:
            kind, item = waiting.get()
            if kind is _END:
                return
            if isinstance(kind, BaseException):
                raise kind
            yield item
    finally:
        stopped.set()
        maker.join()
