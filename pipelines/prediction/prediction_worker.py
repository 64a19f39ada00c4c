"""One worker of the offline prediction: a part's images in, a Parquet file out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field, field_validator

from pipelines.file_names import Output, absolute
from pipelines.storage import Folder
from resnet.frozen import Frozen, FrozenSettings

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

CLASSIFICATION = "classification"
Images = list[tuple[str, bytes]]  # key, encoded image


class Predictor(Protocol):
    """One model in one process. task: classification, or detection or segmentation, which has `row(answer)` instead
    of `best`."""

    task: str

    def crop(self, data: bytes) -> np.ndarray:
        """The network's input. ValueError says why an image has none."""
        ...

    def run_batch(self, images: Sequence[np.ndarray]) -> Sequence[Any]:
        """An answer for each image, with `probabilities` (K,) and `embedding` (C,)."""
        ...

    def best(self, probabilities: np.ndarray, top_k: int) -> Sequence[Any]:
        """The most probable classes, each with `image_class` and `probability`."""
        ...


class ImagesByModel(FrozenSettings):
    """Images that a model looks at, and how that is spread over a cluster. out: of the task."""

    images: Annotated[str, Field(description="folder or URI of images, with the folders in it; or of shards")]
    out: str
    split: Annotated[Literal["val", "train", "test"] | None, Field(description="of shards. None: train and val")] = None
    network: Annotated[str | None, Field(description="what a file of weights holds: imagenet-resnet50-B-v1.5")] = None
    preprocess: Annotated[
        str | None,
        Field(description="RESIZE[,CROP[,bicubic]] for a file of weights that does not say, e.g. 232; else its own"),
    ] = None
    precision: Annotated[str, Field(description="auto: as the endpoint computes on this hardware")] = "auto"
    batch: Annotated[int, Field(ge=1, description="images of one pass through the network")] = 32
    part_images: Annotated[
        int | None,
        Field(
            ge=1,
            description="images of a part, about; what a kill can cost. None: a 64th of them, so that no worker waits "
            "long for another's last part; at least 64 and at most 1,024",
        ),
    ] = None
    workers: Annotated[int | None, Field(ge=1, description="processes. None: one a GPU, else one a CPU")] = None
    gpu: Annotated[bool | None, Field(description="one GPU a worker. None: if there is one")] = None

    @field_validator("images", "out")
    @classmethod
    def _folder_is_absolute(cls, value: str) -> str:
        return absolute(value)


class PredictionJob(ImagesByModel):
    """Input, model and output of a prediction."""

    out: Annotated[Output, Field(description="folder or URI for the parts: PATH.parquet reads as one table")]
    top_k: Annotated[int, Field(ge=1, description="most probable classes of each image")] = 5
    embeddings: Annotated[bool, Field(description="also write the pooled features")] = False
    thumbnails: Annotated[
        int | None,
        Field(ge=16, le=512, description="also write a JPEG of what the network saw, of so many pixels a side"),
    ] = None


class PredictionPart(Frozen):
    """Some images: keys of files in the folder, or row groups of shards."""

    number: int
    images: int
    keys: tuple[str, ...] = ()
    groups: tuple[tuple[str, int], ...] = ()


def part_name(number: int) -> str:
    """The file of a part."""
    return f"part-{number:05d}.parquet"


class Worker:
    """A Ray Data actor: parts in, files out."""

    def __init__(self, asked: PredictionJob, open_predictor: Callable[[], Predictor]) -> None:
        self.asked, self.predictor = asked, open_predictor()
        self.source, self.out = Folder(asked.images), Folder(asked.out)

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, list[int]]:
        """Write parts; how many images each has."""
        parts = [PredictionPart.model_validate_json(text) for text in block["part"]]
        for part in parts:
            self._write(part)
        return {"images": [part.images for part in parts]}

    def _write(self, part: PredictionPart) -> None:
        from pyarrow import parquet

        table = predicted(self._read(part), self.predictor, self.asked)
        with self.out.writing(part_name(part.number)) as stream:
            parquet.write_table(table, stream, compression="zstd")

    def _read(self, part: PredictionPart) -> Images:
        from pyarrow import parquet

        if part.keys:
            with ThreadPoolExecutor(1 if self.source.is_local else 16) as pool:
                return list(zip(part.keys, pool.map(self._read_file, part.keys), strict=True))
        images: Images = []
        for file, group in part.groups:
            with self.source.open(file) as stream:
                rows = parquet.ParquetFile(stream).read_row_group(group, ["key", "image"])
            images += zip(rows["key"].to_pylist(), rows["image"].to_pylist(), strict=True)
        return images

    def _read_file(self, key: str) -> bytes:
        """A file's bytes; none where it cannot be read, which is then what its error says."""
        try:
            return self.source.read(key)
        except OSError:
            return b""


def predicted(images: Images, predictor: Predictor, asked: PredictionJob) -> pa.Table:
    """The rows of some images, in order. Decoding goes on in a thread while the network computes."""
    rows: list[dict[str, Any]] = []
    batches = [images[at : at + asked.batch] for at in range(0, len(images), asked.batch)]
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as ahead:
        cropping = deque(ahead.submit(_crops, predictor, batch) for batch in batches[:2])
        for later in [*batches[2:], None, None][: len(batches)]:
            crops = cropping.popleft().result()
            if later is not None:
                cropping.append(ahead.submit(_crops, predictor, later))
            rows += _answers(crops, predictor, asked)
    return _table(rows, asked, predictor.task)


def _crops(predictor: Predictor, images: Images) -> list[tuple[str, np.ndarray | str]]:
    """Each image's crop, or the reason why it has none."""
    found: list[tuple[str, np.ndarray | str]] = []
    for key, data in images:
        try:
            found.append((key, predictor.crop(data)))
        except ValueError as error:
            found.append((key, str(error)[:300]))
    return found


def _answers(
    crops: list[tuple[str, np.ndarray | str]], predictor: Predictor, asked: PredictionJob
) -> Iterator[dict[str, Any]]:
    pixels = [crop for _, crop in crops if not isinstance(crop, str)]
    answers = iter(predictor.run_batch(pixels) if pixels else [])
    for key, crop in crops:
        if isinstance(crop, str):
            yield {"key": key, "error": crop}
            continue
        answer = next(answers)
        if predictor.task != CLASSIFICATION:
            of_places: Any = predictor
            yield {"key": key} | of_places.row(answer)
            continue
        best = predictor.best(answer.probabilities, asked.top_k)
        row: dict[str, Any] = {field: [getattr(p.image_class, field) for p in best] for field in ("id", "wnid", "name")}
        row |= {"key": key, "probability": [p.probability for p in best]}
        row |= {"embedding": answer.embedding} if asked.embeddings else {}
        yield row | ({"thumbnail": thumbnail(crop, asked.thumbnails)} if asked.thumbnails else {})


def thumbnail(crop: np.ndarray, side: int) -> bytes:
    """A JPEG of the network's input. crop: (S, S, 3) uint8."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(crop).resize((side, side), Image.Resampling.BILINEAR).save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _table(rows: list[dict[str, Any]], asked: PredictionJob, task: str) -> pa.Table:
    """key; id, wnid, name, probability: lists, the most probable class first; error: where there is no prediction.

    Of a detector box, id, name and score, lists too, the surest object first; of a segmenter mask, a PNG.
    """
    import pyarrow as pa

    of_places: dict[str, dict[str, pa.DataType]] = {
        "detection": {
            "box": pa.list_(pa.list_(pa.float32())),
            "id": pa.list_(pa.int32()),
            "name": pa.list_(pa.string()),
            "score": pa.list_(pa.float32()),
        },
        "segmentation": {"mask": pa.binary()},
    }
    if task in of_places:
        columns = {"key": pa.string()} | of_places[task] | {"error": pa.string()}
        return pa.Table.from_pylist(rows, pa.schema(list(columns.items())))
    kinds = {"key": pa.string(), "id": pa.list_(pa.int32()), "wnid": pa.list_(pa.string())}
    kinds |= {"name": pa.list_(pa.string()), "probability": pa.list_(pa.float64()), "error": pa.string()}
    if asked.embeddings:
        kinds["embedding"] = pa.list_(pa.float32())
    if asked.thumbnails:
        kinds["thumbnail"] = pa.binary()
    return pa.Table.from_pylist(rows, pa.schema(list(kinds.items())))
