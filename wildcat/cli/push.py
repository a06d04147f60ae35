"""``wildcat push``."""

from collections.abc import Sequence

from wildcat.cli.parser import command_parser


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "push",
        "Share a run on the Hugging Face hub, with a model card written from it. Paths of this machine are left out.",
        """
wildcat push runs/mine owner/name --license apache-2.0
wildcat push runs/mine owner/name --private
wildcat push runs/mine owner/name --to shared/mine
""",
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="the model's name on the hub; made if needed")
    parser.add_argument("--license", default="unknown", metavar="ID", help="the hub's identifier, such as apache-2.0")
    parser.add_argument("--private", action="store_true", help="a model that is made is for its owner alone")
    parser.add_argument("--to", metavar="DIR", help="write the files to a folder instead, to look at or to upload")
    arguments = parser.parse_args(argv)

    from wildcat.runs.hub import push_to_hub, save_for_hub

    if arguments.to:
        where: object = save_for_hub(arguments.run, arguments.to, name=arguments.repo_id, license=arguments.license)
    else:
        where = push_to_hub(arguments.run, arguments.repo_id, license=arguments.license, private=arguments.private)
    print(f"shared: {where}")
    return 0
