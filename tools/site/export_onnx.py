"""Writes what the page needs of a shipped model: its graph, and a film of it for readers who cannot run it.

    python tools/site/export_onnx.py mnist28

The graph goes to book/_static/live_model/NAME.onnx. It holds no weights: it names places in NAME.weights, the
numbers of the model's safetensors file without its header, which the build puts beside it. A model trained anew
needs a new graph only if its architecture is another; a film it needs in any case, NAME.webp.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ddpm_lib import draw, sampling
from ddpm_lib.checkpoint import Checkpoint, load
from ddpm_lib.files import shipped, write_whole
from ddpm_lib.plotting import image_grid, webp_bytes
from ddpm_lib.unet import UNet

OUT = Path(__file__).resolve().parents[2] / "book" / "_static" / "live_model"
FILM_PADDING = 4
"""Pixels between the pictures of a film: 28 + 4 keeps every picture in blocks of its own when WebP compresses."""


@dataclass(frozen=True)
class Place:
    """Where a tensor stands among a safetensors file's numbers: bytes from begin to end."""

    name: str
    begin: int
    end: int


def contents(path: Path) -> tuple[list[Place], bytes]:
    """The places of a safetensors file, and its numbers without the header. Raises ValueError if they are not fp16."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    others = sorted({entry["dtype"] for entry in header.values()} - {"F16"})
    if others:
        raise ValueError(f"{path} holds {', '.join(others)}; export a model first, to half precision")
    places = [Place(name, *entry["data_offsets"]) for name, entry in header.items()]
    return places, data[start:]


def graph(net: UNet, path: Path, location: str):
    """The network as an ONNX model (x, logsnr, label) -> y for any number of pictures.

    path: the safetensors file of the same weights, in half precision; location: under which name its numbers,
    widened to single precision, are given to whoever runs the model.
    """
    config = net.config
    count = torch.export.Dim("count", min=1, max=4096)
    size = config.image_size
    label = torch.tensor([0, -1]) if config.num_classes else None
    example = torch.zeros(2, config.channels, size, size), torch.zeros(2), label
    program = torch.onnx.export(
        net.float().eval(),
        example,
        dynamo=True,
        verbose=False,
        input_names=["x", "logsnr", "label"],
        output_names=["y"],
        dynamic_shapes=tuple(None if part is None else {0: count} for part in example),
    )
    model = program.model_proto
    _forget_where_it_came_from(model)
    _leave_weights_in_their_file(model, path, location)
    return model


def _forget_where_it_came_from(model) -> None:
    """Takes out the stack traces and names of files that the exporter writes beside every node."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for part in [*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del part.metadata_props[:]
        part.doc_string = ""


def _leave_weights_in_their_file(model, path: Path, location: str) -> None:
    """Puts a place in the widened file where the exporter put a copy of a weight."""
    from onnx import TensorProto

    places, numbers = contents(path)
    by_name = {place.name.removeprefix("ema."): place for place in places}
    # what the exporter reshaped has a new name and the same numbers
    wide = {place: np.frombuffer(numbers[place.begin : place.end], "<f2").astype("<f4") for place in places}
    alike = Counter(value.tobytes() for value in wide.values())
    by_value = {value.tobytes(): place for place, value in wide.items() if alike[value.tobytes()] == 1}
    for constant in model.graph.initializer:
        place = by_name.get(constant.name) or by_value.get(constant.raw_data)
        if place is None:
            continue
        constant.ClearField("raw_data")
        constant.data_location = TensorProto.EXTERNAL
        # two bytes a number in the file, four when it is given to the model
        length = 2 * (place.end - place.begin)
        for key, value in {"location": location, "offset": 2 * place.begin, "length": length}.items():
            constant.external_data.add(key=key, value=str(value))


def film(model: Checkpoint, settings: dict) -> Tensor:
    """One picture of each label at every step, from noise on: (labels, steps + 1, C, H, W)."""
    denoiser = model.denoiser()
    config, labels = denoiser.net.config, torch.arange(len(model.classes))
    generator = torch.Generator().manual_seed(0)
    shape = len(labels), config.channels, config.image_size, config.image_size
    x = sampling.pure_noise(shape, denoiser.schedule, generator)
    denoise = sampling.clipped(sampling.guided(denoiser, labels, settings["scale"]))
    noisy = {"generator": generator} if settings["sampler"] in sampling.NOISY else {}
    times = denoiser.schedule.times(settings["steps"])
    steps = sampling.SAMPLERS[settings["sampler"]](denoise, x, denoiser.schedule, times, **noisy)
    return torch.stack([x, *(step.x for step in steps)], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", default="mnist28", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    parser.add_argument(
        "--quality", type=int, default=50, help="of the film, 0 to 100 (default: %(default)s)"
    )
    args = parser.parse_args()
    path = shipped()[args.name]
    model = load(path)
    settings, _ = draw.recommended(model, {})
    pictures = film(model, settings)
    sheet = image_grid(pictures.flatten(0, 1), pictures.shape[1], FILM_PADDING)
    made = {
        f"{args.name}.webp": webp_bytes(sheet, args.quality),
        f"{args.name}.onnx": graph(model.ema.net, path, f"{args.name}.weights").SerializeToString(),
    }
    for name, data in made.items():
        write_whole(args.out / name, lambda part, data=data: Path(part).write_bytes(data))
        print(f"{args.out / name}: {math.ceil(len(data) / 1000)} kB")


if __name__ == "__main__":
    main()
