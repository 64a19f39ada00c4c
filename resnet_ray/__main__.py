"""resnet-ray COMMAND [OPTIONS]: the scripts of jobs/ as one command, wherever it is called.

    resnet-ray train                  a network of the paper; without arguments the demonstration
    resnet-ray sweep                  a comparison of the paper: several networks and seeds
    resnet-ray search                 lr and weight decay of a network
    resnet-ray folds                  a recipe by k-fold cross-validation
    resnet-ray prepare                images as Parquet shards
    resnet-ray evaluate               a trained network by a protocol of the paper
    resnet-ray probe                  a trained network's features on other images
    resnet-ray predict                many images offline
    resnet-ray export                 safetensors, ONNX, torch.export, int8
    resnet-ray deploy                 a model as an HTTP endpoint
    resnet-ray index                  an index of images, for /v1/search
    resnet-ray pairs                  pairs of images: the same person or not, in ten folds
    resnet-ray detector               train a detector of boxes
    resnet-ray segmenter              train a network that labels pixels
    resnet-ray report                 the paper's tables beside ours
    resnet-ray status                 what trains on a running cluster
    resnet-ray cluster -- COMMAND     any command as a Ray job

`resnet-ray COMMAND --help` has the options and examples of each, `resnet-ray --version` the version.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType

from resnet.host.closed_pipe import quiet_when_closed
from resnet_ray import __version__, add_to_path, code_folder

SCRIPTS = {
    "train": "train_imagenet",
    "sweep": "sweep_paper",
    "search": "search_recipe",
    "folds": "train_folds",
    "prepare": "write_shards",
    "evaluate": "evaluate_model",
    "probe": "probe_features",
    "predict": "predict_images",
    "export": "export_model",
    "deploy": "deploy_best",
    "index": "index_images",
    "pairs": "evaluate_pairs",
    "detector": "train_detector",
    "segmenter": "train_segmenter",
    "report": "write_report",
    "status": "show_status",
}
NOTIFYING = {"train", "sweep", "search", "detector", "segmenter"}  # they take --notify


def main() -> None:
    """Run the script that the first word names with the words behind it, as `python jobs/SCRIPT.py` does."""
    word = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if word in ("-h", "--help", "help", "--version", "-V"):
        with quiet_when_closed():
            print(f"resnet-ray {__version__}" if word in ("--version", "-V") else __doc__)
    elif word in SCRIPTS or word == "cluster":
        add_to_path()
        sys.argv = [f"resnet-ray {word}", *sys.argv[2:]]
        _run(word)
    else:
        known = ", ".join([*SCRIPTS, "cluster"])
        print(f"resnet-ray: COMMAND must be one of {known}, got {word}", file=sys.stderr)
        sys.exit(2)


def _run(word: str) -> None:
    if word == "cluster":
        from pipelines.cluster.__main__ import main as submit

        submit()
    else:
        from pipelines import command_line

        command_line.run_job(_script(SCRIPTS[word]).job, notifies=word in NOTIFYING)


def _script(name: str) -> ModuleType:
    """A script of jobs/ as a module, by its file: `jobs` may be another program's. Its help names our command."""
    spec = importlib.util.spec_from_file_location(f"resnet_ray.jobs.{name}", code_folder() / "jobs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for command, other in SCRIPTS.items():
        script.__doc__ = re.sub(rf"(python )?jobs/{other}\.py", f"resnet-ray {command}", script.__doc__ or "")
    return script


if __name__ == "__main__":
    main()
