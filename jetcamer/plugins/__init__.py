"""Where packages that add commands to the agent put their modules.

Like ``twisted.plugins``, this package is spread over all folders ``jetcamer/plugins`` on
``sys.path`` that hold no ``__init__.py``. See `jetcamer.agent.commands.interfaces`.
"""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
