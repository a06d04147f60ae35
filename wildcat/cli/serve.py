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
wildcat serve runs/mine --host 0.0.0.0 --token our-own-secret
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
    access = parser.add_argument_group("access")
    token = access.add_mutually_exclusive_group()
    token.add_argument(
        "--token",
        metavar="TEXT",
        help="text that each request must carry, at least 8 letters and digits (default: a random one, in the printed "
        "address, if other machines can reach the page, by --host or --allow-host)",
    )
    token.add_argument("--no-token", action="store_true", help="let everyone who can reach the address use the page")
    access.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="further name under which the page is reached, for example that of a reverse proxy; may be repeated",
    )
    add_runtime(parser)
    add_device(parser)
    add_precision(parser)
    arguments = parser.parse_args(argv)
    if arguments.port is not None and not 0 <= arguments.port <= 65535:
        raise WildcatError(f"--port is a number from 0 to 65535; got {arguments.port}")
    if arguments.token == "":
        raise WildcatError("--token is empty; for a page without a token use --no-token")

    from wildcat.apps.serve.server import serve

    serve(
        arguments.run,
        device=arguments.device,
        precision=arguments.precision,
        runtime=arguments.runtime,
        host=arguments.host,
        port=arguments.port,
        token="" if arguments.no_token else arguments.token,
        allow_hosts=arguments.allow_host or (),
    )
    return 0
