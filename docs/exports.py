"""For the API page: a package's surface is what its `__init__` imports as itself, `from ... import name as name`."""

from typing import Any

import griffe


class Exports(griffe.Extension):
    """Takes names that are imported as themselves for exported, as type checkers do."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Tells each package which names it exports."""
        del kwargs
        for module in (pkg, *_packages(pkg)):
            own = [
                name
                for name, member in module.members.items()
                if isinstance(member, griffe.Alias)
                and not name.startswith("_")
                and member.target_path.startswith(f"{pkg.name}.")
            ]
            if own:
                module.exports = own


def _packages(module: griffe.Module) -> list[griffe.Module]:
    below = [each for each in module.modules.values() if not each.is_alias and each.is_init_module]
    return [each for own in below for each in (own, *_packages(own))]
