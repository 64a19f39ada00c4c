"""What a run has left: outcome_of.py FOLDER -> JSON: sha256 of weights and optimizer by step, rows, files beside.

Rows without what depends on the clock. FOLDER: a path or URI, read by Arrow alone.
"""

import hashlib
import json
import sys

from pyarrow import fs

BY_THE_CLOCK = {"seconds", "cpu_seconds", "data_wait_fraction", "images_per_second"}


def main(uri: str) -> None:
    """One line."""
    system, root = fs.FileSystem.from_uri(uri) if "://" in uri else (fs.LocalFileSystem(), uri)
    files = {i.path.removeprefix(f"{root}/"): i for i in system.get_file_info(fs.FileSelector(root, recursive=True))}
    said: dict = {"steps": {}, "rows": [], "files": sorted(name for name in files if not name.startswith("ray/"))}
    for name in said["files"]:
        folder, _, file = name.rpartition("/")
        if not folder.startswith("step-") or files[name].type != fs.FileType.File:
            continue
        data = system.open_input_stream(f"{root}/{name}").read()
        if file.endswith(".safetensors"):
            said["steps"].setdefault(folder, {})[file] = hashlib.sha256(data).hexdigest()
        elif file == "progress.json":
            rows = json.loads(data)["rows"]
            kept = [{k: v for k, v in row.items() if k not in BY_THE_CLOCK} for row in rows]
            if len(kept) >= len(said["rows"]):
                said["rows"] = kept
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
