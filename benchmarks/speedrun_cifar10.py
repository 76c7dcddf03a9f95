"""How soon can one GPU draw CIFAR-10's classes on request, starting from nothing?

    python benchmarks/speedrun_cifar10.py                       our recipe, from three seeds (cifar10-full is fetched)
    python benchmarks/speedrun_cifar10.py --record              and keep the outcome in benchmarks/records/
    python benchmarks/speedrun_cifar10.py --steps 5 --seeds 1   does everything work? (on a CPU too, slowly)

The rules. The clock starts with the 50,000 training images in memory and nothing else made, compilation
included; it stops when 1,000 new pictures are drawn, 100 of each class. At least 80 % of them must be read as
asked by the classifier in the package, which takes no part in training. Their recall must be at least half of
what real pictures get. Both in the mean over the seeds.
"""

from speedrun import Recipe, Track, main

from ddpm_lib.training import TrainConfig
from ddpm_lib.unet import UNetConfig

TRACK = Track(
    name="speedrun_cifar10",
    title="Speedrun: conditional CIFAR-10, 32 x 32, one GPU",
    data="cifar10-full",
    accuracy=0.8,
    recipe=Recipe(
        net=UNetConfig(32, 3, 10, width=128, multipliers=(1, 2, 2), blocks=2, attention=(1, 2), head_dim=64),
        train=TrainConfig(
            steps=6_000, optimizer="muon", lr=3e-3, warmup=200, decay="cosine", label_dropout=0.1,
            precision="auto", compile=True,
        ),
        batch_size=512,
        schedule="cosine",
        predict="v",
        ema_half_life=300,
        flip=True,
        sampler="dpm++2m",
        steps=20,
        scale=2.0,
        samples_at_once=500,
    ),
)  # fmt: skip


if __name__ == "__main__":
    main(TRACK, __doc__)
