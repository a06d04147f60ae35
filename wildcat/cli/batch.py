"""``wildcat batch``: parses arguments and calls :func:`wildcat.apps.batch.driver.predict_all`."""

from collections.abc import Sequence
from pathlib import Path

from wildcat.cli.parser import ANY_MODEL, add_on_bad_image, add_precision, add_prediction, add_runtime, command_parser


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "batch",
        "Predict millions of images, on one machine or many (Ray). The same command again resumes where it stopped.",
        """
wildcat batch runs/mine images/ --out predictions
wildcat batch runs/mine list.txt --out predictions --workers 4 --runtime openvino
wildcat batch runs/mine s3://bucket/images/ --out /shared/predictions --address auto
wildcat batch runs/mine shard-000.tar shard-001.tar table.parquet --out predictions
""",
    )
    parser.add_argument("run", metavar="RUN", help=ANY_MODEL)
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images, folders, lists (.txt, a path or URL per line), .parquet (paths or images), shards (.tar, "
        ".tar.gz); paths, or URLs such as s3://",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="directory for the results, shared by all machines")
    parser.add_argument(
        "--address", help="address of a Ray cluster; auto: the one of this machine (default: only this machine)"
    )
    parser.add_argument(
        "--workers", type=int, help="models that run at the same time (default: one per GPU, or per CPU core)"
    )
    parser.add_argument("--part-size", type=int, default=1000, help="images per result file (default: 1000)")
    add_prediction(parser)
    add_on_bad_image(parser)
    add_runtime(parser)
    add_precision(parser)
    arguments = parser.parse_args(argv)

    from wildcat.apps.batch.driver import predict_all

    counts = predict_all(
        arguments.run,
        arguments.inputs,
        Path(arguments.out),
        address=arguments.address,
        workers=arguments.workers,
        part_size=arguments.part_size,
        batch_size=arguments.batch_size,
        threshold=arguments.threshold,
        precision=arguments.precision,
        runtime=arguments.runtime,
        on_bad_image=arguments.on_bad_image,
    )
    failed = f"; {counts.failed} could not be read, see {arguments.out}/errors" if counts.failed else ""
    hidden = f"; {counts.hidden} hidden files in shards were skipped" if counts.hidden else ""
    print(f"{counts.predicted} images: {arguments.out}/predictions{failed}{hidden}")
    return 1 if counts.failed else 0
