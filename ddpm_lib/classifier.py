"""The small classifiers whose features and verdicts the metrics use."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .checkpoint import CheckpointError
from .files import write_whole

FORMAT = 1
FOLDER = Path(__file__).parent / "models" / "classifiers"


@dataclass(frozen=True)
class ClassifierConfig:
    """channels and size of the images it looks at, names of the classes, channels of its stages.

    patch: 2 folds each 2x2 patch into channels first, as in UNetConfig. early_pool: halve the picture
    between the two convolutions of a stage, not after them: half the work or less at equal widths.

    Raises ValueError that names the field and its value.
    """

    channels: int
    size: int
    classes: tuple[str, ...]
    widths: tuple[int, ...] = (64, 128)
    patch: int = 2
    early_pool: bool = False

    def __post_init__(self):
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "widths", tuple(self.widths))
        numbers = {name: (getattr(self, name),) for name in ("channels", "size", "patch")} | {
            "widths": self.widths
        }
        for name, values in numbers.items():
            if not values or not all(type(value) is int and value > 0 for value in values):
                raise ValueError(f"{name} must be whole and at least 1, got {getattr(self, name)!r}")
        if not self.classes or not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f"classes must be names, one at least, got {self.classes!r}")


class Classifier(nn.Module):
    """Two convolutions a stage, halved between stages, then the mean over positions: the features.

    forward: x (B, C, H, W) in [-1, 1] -> logits (B, K). features: the same x -> (B, D).
    """

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        now = config.channels * config.patch**2
        stages: list[nn.Module] = [nn.PixelUnshuffle(config.patch)]
        for width in config.widths:
            for channels in (now, width):
                stages.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
                if config.early_pool and channels is now:
                    stages.append(nn.MaxPool2d(2))
                stages += [nn.BatchNorm2d(width), nn.ReLU()]
            if not config.early_pool:
                stages.append(nn.MaxPool2d(2))
            now = width
        self.stages = nn.Sequential(*stages if config.early_pool else stages[:-1])
        self.head = nn.Linear(now, len(config.classes))

    def features(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) in [-1, 1] -> (B, D), all at least 0."""
        return self.stages(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) in [-1, 1] -> logits (B, K)."""
        return self.head(self.features(x))


def train_classifier(
    net: Classifier, batches: Iterable[tuple[Tensor, Tensor]], steps: int, lr: float = 0.1, shift: int = 2
) -> Iterator[float]:
    """Trains net in place and yields each loss: SGD with Nesterov's momentum and a one-cycle learning rate
    that peaks at lr, each image moved by up to `shift` pixels, labels smoothed a little."""
    optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.25)
    generator = torch.Generator().manual_seed(0)
    net.train()
    for _, (x, label) in zip(range(steps), batches, strict=False):
        with torch.autocast(x.device.type, torch.bfloat16):
            logits = net(_shifted(x, shift, generator))
        loss = F.cross_entropy(logits.float(), label, label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rate.step()
        yield loss.item()
    net.eval()


def _shifted(x: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `shift` pixels either way, what comes into view mirrored at the border."""
    (count, _, height, width), most = x.shape, 2 * shift + 1
    wide = F.pad(x, (shift,) * 4, mode="reflect")
    dy, dx = torch.randint(most, (2, count, 1), generator=generator).to(x.device)
    rows = (dy + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (dx + torch.arange(width, device=x.device))[:, None, None, :]
    image = torch.arange(count, device=x.device)[:, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return wide[image, channel, rows, columns]


def save_classifier(net: Classifier, path: str | os.PathLike, provenance: dict) -> None:
    """Writes weights in half precision, with the configuration and provenance as JSON in the header."""
    halves = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    header = {"format": FORMAT, "classifier": asdict(net.config), "provenance": provenance}
    write_whole(
        path, lambda part: save_file(halves, part, metadata={"ddpm_lib_classifier": json.dumps(header)})
    )


def load_classifier(path: str | os.PathLike) -> tuple[Classifier, dict]:
    """The classifier in a file, ready to judge, and its provenance. Raises CheckpointError if it is not one."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})["ddpm_lib_classifier"])
            config, about = ClassifierConfig(**header["classifier"]), header["provenance"]
            kept = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            # before anything is allocated, for a header may ask for any size
            if len(config.widths) > len(kept) or kept != _shapes(config):
                raise ValueError("its weights are of another architecture than its header says")
            state = {name: file.get_tensor(name) for name in kept}
        if not all(value.isfinite().all() for value in state.values()):
            raise ValueError("its weights are not finite")
        net = Classifier(config)
        net.load_state_dict(state)
    except FileNotFoundError:
        raise CheckpointError(f"no classifier at {path}") from None
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: damaged, or not a classifier that ddpm_lib wrote ({error!r:.300})"
        ) from error
    return net.eval(), about


def _shapes(config: ClassifierConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what a classifier's file must hold."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in Classifier(config).state_dict().items()}


def shipped_classifier(classes: Iterable[str]) -> tuple[Classifier, dict]:
    """The classifier in the package that knows these classes, and its provenance."""
    wanted, known = tuple(classes), {}
    for path in sorted(FOLDER.glob("*.safetensors")):
        net, provenance = load_classifier(path)
        if net.config.classes == wanted:
            return net, provenance | {"name": path.stem}
        known[path.stem] = net.config.classes
    raise CheckpointError(
        f"no classifier in the package knows the classes {', '.join(wanted) or '(none)'}; "
        f"there are classifiers for: {', '.join(known) or 'nothing'}"
    )
