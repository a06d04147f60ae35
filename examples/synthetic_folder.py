"""Write synthetic images to a folder, and a CSV of their tags: data to try wildcat on.

python examples/synthetic_folder.py shapes --count 300

This makes `shapes/000.jpg` and so on, and `shapes.csv` with the columns `image` and `tags`.
"""

import argparse
from pathlib import Path

from wildcat import open_dataset

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path)
parser.add_argument("--count", type=int, default=300, help="number of images")
parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
parser.add_argument("--seed", type=int, default=0, help="another seed makes other images")
arguments = parser.parse_args()

dataset = open_dataset(f"synthetic:count={arguments.count},size={arguments.size},seed={arguments.seed}", "train")
arguments.folder.mkdir(parents=True, exist_ok=True)
rows = ["image,tags"]
for index, labels in enumerate(dataset.labels):
    file = arguments.folder / f"{index:03}.jpg"
    dataset.image(index).save(file, quality=95)
    tags = [name for name, label in zip(dataset.classes, labels, strict=True) if label > 0]
    rows.append(f"{arguments.folder.name}/{file.name},{';'.join(tags)}")
table = arguments.folder.with_suffix(".csv")
table.write_text("\n".join(rows) + "\n")
print(f"{len(dataset)} images in {arguments.folder}, their tags in {table}")
