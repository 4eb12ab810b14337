"""Commands that refuse a second value for an option that takes one."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperOption

from transmiter_cli.errors import UsageError

SEVERAL = {"--reg": "--reg 0.1,1,10"}
"""How options take several values in one."""


class OnceCommand(TyperCommand):
    """A command whose options are given once, but for those that may be repeated: none is silently forgotten."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line.

        Raises:
            UsageError: if an option that takes one value is given several.
        """
        given = [] if ctx.resilient_parsing else self.make_parser(ctx).parse_args(args=[*args])[2]  # or a shell asks
        for option in given:
            if isinstance(option, TyperOption) and not (option.multiple or option.is_flag) and given.count(option) > 1:
                fix = SEVERAL.get(option.opts[0], "leave all but one out")
                raise UsageError(f"{option.opts[0]} is given more than once, and takes one value.", fix)
        return super().parse_args(ctx, args)
