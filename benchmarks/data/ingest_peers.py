"""The peers of benchmarks/data/ingest.py, one run each, in a virtual environment of their own (`make bench-peers`).

    .venv-peers/bin/python benchmarks/data/ingest_peers.py torchvision-references --data FOLDER --cores 1

Every peer reads the same images, draws torchvision's random resized crop to 224 and a mirror, and hands batches of 128
uint8 images to one consumer, the way its own documentation does. Prints one JSON line. `--write` stores the images in
the peer's own format first. Imports nothing of this project; benchmarks/data/ingest.py runs it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

SIZE, BATCH = 224, 128
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
# Batches before the clock starts: imports, caches, filled queues and the first touch of fresh memory, which on a
# virtual machine costs 12 microseconds a page, are behind then.
WARM = 48
Epoch = Callable[[], Iterable[Any]]


# --- Measuring, for ours too ------------------------------------------------------------------------------------------


def spent() -> dict[int, tuple[float, int]]:
    """CPU seconds and bytes read by system calls so far, of this process and of everything that it started."""
    import psutil

    me, found = psutil.Process(), {}
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
            read = process.io_counters().read_chars if hasattr(process, "io_counters") else 0
            found[process.pid] = (times.user + times.system, read)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended between the two calls, or is a zombie
    return found


def used(before: dict[int, tuple[float, int]], after: dict[int, tuple[float, int]]) -> tuple[float, int]:
    """CPU seconds and bytes read between two looks."""
    pairs = [(before.get(pid, (0.0, 0)), now) for pid, now in after.items()]
    return sum(b[0] - a[0] for a, b in pairs), sum(b[1] - a[1] for a, b in pairs)


def keep_to(cores: int) -> None:
    """Run this process, and what it starts, on so many of the cores that it may use, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])


def steady(epoch: Epoch, batches: int) -> dict[str, float]:
    """Images a second and CPU seconds an image of `batches` batches after WARM, and the seconds to the first batch."""
    begin = time.perf_counter()
    stream = iter(chain.from_iterable(epoch() for _ in iter(int, 1)))
    check(next(stream))
    first = time.perf_counter() - begin
    for _ in islice(stream, WARM - 1):
        pass
    before, start = spent(), time.perf_counter()
    images = sum(check(batch) for batch in islice(stream, batches))
    seconds, (cpu, read) = time.perf_counter() - start, used(before, spent())
    return {"rate": images / seconds, "cpu_s": cpu / images, "read_kb": read / images / 1000, "first_batch_s": first}


def check(batch: Any) -> int:
    """Images of a batch. AssertionError: it is not what was asked for."""
    images = batch[0] if isinstance(batch, (list, tuple)) else batch
    assert str(images.dtype).endswith("uint8"), images.dtype
    assert tuple(images.shape[1:]) in ((3, SIZE, SIZE), (SIZE, SIZE, 3)), images.shape
    return len(images)


# --- The peers --------------------------------------------------------------------------------------------------------


def pil_transform() -> Any:
    """The transforms of torchvision's references for a PIL image, as far as uint8."""
    from torchvision import transforms as t

    return t.Compose([t.RandomResizedCrop(SIZE, AREA, RATIO), t.RandomHorizontalFlip(), t.PILToTensor()])


def v2_transform() -> Any:
    """The same for a tensor of pixels."""
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomResizedCrop(SIZE, AREA, RATIO, antialias=True), v2.RandomHorizontalFlip()])


def read_pil(data: Any) -> Any:
    """Bytes -> PIL image, RGB."""
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB")


def loader(dataset: Any, cores: int, **options: Any) -> Any:
    """torch's DataLoader with a worker a core."""
    from torch.utils.data import DataLoader

    return DataLoader(dataset, num_workers=cores, persistent_workers=True, **options)


def folder(data: Path, cores: int, transform: Any, read: Any) -> Epoch:
    """A class folder read as torchvision's references do."""
    from torchvision.datasets import ImageFolder

    images = ImageFolder(str(data / "folders" / "train"), transform, **({"loader": read} if read else {}))
    batches = loader(images, cores, batch_size=BATCH, shuffle=True, drop_last=True)
    return lambda: batches


def torchvision_references(data: Path, cores: int) -> Epoch:
    """PIL, torchvision's transforms, DataLoader."""
    return folder(data, cores, pil_transform(), None)


def decode_jpeg_file(path: str) -> Any:
    """A file -> (3, H, W) uint8, by torchvision's own decoder."""
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    return decode_jpeg(read_file(path), mode=ImageReadMode.RGB)


def torchvision_decode(data: Path, cores: int) -> Epoch:
    """torchvision.io.decode_jpeg, v2 transforms on tensors, DataLoader."""
    return folder(data, cores, v2_transform(), decode_jpeg_file)


def dali(data: Path, cores: int) -> Epoch:
    """NVIDIA DALI on the CPU: random crop decode, which decodes the crop's part alone, and resize."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=cores, device_id=None, seed=0)
    def pipeline() -> Any:
        files, labels = fn.readers.file(file_root=str(data / "folders" / "train"), random_shuffle=True)
        crops = fn.decoders.image_random_crop(
            files, device="cpu", output_type=types.DALIImageType.RGB, random_area=AREA, random_aspect_ratio=RATIO
        )
        images = fn.resize(crops, size=[SIZE, SIZE], interp_type=types.DALIInterpType.INTERP_LINEAR, antialias=True)
        return fn.flip(images, horizontal=fn.random.coin_flip()), labels

    built = pipeline()
    built.build()

    def batches() -> Iterator[Any]:
        import numpy as np

        while True:
            yield np.asarray(built.run()[0].as_tensor())

    return batches


def ffcv(data: Path, cores: int, name: str) -> Epoch:
    """FFCV's Loader, which decodes a random resized crop in compiled code."""
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor

    decoder = RandomResizedCropRGBImageDecoder((SIZE, SIZE), scale=AREA, ratio=RATIO)
    pipelines = {"image": [decoder, RandomHorizontalFlip(), ToTensor()], "label": [IntDecoder(), ToTensor()]}
    path, order = str(data / f"{name}.beton"), OrderOption.RANDOM
    batches = Loader(path, BATCH, num_workers=cores, order=order, pipelines=pipelines, os_cache=True, drop_last=True)
    return lambda: batches


def ffcv_jpg(data: Path, cores: int) -> Epoch:
    """FFCV with all images as JPEGs of quality 90 in full size."""
    return ffcv(data, cores, "ffcv-jpg")


def ffcv_mixed(data: Path, cores: int) -> Epoch:
    """FFCV as its ImageNet recipe stores it: at most 400 pixels, half of the images raw."""
    return ffcv(data, cores, "ffcv-400-half-raw")


def webdataset(data: Path, cores: int) -> Epoch:
    """WebDataset over tars, PIL, torchvision's transforms, DataLoader."""
    import webdataset as wds

    tars = sorted(map(str, (data / "webdataset").glob("*.tar")))
    images = wds.WebDataset(tars, shardshuffle=len(tars), workersplitter=wds.split_by_worker).shuffle(500, initial=64)
    images = images.decode("pil").to_tuple("jpg", "cls").map_tuple(pil_transform(), int).batched(BATCH, partial=False)
    batches = loader(images.repeat(), cores, batch_size=None)
    return lambda: batches


def litdata(data: Path, cores: int) -> Epoch:
    """LitData's StreamingDataset over its own chunks, PIL, torchvision's transforms."""
    from litdata import StreamingDataLoader, StreamingDataset

    transform = pil_transform()

    class Images(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            item = super().__getitem__(index)
            return transform(read_pil(item["image"])), item["label"]

    images = Images(str(data / "litdata"), shuffle=True, drop_last=True)
    batches = StreamingDataLoader(images, batch_size=BATCH, num_workers=cores, persistent_workers=True, drop_last=True)
    return lambda: batches


def mosaicml_streaming(data: Path, cores: int) -> Epoch:
    """Mosaic's StreamingDataset over MDS shards, PIL, torchvision's transforms, DataLoader."""
    from streaming import StreamingDataset

    transform = pil_transform()

    class Images(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            item = super().__getitem__(at)
            return transform(read_pil(item["image"])), item["label"]

    images = Images(local=str(data / "mds"), shuffle=True, batch_size=BATCH)
    batches = loader(images, cores, batch_size=BATCH, drop_last=True)
    return lambda: batches


def ray_data(data: Path, cores: int) -> Epoch:
    """Ray Data by its documentation: read_images, a torchvision transform in map, iter_torch_batches."""
    import ray

    ray.init(address="local", num_cpus=cores, include_dashboard=False, object_store_memory=2**30, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def transform(row: dict[str, Any]) -> dict[str, Any]:
        import torch

        return {"image": v2_transform()(torch.from_numpy(row["image"]).permute(2, 0, 1)).numpy()}

    images = ray.data.read_images(str(data / "folders" / "train"), mode="RGB").map(transform)
    return lambda: (batch["image"] for batch in images.iter_torch_batches(batch_size=BATCH, drop_last=True))


PEERS: dict[str, Callable[[Path, int], Epoch]] = {
    "torchvision-references": torchvision_references,
    "torchvision-decode": torchvision_decode,
    "dali": dali,
    "ffcv-jpg": ffcv_jpg,
    "ffcv-400-half-raw": ffcv_mixed,
    "webdataset": webdataset,
    "litdata": litdata,
    "mosaicml-streaming": mosaicml_streaming,
    "ray-data": ray_data,
}


PACKAGES = {
    "torchvision-references": "torchvision",
    "torchvision-decode": "torchvision",
    "dali": "nvidia-dali-cuda120",
    "ffcv-jpg": "ffcv",
    "ffcv-400-half-raw": "ffcv",
    "webdataset": "webdataset",
    "litdata": "litdata",
    "mosaicml-streaming": "mosaicml-streaming",
    "ray-data": "ray",
}


# --- Their formats ----------------------------------------------------------------------------------------------------


def files_of(data: Path) -> list[tuple[Path, int]]:
    """Every image of the class folders, with its label."""
    classes = sorted(path.name for path in (data / "folders" / "train").iterdir())
    return [(p, i) for i, c in enumerate(classes) for p in sorted((data / "folders" / "train" / c).iterdir())]


class Files:
    """The images as a dataset of (PIL image, label), which FFCV's writer reads."""

    def __init__(self, data: Path) -> None:
        self.files = files_of(data)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        path, label = self.files[index]
        return read_pil(path.read_bytes()), label


def write_ffcv(data: Path, out: Path, **options: Any) -> None:
    """FFCV re-encodes what it stores as JPEG: it cannot keep a file's bytes."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    fields = {"image": RGBImageField(jpeg_quality=90, **options), "label": IntField()}
    DatasetWriter(str(out), fields, num_workers=2).from_indexed_dataset(Files(data))


def write_tars(data: Path, out: Path) -> None:
    """Tars of some 250 images with key.jpg and key.cls, shuffled."""
    import random

    import webdataset as wds

    out.mkdir()
    files = random.Random(0).sample(found := files_of(data), len(found))
    with wds.ShardWriter(str(out / "train-%05d.tar"), maxcount=250, verbose=0) as writer:
        for i, (path, label) in enumerate(files):
            writer.write({"__key__": f"{i:06d}", "jpg": path.read_bytes(), "cls": label})


def as_item(file: tuple[str, int]) -> dict[str, Any]:
    """A file as LitData stores it."""
    return {"image": Path(file[0]).read_bytes(), "label": file[1]}


def write_litdata(data: Path, out: Path) -> None:
    """Chunks of 64 MB, LitData's default."""
    from litdata import optimize

    files = [(str(path), label) for path, label in files_of(data)]
    optimize(as_item, files, str(out), num_workers=1, chunk_bytes="64MB")


def write_mds(data: Path, out: Path) -> None:
    """MDS shards of 64 MB, Mosaic's default."""
    from streaming import MDSWriter

    with MDSWriter(out=str(out), columns={"image": "bytes", "label": "int"}, progress_bar=False) as writer:
        for path, label in files_of(data):
            writer.write({"image": path.read_bytes(), "label": label})


FORMATS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "webdataset": ("webdataset", write_tars),
    "litdata": ("litdata", write_litdata),
    "mosaicml-streaming": ("mds", write_mds),
    "ffcv-jpg": ("ffcv-jpg.beton", lambda data, out: write_ffcv(data, out, write_mode="jpg")),
    "ffcv-400-half-raw": (
        "ffcv-400-half-raw.beton",
        lambda data, out: write_ffcv(data, out, write_mode="proportion", max_resolution=400, compress_probability=0.5),
    ),
}


def write(name: str, data: Path) -> None:
    """Store the images as a peer wants them, unless they are there."""
    import shutil

    file, writer = FORMATS.get(name, ("folders", None))
    if writer is None or (data / file).exists():
        return
    part = data / f"part-{file}"
    shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
    writer(data, part)
    part.rename(data / file)


def main() -> int:
    """One run of one peer, or its writing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--data", type=Path, required=True, help="folder that benchmarks/data/ingest.py prepared")
    parser.add_argument("--cores", type=int, default=1, help="CPU cores to run on, and workers to start")
    parser.add_argument("--batches", type=int, default=8, help=f"batches of {BATCH} to measure, after {WARM}")
    parser.add_argument("--write", action="store_true", help="write the peer's own format, measure nothing")
    options = parser.parse_args()
    if options.write:
        write(options.peer, options.data)
        return 0
    keep_to(options.cores)
    result = steady(PEERS[options.peer](options.data, options.cores), options.batches)
    version = importlib.metadata.version(PACKAGES[options.peer])
    print(json.dumps(result | {"version": version}), flush=True)
    sys.stderr.flush()
    os._exit(0)  # the peers' workers and threads end with the process; waiting for them measures nothing


if __name__ == "__main__":
    sys.exit(main())
