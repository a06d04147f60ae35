"""``wildcat export``: parses arguments and calls :func:`wildcat.export.write.export`."""

from collections.abc import Sequence
from pathlib import Path

from wildcat.cli.parser import command_parser


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "export",
        "Write a model as a file for other programs. The file is run and compared with the model; it is removed if the "
        "outputs differ.",
        """
wildcat export runs/voc07 --format onnx
wildcat export runs/mine --format onnx --check images/
wildcat export runs/voc07 --format openvino --out voc07.xml
wildcat export imagenet --format onnx --out imagenet.onnx
""",
    )
    parser.add_argument("run", metavar="RUN", help='run directory, hub name, or "imagenet"')
    parser.add_argument(
        "--format", choices=["onnx", "openvino", "torch"], default="onnx", help="file format (default: onnx)"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="the file: .onnx, .xml or .pt2 (default: RUN/exports/model.onnx and so on)"
    )
    parser.add_argument(
        "--check",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="images, or folders of images, on which outputs are compared as well",
    )
    arguments = parser.parse_args(argv)

    from wildcat.data.files import image_files_at
    from wildcat.export.write import SUFFIX, export
    from wildcat.prediction.exported import exports_folder
    from wildcat.prediction.loading import load

    file = Path(arguments.out) if arguments.out else exports_folder(arguments.run) / f"model{SUFFIX[arguments.format]}"
    images = image_files_at(arguments.check)
    predictor = load(arguments.run, device="cpu")
    made = export(predictor.model, predictor.settings, file, arguments.format, images)
    print(f"exported: {made.file}")
    also = f" and the {len(images)} given" if images else ""
    message = ", ".join(f"{name.replace('_', ' ')} {value:.1e}" for name, value in made.differences.items())
    print(f"largest differences from PyTorch, on synthetic images{also}: {message}")
    return 0
