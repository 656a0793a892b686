"""Runs the work on parts: in this process, or in several.

An engine is a function `engine(work, parts)`. It calls `work(part, broken)` for each part, in any
order, and yields (part, event) for each event that the call yields: one for each item of the part
that is done, and one for the whole part. `broken` holds the numbers of the items whose work ended
its process twice, because a file may crash a decoder.
"""

import collections
import contextlib
import dataclasses
import multiprocessing
import signal
from collections.abc import Callable, Collection, Iterable, Iterator
from multiprocessing import connection
from typing import Any

from stunet.errors import UserError
from stunet.signals import end_with_parent

Work = Callable[[Any, Collection[int]], Iterator[Any]]
Engine = Callable[[Work, Iterable[Any]], Iterator[tuple[Any, Any]]]

# What a worker process reports.
_EVENT, _DONE, _ERROR = "event", "done", "error"


def serial(work: Work, parts: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Runs the work in this process. A file that crashes a decoder ends the program."""
    for part in parts:
        for event in work(part, ()):
            yield part, event


def processes(count: int) -> Engine:
    """Returns an engine that runs the work in `count` processes.

    The work and the parts must be picklable. Workers that are stopped may leave temporary files.
    """

    def run(work: Work, parts: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        tasks, again = map(_Task, parts), collections.deque()
        workers: dict[connection.Connection, _Worker] = {}

        def next_task() -> _Task | None:
            return again.popleft() if again else next(tasks, None)

        try:
            while True:
                while len(workers) < count and (task := next_task()):
                    worker = _Worker(work)
                    worker.give(task)
                    workers[worker.pipe] = worker
                if not workers:
                    return
                for pipe in connection.wait(list(workers)):
                    worker = workers[pipe]
                    try:
                        kind, value = pipe.recv()
                    except (EOFError, OSError):
                        again.append(worker.task.after_crash(worker.items))
                        workers.pop(pipe).stop()
                        continue
                    if kind == _EVENT:
                        worker.items += 1
                        yield worker.task.part, value
                    elif kind == _ERROR:
                        raise value
                    elif task := next_task():
                        worker.give(task)
                    else:
                        workers.pop(pipe).stop()
        finally:
            for worker in workers.values():
                worker.stop()

    return run


@dataclasses.dataclass(frozen=True)
class _Task:
    """Holds a part, and what is known of the processes that died while they worked on it.

    Attributes:
        part: the part.
        broken: numbers of items that are left out.
        suspect: number of the item on which a process died once.
    """

    part: Any
    broken: frozenset[int] = frozenset()
    suspect: int | None = None

    def after_crash(self, item: int) -> "_Task":
        """Returns the task to run after a process died on item number `item`.

        A process may also die for want of memory, so each item has a second try.
        """
        if item in self.broken:
            raise UserError(
                "a worker process died again and again, perhaps because memory ran out; run the "
                "same command with fewer --workers"
            )
        if item == self.suspect:
            return dataclasses.replace(self, broken=self.broken | {item}, suspect=None)
        return dataclasses.replace(self, suspect=item)


class _Worker:
    """Runs a process that works on one task after the other.

    Attributes:
        pipe: connection on which the process reports.
        task: the task in progress.
        items: number of items of the task that are done.
    """

    def __init__(self, work: Work):
        # "spawn" copies neither threads nor open files of this process.
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, work), daemon=True)
        self._process.start()
        other.close()

    def give(self, task: _Task) -> None:
        """Begins a task."""
        self.task, self.items = task, 0
        with contextlib.suppress(OSError):  # A process that has died is noticed when it is read.
            self.pipe.send(task)

    def stop(self) -> None:
        """Ends the process, also in the middle of a task."""
        self._process.terminate()
        self._process.join()
        self.pipe.close()


def _serve(pipe: connection.Connection, work: Work) -> None:
    """Works on the tasks that arrive on a pipe, until the other end of the pipe closes."""
    end_with_parent()
    # Ctrl-C reaches every process of the terminal; the first one stops the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = pipe.recv()
            try:
                with contextlib.closing(work(task.part, task.broken)) as events:
                    for event in events:
                        pipe.send((_EVENT, event))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:
                pipe.send((_ERROR, error))
            else:
                pipe.send((_DONE, None))
