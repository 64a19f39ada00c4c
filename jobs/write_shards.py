#!/usr/bin/env python3
"""Write images as Parquet shards, train and val in one go, from what you have:

    python jobs/write_shards.py --source.path DIR --out SHARDS            class folders train/ and val/
    python jobs/write_shards.py --source.path DIR --out SHARDS --val-share 0.2        class folders alone
    python jobs/write_shards.py --source.path DIR --out s3://BUCKET/X     ILSVRC2012_img_train.tar, _img_val.tar
                                                                          and _devkit_t12.tar.gz in DIR
    python jobs/write_shards.py --source.path 's3://BUCKET/imagenet-*.tar' --out SHARDS        WebDataset
    python jobs/write_shards.py --source.path DIR --out SHARDS --shorter-side 320              smaller and faster
    python jobs/write_shards.py --source.kind digits --out SHARDS         scikit-learn's handwritten digits
    python jobs/write_shards.py --out SHARDS --verify                     re-read all and compare

Kaggle's ImageNet, tiny-imagenet-200, Parquet files as on the Hugging Face hub and CIFAR are read as well. Every image
is decoded once; what is passed over or cannot be decoded is counted in SHARDS/manifest.json and in the last lines. The
same command goes on after a kill and writes a damaged shard again; a finished folder stays as it is. Uses the Ray
cluster of RAY_ADDRESS, or one of its own on this machine.
"""

from typing import Any

from pipelines.cli import parse, run_job
from pipelines.preparation_options import Preparation
from pipelines.shards import prepare


def job(argv: list[str]) -> dict[str, Any]:
    """The preparation that the command line asks for."""
    return prepare(parse(Preparation, None, argv, __doc__))


if __name__ == "__main__":
    run_job(job)
