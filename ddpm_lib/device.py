"""Where tensors live and are computed with: the best device here, or one by its name."""

from __future__ import annotations

import torch

KINDS = ("cpu", "cuda", "mps")
"""The devices that this library is tried on."""


def best_device() -> torch.device:
    """The GPU if there is one (CUDA, else Apple's), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_device(name: str = "auto", rank: int = 0) -> torch.device:
    """The device of that name; "auto" takes the best there is.

    rank: of this process, where several share the GPUs of a machine. Raises ValueError, with the choices, for a name
    that is unknown or of a device that is not there.
    """
    try:
        device = best_device() if name == "auto" else torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in KINDS:
        raise ValueError(f"unknown device {name!r}: choose cpu, cuda, cuda:0 ..., mps or auto")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device cuda: this torch sees no CUDA device; use --device cpu, or install a CUDA build of torch"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: there is no Apple GPU here; use --device cpu")
    if device.type != "cuda":
        return torch.device(device.type)
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise ValueError(f"--device {name}: there are {count} CUDA devices here, cuda:0 to cuda:{count - 1}")
    return device if device.index is not None else torch.device("cuda", rank % count)
