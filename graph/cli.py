"""`orthanc-graphql`: the command line. A command's module is imported when it is called."""

from importlib import import_module
from importlib.metadata import version

import click

_COMMANDS = {
    "serve": ("graph.commands.serve", "Run the server, with its own MongoDB and Orthanc or yours."),
    "open": ("graph.commands.simple:open_", "Open the study browser of the running server."),
    "doctor": ("graph.commands.doctor", "Check every part and say what to do."),
    "import": ("graph.commands.import_", "Upload folders, files and ZIPs of DICOM files."),
    "migrate": ("graph.commands.migrate", "Move the local files of the old system into Orthanc."),
    "sync": ("graph.commands.sync", "Compare MongoDB with Orthanc and repair, once."),
    "backup": ("graph.commands.backup", "Save everything that the embedded stores hold."),
    "restore": ("graph.commands.restore", "Restore a backup into a new data directory."),
    "schema": ("graph.commands.simple:schema", "Print the GraphQL schema (SDL)."),
    "token": ("graph.commands.token", "Make, list and revoke tokens."),
    "audit": ("graph.commands.audit", "Show who did what: the audit trail."),
    "key": ("graph.commands.simple:key", "Print a new key for FRAME_URL_KEYS."),
    "health": ("graph.commands.health", "Ask a server whether it is well."),
    "secrets": ("graph.commands.secrets", "Make the secrets of an installation in containers."),
}
"""Module, function unless it is `command`, and help of each command: `--help` imports none."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        if cmd_name not in _COMMANDS:
            return None
        module, _, function = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), function or "command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("orthanc-graphql"), prog_name="orthanc-graphql")
def main() -> None:
    """A GraphQL API in front of an Orthanc PACS.

    Settings come from the environment and from a file `.env`; docs/settings.md lists them.
    """


if __name__ == "__main__":
    main()
