"""A bucket's folder with 330 small pictures of two classes, as a user uploads them: pictures.py BUCKET FOLDER"""

import io
import sys

import numpy as np
from PIL import Image
from pyarrow import fs

bucket, folder = sys.argv[1:]
system = fs.FileSystem.from_uri(f"s3://{bucket}/{folder}")[0]
for number in range(330):
    pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    split, name = ("train", "val")[number % 5 == 0], ("cat", "dog")[number % 2]
    with system.open_output_stream(f"{bucket}/{folder}/{split}/{name}/{number}.jpg") as stream:
        stream.write(file.getvalue())
