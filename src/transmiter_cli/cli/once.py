"""Commands that refuse a second value for an option that takes one."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperOption

from transmiter_cli.errors import UsageError


class OnceCommand(TyperCommand):
    """A command whose options are given once, but for those that may be repeated: none is silently forgotten."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line.

        Raises:
            UsageError: if an option that takes one value is given several.
        """
        _, _, given = self.make_parser(ctx).parse_args(args=[*args])
        for option in given:
            if isinstance(option, TyperOption) and not (option.multiple or option.is_flag) and given.count(option) > 1:
                raise UsageError(
                    f"{option.opts[0]} is given more than once, and takes one value.", "leave all but one out"
                )
        return super().parse_args(ctx, args)
