"""What an attempt must not do to others: go on for ever, and leave the settings of torch, NumPy and Python changed."""

from __future__ import annotations

import ctypes
import random
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


class TooLong(BaseException):
    """The time of an attempt is up."""


def within(limit: float, work: Callable[[], object]) -> object:
    """What work() returns; or raises TooLong in this thread when the time is up, at its next line of Python.

    A call in C, into torch for instance, is stopped when it returns.
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

    watcher = threading.Thread(target=watch, daemon=True)
    try:
        watcher.start()
        return work()
    finally:
        # an exception of another thread comes at a call or a loop, so not before this line is done
        state.over = True
        # takes back a shot that has not arrived
        shoot(here, None)
        done.set()
        if state.fired:
            raise TooLong


def _on_gpus(states: list[Tensor]) -> None:
    if states:
        torch.cuda.set_rng_state_all(states)


SETTINGS: tuple[tuple[Callable, Callable], ...] = (
    (sys.getrecursionlimit, sys.setrecursionlimit),
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
                yield
    finally:
        for (_, put), value in zip(SETTINGS, kept, strict=True):
            put(value)
