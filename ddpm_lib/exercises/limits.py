"""What an attempt must not do to others: go on for ever, and leave the settings of torch, NumPy and Python changed."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

AGAIN = 0.5
"""Seconds after which an attempt that goes on is stopped once more."""


WAKE = getattr(signal, "SIGURG", None)
"""A signal that nobody minds. It ends a sleep, and where something is read or waited for."""
ALARMS = [
    getattr(signal, name)
    for name in ("SIGALRM", "SIGVTALRM", "SIGPROF", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]
"""Signals that an attempt may send itself, and that end the process where nobody listens."""


class TooLong(BaseException):
    """The time of an attempt is up."""


class Alarm(Exception):
    """An attempt has sent itself a signal."""


def _is_main() -> bool:
    """Whether this thread may say what is done about signals."""
    return threading.current_thread() is threading.main_thread()


def within(limit: float, work: Callable[[], object]) -> object:
    """What work() returns; or raises TooLong in this thread when the time is up, at its next line of Python.

    A call in C, into torch for instance, is stopped when it returns; a sleep at once, if this is the main thread.
    """
    shoot = ctypes.pythonapi.PyThreadState_SetAsyncExc
    here, kind = ctypes.c_ulong(threading.get_ident()), ctypes.py_object(TooLong)
    done, state = threading.Event(), SimpleNamespace(over=False, fired=False)

    def watch() -> None:
        pause = limit
        # again and again: the attempt may catch what it should not
        while not done.wait(pause):
            pause = AGAIN
            if not state.over:
                # no call between the question and the shot, so that no other thread comes between them
                state.fired = True
                shoot(here, kind)
                if wakes:
                    signal.pthread_kill(here.value, WAKE)

    def woken(number: int, frame: object) -> None:
        if state.fired and not state.over:
            raise TooLong

    before = signal.getsignal(WAKE) if WAKE and _is_main() and hasattr(signal, "pthread_kill") else None
    wakes = before is not None
    watcher = threading.Thread(target=watch, daemon=True)
    try:
        if wakes:
            signal.signal(WAKE, woken)
        watcher.start()
        return work()
    finally:
        # an exception of another thread comes at a call or a loop, so not before this line is done
        state.over = True
        # takes back a shot that has not arrived
        shoot(here, None)
        done.set()
        if wakes:
            signal.signal(WAKE, before)
        if state.fired:
            raise TooLong


def _handlers() -> dict:
    """What is done about each signal, and the timers that run."""
    if not _is_main():
        return {}
    can = signal.valid_signals() - {getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP")}
    return {number: handler for number in can if (handler := signal.getsignal(number)) is not None}


def _put_handlers(kept: dict) -> None:
    for number, handler in kept.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _timers() -> dict:
    if not _is_main() or not hasattr(signal, "getitimer"):
        return {}
    return {
        each: signal.getitimer(each)
        for each in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    }


def _put_timers(kept: dict) -> None:
    """Stops timers that were not there before."""
    for each, value in kept.items():
        if value == (0.0, 0.0) and signal.getitimer(each) != value:
            signal.setitimer(each, 0)


def _listen(number: int, frame: object) -> None:
    raise Alarm(signal.Signals(number).name)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


def _streams() -> tuple:
    return sys.stdin, sys.stdout, sys.stderr


def _put_streams(kept: tuple) -> None:
    sys.stdin, sys.stdout, sys.stderr = kept


def _on_gpus(states: list[Tensor]) -> None:
    if states:
        torch.cuda.set_rng_state_all(states)


SETTINGS: tuple[tuple[Callable, Callable], ...] = (
    # a timer before what is done when it ends
    (_timers, _put_timers),
    (_handlers, _put_handlers),
    (_streams, _put_streams),
    (_folder, lambda folder: os.chdir(folder) if folder and folder != _folder() else None),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (sys.gettrace, sys.settrace),
    (sys.getprofile, sys.setprofile),
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (torch.get_rng_state, torch.set_rng_state),
    (lambda: torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [], _on_gpus),
    (torch.get_default_dtype, torch.set_default_dtype),
    # the processor is what torch takes where nothing is set
    (
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
    ),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
)
"""(get, set) of what belongs to all of Python; gradients, warnings and NumPy's errors have contexts of their own."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, torch and NumPy are nearly as they start: the same marks in every notebook. Afterwards all is as it was before.

    Single or double precision by default is left to the notebook: an attempt may rely on it.
    """
    kept = [get() for get, _ in SETTINGS]
    try:
        with (
            warnings.catch_warnings(),
            np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"),
        ):
            # gradients are on in it, whatever surrounds it
            with torch.inference_mode(False):
                if torch.get_default_dtype() not in (torch.float32, torch.float64):
                    torch.set_default_dtype(torch.float32)
                torch.set_default_device(None)
                for number in ALARMS if _is_main() else ():
                    if signal.getsignal(number) is signal.SIG_DFL:
                        signal.signal(number, _listen)
                yield
    finally:
        for (_, put), value in zip(SETTINGS, kept, strict=True):
            put(value)
