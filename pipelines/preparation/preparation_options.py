"""The options of jobs/write_shards.py."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from pipelines.file_names import Output, below
from pipelines.preparation.sources import Source
from pipelines.preparation.splits.drawn_splits import Drawing, Share
from pipelines.preparation.splits.groups import GroupBy
from pipelines.shards.manifest import FOLD, Encoding
from resnet.frozen import FrozenSettings, sentence

QUALITY = 90


class Preparation(FrozenSettings):
    """One call of jobs/write_shards.py."""

    out: Annotated[
        Output, Field(description="folder or URI of the shards: empty, absent, or begun by the same command")
    ]
    source: Source = Source()
    verify: Annotated[bool, Field(description="re-read all shards in out and compare them with the manifest")] = False
    shorter_side: Annotated[
        int | None, Field(description="re-encode images with more pixels on the shorter side. None: bytes as they are")
    ] = None
    quality: Annotated[int | None, Field(description=f"of the re-encoded JPEGs. None: {QUALITY}")] = None
    grey_range: Annotated[
        tuple[int, int] | None,
        Field(description="levels of grey images of more than 8 bits that become 0 and 255. None: all of the type"),
    ] = None
    measure_grey_range: Annotated[
        bool, Field(description="take it from some training images: percentiles 0.1 and 99.9 of their pixels")
    ] = False
    row_group_size: Annotated[
        int | None, Field(ge=1, description="images that are read at once. None: 128, or 512 for many small images")
    ] = None
    seed: Annotated[int, Field(ge=0, description="of the one shuffle")] = 0
    max_rejected: Annotated[float, Field(ge=0, le=1, description="share of the images that may fail to decode")] = 0.01
    workers: Annotated[
        int | None, Field(ge=0, description="shards written at a time; 0: one, without Ray. None: as many as CPUs")
    ] = None
    val_share: Annotated[Share, Field(description="share of each class that is drawn for val, where there is none")] = (
        None
    )
    test_share: Annotated[
        Share, Field(description="share of each class for a split test, which no decision looks at")
    ] = None
    folds: Annotated[
        int | None,
        Field(ge=2, description="k-fold cross-validation: out/fold-1, out/fold-2, ... each have another part for val"),
    ] = None
    split_seed: Annotated[int, Field(ge=0, description="of the drawing of val, test and folds")] = 0
    group_csv: Annotated[
        str | None, Field(description="file with a line for each image, whose groups are never on two sides")
    ] = None
    group_column: Annotated[str | None, Field(description="column of group_csv, e.g. patient")] = None
    group_part: Annotated[
        int | None,
        Field(description="folder of CLASS/.../FILE that is the group: 2 is the first in CLASS, -1 the last"),
    ] = None
    group_pattern: Annotated[
        str | None, Field(description="regular expression on CLASS/.../FILE whose match, or bracket, is the group")
    ] = None
    keep_test: Annotated[bool, Field(description="keep the source's own split test beside val")] = False
    allow_empty: Annotated[bool, Field(description="keep classes without images")] = False
    allow_missing: Annotated[bool, Field(description="go on where parts of a numbered set are missing")] = False
    repair: Annotated[
        bool, Field(description="compare all shards of a finished folder, and write those again that are damaged")
    ] = False

    @model_validator(mode="after")
    def _verify_reads_out_alone(self) -> Self:
        if self.verify and self.source != Source():
            raise ValueError(f"source must be left out with verify, which reads out alone, got {self.source.path}")
        return self

    @model_validator(mode="after")
    def _one_range(self) -> Self:
        if self.grey_range is not None and self.measure_grey_range:
            raise ValueError(f"grey_range must be left out with measure_grey_range, got {self.grey_range}")
        return self

    @property
    def each_fold(self) -> tuple[tuple[str, Drawing], ...]:
        """Where the shards of each fold go, and how they are drawn; one alone without folds."""
        drawing = self.drawing
        if drawing.folds is None:
            return ((self.out, drawing),)
        numbers = range(1, drawing.folds + 1)
        return tuple((below(self.out, f"{FOLD}{n}"), drawing.model_copy(update={"fold": n})) for n in numbers)

    @property
    def drawing(self) -> Drawing:
        """The options of reading the source. ValueError: options that do not fit each other."""
        try:
            return Drawing(
                val_share=self.val_share,
                test_share=self.test_share,
                folds=self.folds,
                seed=self.split_seed,
                group=GroupBy(
                    csv=self.group_csv, column=self.group_column, part=self.group_part, pattern=self.group_pattern
                ),
                keep_test=self.keep_test,
                allow_empty=self.allow_empty,
                allow_missing=self.allow_missing,
            )
        except ValidationError as error:
            raise ValueError(sentence(error)) from None

    @property
    def encoding(self) -> Encoding:
        """The options of storing images."""
        quality = QUALITY if self.shorter_side is not None and self.quality is None else self.quality
        return Encoding(shorter_side=self.shorter_side, quality=quality, grey_range=self.grey_range)
