"""``wildcat serve``: parses arguments and calls :func:`wildcat.apps.serve.server.serve`."""

from collections.abc import Sequence

from wildcat.cli.parser import ANY_MODEL, add_device, add_precision, add_runtime, command_parser
from wildcat.errors import WildcatError


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "serve",
        "Serve a web page that classifies, localizes and segments uploaded images; masks and points can be downloaded.",
        """
wildcat serve imagenet
wildcat serve runs/mine --port 8000
wildcat serve runs/mine --host 0.0.0.0
""",
    )
    parser.add_argument("run", metavar="RUN", help=ANY_MODEL)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 accepts connections from other machines (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help="port to listen on (default: the first free one from 7860)"
    )
    add_runtime(parser)
    add_device(parser)
    add_precision(parser)
    arguments = parser.parse_args(argv)
    if arguments.port is not None and not 0 <= arguments.port <= 65535:
        raise WildcatError(f"--port is a number from 0 to 65535; got {arguments.port}")

    from wildcat.apps.serve.server import serve

    serve(
        arguments.run,
        device=arguments.device,
        precision=arguments.precision,
        runtime=arguments.runtime,
        host=arguments.host,
        port=arguments.port,
    )
    return 0
