"""Two commands: one greets, one fails."""

from vmr_common.cli.entrypoint import Parser, command, echo
from vmr_common.errors import UserError


@command
def greet(argv):
    parser = Parser(prog="greet")
    parser.add_argument("--whom", required=True)
    echo(f"hello {parser.parse_args(argv).whom}", "bye")


@command
def fail(argv):
    raise UserError("no,\n  never")
