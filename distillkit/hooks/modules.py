"""How another process finds the plugins of this one."""

from __future__ import annotations

import inspect

from .loader import Plugins


def modules_of(plugins: Plugins) -> tuple[dict[str, str], list[str]]:
    """Return the modules of plugins that are not installed, by name, and the names of those that no module holds."""
    modules: dict[str, str] = {}
    others: list[str] = []
    for info in plugins.plugins:
        if info.distribution is not None:
            continue
        plugin = plugins.manager.get_plugin(info.name)
        if inspect.ismodule(plugin) and plugin.__name__ != "__main__":
            modules[info.name] = plugin.__name__
        else:
            others.append(info.name)
    return modules, others
