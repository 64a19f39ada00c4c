#!/usr/bin/env python3
"""Export a model, verified on real images before it is there: jobs/export_model.py MODEL --out FOLDER [OPTIONS]

    jobs/export_model.py resnet@champion --out exported
    jobs/export_model.py resnet/3 --out exported --images s3://bucket/shards --formats onnx int8
    jobs/export_model.py resnet50-0676ba61.pth --network imagenet-resnet50-B-v1.5 --images photos/ --out exported

FOLDER becomes a checkpoint without momentum (model.safetensors, weights by torchvision's names) with model.onnx and
model.pt2 (torch.export), both for any batch: pixels (N, 3, S, S), RGB in [0, 255], give probabilities and embedding.
int8 adds int8.onnx, calibrated on half of the images and compared with float32 on the other half: jobs/deploy_best.py
--checkpoint FOLDER --precision int8 serves it. Without --images the embedded digits are used.
"""

import sys
from pathlib import Path
from typing import Any

from pipelines import command_line
from pipelines.models import by_name
from pipelines.models.verification_images import Export, sample_images


def job(argv: list[str]) -> Any:
    """Resolve the model, take images, write."""
    name, asked = command_line.parse_after_model(Export, argv, __doc__)
    place, _ = by_name.checkpoint_of(name, asked.network, asked.preprocess)
    images = sample_images(asked.images, asked.count)
    from serve.inference.model_export import export

    exported = export(by_name.read_checkpoint(place), Path(asked.out).resolve(), asked.formats, images)
    said = ", ".join(exported.differences)
    print(f"{said} equal the checkpoint on {exported.images} images: {asked.out}", file=sys.stderr)
    if (int8 := exported.agreement) is not None:
        print(f"int8 finds the same class for {int8.top1_agreement:.1f} % of {int8.images} images", file=sys.stderr)
    return exported


if __name__ == "__main__":
    command_line.run_job(job, "nothing was written, the same command begins anew")
