"""``wildcat push``: parses arguments and calls :func:`wildcat.runs.hub.push_to_hub`."""

from collections.abc import Sequence

from wildcat.cli.parser import command_parser


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "push",
        "Publish a run on the Hugging Face hub, with a model card. Local paths are left out.",
        """
wildcat push runs/mine owner/name --license apache-2.0
wildcat push runs/mine owner/name --private
wildcat push runs/mine owner/name --to shared/mine
""",
    )
    parser.add_argument("run", metavar="RUN", help="run directory")
    parser.add_argument(
        "repo_id", metavar="OWNER/NAME", help="name of the model on the hub; created if it does not exist"
    )
    parser.add_argument(
        "--license",
        default="unknown",
        metavar="ID",
        help="license identifier of the hub, such as apache-2.0 (default: unknown)",
    )
    parser.add_argument("--private", action="store_true", help="create the model as a private one")
    parser.add_argument("--to", metavar="DIR", help="write the files to a directory instead of uploading them")
    parser.add_argument("--overwrite", action="store_true", help="replace files in --to that wildcat has not written")
    arguments = parser.parse_args(argv)

    from wildcat.runs.hub import push_to_hub, save_for_hub

    if arguments.to:
        where: object = save_for_hub(
            arguments.run,
            arguments.to,
            name=arguments.repo_id,
            license=arguments.license,
            overwrite=arguments.overwrite,
        )
    else:
        where = push_to_hub(arguments.run, arguments.repo_id, license=arguments.license, private=arguments.private)
    print(f"published: {where}")
    return 0
