"""One model, loaded and checked before it answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serve.inference.classifier import Classifier
from serve.inference.dense.dense_model import DenseModel
from serve.inference.dense.open_model import open_model
from serve.inference.inference_service import Inference
from serve.metrics import Metrics
from serve.settings import Args
from serve.versions.traffic import Version

# Largest difference of a probability from the stored one. Other hardware rounds otherwise, bfloat16 and int8 coarsely;
# a wrong or damaged network is off by nearly 1.
TOLERANCE = {"float32": 0.01, "tf32": 0.05, "bfloat16": 0.1}
COARSE = 0.25


def check_answers(classifier: Classifier) -> None:
    """ValueError where a model's answers are no probabilities, or differ from the examples of its checkpoint."""
    if isinstance(classifier, DenseModel):
        classifier.check_itself()
        return
    if classifier.examples is None:
        images = np.random.default_rng(0).uniform(0, 255, (2, classifier.size, classifier.size, 3))
        answers = classifier.run_batch(list(images.astype(np.float32)))
        expected = None
    else:
        answers = classifier.run_batch(list(classifier.examples["images"].numpy()))
        expected = classifier.examples["probabilities"].numpy()
    found = np.stack([answer.probabilities for answer in answers])
    if not np.isfinite(found).all():
        raise ValueError("its answers are no numbers")
    if expected is None:
        return
    if found.shape != expected.shape:
        raise ValueError(f"its answers on its stored examples have shape {found.shape}, expected {expected.shape}")
    worst, allowed = float(np.abs(found - expected).max()), TOLERANCE.get(classifier.precision, COARSE)
    if worst > allowed:
        raise ValueError(
            f"its answers on its {len(found)} stored examples differ by up to {worst:.3f}, allowed {allowed:g}"
        )


@dataclass(frozen=True, eq=False)
class Loaded:
    """A version of a model that can answer."""

    name: str
    version: str
    checkpoint: str
    inference: Inference

    @property
    def classifier(self) -> Classifier:
        """Its network."""
        return self.inference.classifier

    @property
    def signature(self) -> dict[str, str]:
        """The name and version that every answer carries."""
        return {"model": self.name, "version": self.version}


def load_version(wanted: Version, args: Args, name: str, replica: str) -> Loaded:
    """A version, checked and warm. ValueError, OSError and what else readers of URIs raise: it is not served."""
    classifier = open_model(wanted.checkpoint, precision=args.precision, threads=args.threads_used, device=args.device)
    check_answers(classifier)
    metrics = Metrics({"model": name, "version": wanted.version, "replica": replica})
    inference = Inference(classifier, args, metrics)
    inference.warm_up()
    return Loaded(name, wanted.version, wanted.checkpoint, inference)
