# ruff: noqa: E501 - each message is on one line
"""Command lines."""

from tests.robustness.bad_input.case import Case, nothing, text

TRAIN = "train --data synthetic --out new"
PREDICT = "predict run cat.png --out out"
EVALUATE = "evaluate run --data synthetic:count=2,size=64"


def command(name: str, what: str, typed: str, message: str) -> Case:
    """An error on the command line, with no change of files."""
    return Case(name, what, nothing, typed, message)


COMMANDS = [
    command(
        "mistyped-command",
        "a mistyped command",
        "trian --data synthetic --out new",
        "unknown command 'trian'; did you mean train? (known: quickstart, train, tune, evaluate, compare, runs, report, predict, batch, export, push, convert, reproduce, serve, completion)",
    ),
    command(
        "no-command",
        "options before a command",
        "--data synthetic train",
        "unknown command '--data' (known: quickstart, train, tune, evaluate, compare, runs, report, predict, batch, export, push, convert, reproduce, serve, completion)",
    ),
    command(
        "no-out",
        "no folder for the run",
        "train --data synthetic",
        "required: --out (see wildcat train --help)",
    ),
    command(
        "no-images-given",
        "no image",
        "predict run --out out",
        "required: IMAGE (see wildcat predict --help)",
    ),
    command(
        "mistyped-option",
        "a mistyped option",
        f"{TRAIN} --epoch 3",
        "unrecognized arguments: --epoch 3; did you mean --epochs? (see wildcat train --help)",
    ),
    command(
        "foreign-option",
        "an option that there is not",
        f"{PREDICT} --gpu 1",
        "unrecognized arguments: --gpu 1 (see wildcat predict --help)",
    ),
    command(
        "bare-option",
        "an option without its value",
        f"{TRAIN} --lr",
        "argument --lr: expected one argument (see wildcat train --help)",
    ),
    command(
        "word-too-many", "a word too many", f"{TRAIN} more", "unrecognized arguments: more (see wildcat train --help)"
    ),
    command(
        "worded-number",
        "a word for a number",
        f"{TRAIN} --lr fast",
        "--lr must be a number, e.g. 0.01; got 'fast' (see wildcat train --help)",
    ),
    command(
        "broken-number",
        "half an epoch",
        f"{TRAIN} --epochs 1.5",
        "--epochs must be a whole number; got '1.5' (see wildcat train --help)",
    ),
    command("zero-epochs", "no epoch", f"{TRAIN} --epochs 0", "epochs must be above 0; got 0"),
    command(
        "nan-rate",
        "a rate that is no number",
        f"{TRAIN} --lr nan",
        "--lr must be a number, e.g. 0.01; got 'nan' (see wildcat train --help)",
    ),
    command(
        "negative-seed",
        "a seed below 0",
        f"{TRAIN} --seed -1",
        "seed must be at least 0 and below 9223372036854775808; got -1",
    ),
    command(
        "mistyped-choice",
        "a mistyped choice",
        f"{TRAIN} --schedule cosin",
        "--schedule must be 'constant', 'step', 'cosine'; got 'cosin' (see wildcat train --help)",
    ),
    command(
        "two-meanings",
        "1.0 regions: one, or all?",
        f"{TRAIN} --kmax 1.0",
        'kmax=1.0 is ambiguous: write 1 for one region or "all" for every region',
    ),
    command(
        "no-map-left",
        "all maps of a class left out",
        f"{TRAIN} --class-pooling lse --map-dropout 1",
        "map_dropout must be at least 0 and below 1; got 1.0",
    ),
    command("no-size", "a side of 0 pixels", f"{TRAIN} --image-size 0", "image_size must be above 0; got 0"),
    command(
        "worded-sizes",
        "sizes that are no numbers",
        f"{TRAIN} --score-sizes small,large",
        "argument --score-sizes: sizes are whole numbers separated by commas, such as 320,448; got 'small,large' (see wildcat train --help)",
    ),
    command(
        "frozen-shards",
        "a frozen backbone in shards",
        f"{TRAIN} --frozen --shard",
        "frozen excludes shard: the head alone is trained, which is small",
    ),
    command(
        "frozen-crops",
        "crops of the whole image",
        f"{TRAIN} --frozen --feature-views 6",
        "feature_views 6 includes random crops: it needs a crop_area below 1, such as 0.5",
    ),
    command(
        "file-cache",
        "a file for the folder of features",
        "train --data synthetic:count=4,size=64 --frozen --image-size 64 --cache-dir cat.png --out new",
        "cache_dir: cat.png/features/... cannot be made: Not a directory",
    ),
    command(
        "small-cache",
        "too little room for features",
        "train --data synthetic:count=4,size=64 --frozen --image-size 64 --cache-dir cache --cache-dir-gb 1e-6 --out new",
        "the features of ... images need ... GB in cache/features, which holds 0 GB and may hold 1e-06: raise cache_dir_gb, delete folders there, or lower image_size",
    ),
    command(
        "mistyped-backbone",
        "a mistyped backbone",
        f"{TRAIN} --backbone resnet1O1",
        "unknown backbone 'resnet1O1'; did you mean resnet101? (known: lite0, lite1, lite2, resnet18, resnet34, resnet50, resnet101, resnet152, timm:NAME; register a backbone of your own with wildcat.backbones.register_backbone first)",
    ),
    command(
        "mistyped-recipe",
        "a mistyped recipe",
        f"{TRAIN} --recipe voc70",
        "no recipe or file 'voc70'; did you mean voc07? (recipes: action12, coco, coco-mini, frozen-tables, mit67, quickstart, scene15, scene15-mini, voc07, voc07-mini, voc07-mini-tables, voc12)",
    ),
    command(
        "mistyped-kind",
        "a mistyped kind of data",
        "train --data voc7:. --out new",
        "data 'voc7:.': kind 'voc7' is unknown; allowed: voc07, voc12, action12, coco, mit67, scene15, folder, tags, hf, labelstudio, cvat, yolo, masks, voc, synthetic; did you mean voc07?",
    ),
    command(
        "bare-data",
        "data without their kind",
        "train --data cat.png --out new",
        "data 'cat.png' has no kind; did you mean 'tags:cat.png'? Kinds: voc07, voc12, action12, coco, mit67, scene15, folder, tags, hf, labelstudio, cvat, yolo, masks, voc, synthetic",
    ),
    command(
        "data-option",
        "an option of the data that is not allowed",
        "train --data synthetic:size=7 --out new",
        "synthetic: size=7 is not allowed; it must be 32 to 2048",
    ),
    command(
        "taken-out",
        "a folder that holds another run",
        "train --data synthetic --out run",
        "run already holds a run: continue it with --resume, or give another folder",
    ),
    command(
        "full-out",
        "a folder that holds other things",
        "train --data synthetic --out .",
        ". holds cat.png and is not a run: give a new or an empty folder",
    ),
    command(
        "file-out",
        "a file for the run's folder",
        "train --data synthetic --out cat.png",
        "cat.png is a file; give a folder for the run",
    ),
    command(
        "other-resume",
        "a run continued with another rate",
        "train --out run --resume --lr 3",
        "cannot change lr from 0.1 to 3.0 when resuming run; use a new run directory",
    ),
    command(
        "no-data",
        "a model that has no data, scored without any",
        "evaluate imagenet",
        "imagenet has no dataset of its own; name the dataset to score on with --data",
    ),
    command(
        "mistyped-task",
        "a mistyped task",
        f"{EVALUATE} --tasks segmentatoin",
        "task 'segmentatoin' is unknown; allowed: classification, pointing, segmentation; did you mean segmentation?",
    ),
    command(
        "no-split",
        "a split that there is not",
        f"{EVALUATE} --split nope",
        "synthetic: there is no split 'nope'; allowed are train, val, test",
    ),
    command(
        "other-classes",
        "data of other classes",
        "evaluate imagenet --data synthetic:count=2,size=64",
        "synthetic:count=2,size=64 has other classes than the model: the dataset lacks Afghan hound, African chameleon, African crocodile and 995 more, the model lacks fish, house, key and 3 more",
    ),
    command(
        "deep-results",
        "results into a folder that there is not",
        f"{EVALUATE} --json no/r.json",
        "no/r.json cannot be written: there is no directory no",
    ),
    command("unmatched-stars", "stars that match nothing", "predict run '*.jpg' --out out", "*.jpg does not exist"),
    command(
        "mistyped-format",
        "a mistyped format",
        f"{PREDICT} --formats json,masks",
        "format 'masks' is unknown; allowed: json, csv, overlay, mask, coco, yolo, voc, label-studio, cvat; did you mean mask?",
    ),
    command(
        "high-threshold",
        "a threshold of 7",
        f"{PREDICT} --threshold 7",
        "argument --threshold: a threshold is a probability, 0..1 (0.5 for 50 %), or CLASS=P,CLASS=P; got 7 (see wildcat predict --help)",
    ),
    command(
        "foreign-threshold",
        "a threshold of a class that there is not",
        f"{PREDICT} --threshold cart=0.5",
        "a threshold is given for 'cart', which is not a class of the model",
    ),
    command(
        "empty-batch",
        "0 images per pass",
        f"{PREDICT} --batch-size 0",
        "argument --batch-size: it must be a whole number, at least 1; got 0 (see wildcat predict --help)",
    ),
    command(
        "file-out-predict",
        "a file for the results' folder",
        "predict run cat.png --out cat.png",
        "cat.png is no directory; choose another one for the results",
    ),
    Case(
        "own-mask",
        "a mask of the user's own in the results' folder",
        text("out/mask/cat.png", "made by hand"),
        f"{PREDICT} --formats json,mask",
        "out holds files that wildcat has not written, or that were changed since: mask/cat.png; choose another directory, or replace them with --overwrite",
    ),
    Case(
        "own-card",
        "a model card of the user's own where a model is written",
        text("shared/README.md", "# About"),
        "push run owner/name --to shared",
        "shared holds files that wildcat has not written, or that were changed since: README.md; choose another directory, or replace them with --overwrite",
    ),
    command(
        "image-as-json",
        "an image as the file for JSON lines",
        "predict run cat.png --json cat.png",
        "--json cat.png is one of the images; give another file",
    ),
    command(
        "folder-as-page",
        "a folder as the file of a report",
        "report run --out run",
        "run cannot be written: it is a directory; give the name of a file",
    ),
    command(
        "mistyped-runtime",
        "a mistyped runtime",
        f"{PREDICT} --runtime onxx",
        "argument --runtime: invalid choice: 'onxx' (choose from 'torch', 'onnx', 'openvino', 'auto') (see wildcat predict --help)",
    ),
    command(
        "no-device",
        "a device that there is not",
        f"{PREDICT} --device tpu",
        "device 'tpu' cannot be used: ...; auto uses the GPU if there is one",
    ),
    command("no-workers", "no worker", "batch run cat.png --out out --workers 0", "workers must be at least 1; got 0"),
    command(
        "mistyped-export",
        "a format that nothing is exported to",
        "export run --format tflite",
        "argument --format: invalid choice: 'tflite' (choose from 'onnx', 'openvino', 'torch') (see wildcat export --help)",
    ),
    command(
        "no-report-images",
        "a report of no images",
        "report run --images 0",
        "a report needs at least 1 image; got 0",
    ),
    command(
        "far-port",
        "a port that there is not",
        "serve run --port 70000",
        "--port is a number from 0 to 65535; got 70000",
    ),
    command(
        "other-shell",
        "another shell",
        "completion fish",
        "argument shell: invalid choice: 'fish' (choose from 'bash', 'zsh') (see wildcat completion --help)",
    ),
    command(
        "tune-existing-file",
        "a recipe that exists",
        "tune --data synthetic --out .",
        ". exists; give the name of a new file",
    ),
    command(
        "frozen-masks",
        "masks on frozen features",
        "reproduce table9 --data synthetic --out new --recipe frozen-tables",
        "table9 scores masks, which frozen features do not give; leave out one of the two",
    ),
    command(
        "frozen-rates",
        "a learning rate of zero",
        "reproduce table5 --data synthetic --out new --recipe frozen-tables --rates 0,1",
        "--rates must be numbers above 0; got 0",
    ),
    command(
        "rates-without-frozen",
        "learning rates to choose from, for whole runs",
        "reproduce table5 --data synthetic --out new --rates 0.1,1",
        "--rates is for --frozen, which chooses a learning rate by row",
    ),
    command(
        "mistyped-table",
        "a table that the paper does not have",
        "reproduce table99 --data synthetic --out new",
        "no experiment 'table99'; did you mean table9? (known: table2, table3, table4, table5, table6, table6-rate, table7, table8, table9, figure4, figure5, figure6)",
    ),
    Case(
        "no-classes-file",
        "a list of classes that is empty",
        text("classes.txt", ""),
        "convert cat.png --classes classes.txt --kmax 0.2 --alpha 0.7 --out new",
        "class names must not be empty, nor occur twice; got classes.txt",
    ),
]
