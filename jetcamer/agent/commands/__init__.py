"""Commands: what a server may ask of the agent, and what runs it.

A `CommandDispatcher` runs what a `CommandRegistry` holds: built-in commands, those that the
operator declared, and those that other packages add.
"""

from __future__ import annotations

from jetcamer.agent.commands.builtin import builtin_commands
from jetcamer.agent.commands.declared import ArgvTemplate, DeclaredProcess, compile_declared
from jetcamer.agent.commands.dispatcher import CommandDispatcher
from jetcamer.agent.commands.interfaces import (
    BUILTIN_NAMES,
    CommandOutcome,
    ICommand,
    is_command_name,
)
from jetcamer.agent.commands.plugins import find_plugins
from jetcamer.agent.commands.process import ProcessResult, ProcessRunner, SpawnError
from jetcamer.agent.commands.registry import CommandRegistry

__all__ = [
    "BUILTIN_NAMES",
    "ArgvTemplate",
    "CommandDispatcher",
    "CommandOutcome",
    "CommandRegistry",
    "DeclaredProcess",
    "ICommand",
    "ProcessResult",
    "ProcessRunner",
    "SpawnError",
    "builtin_commands",
    "compile_declared",
    "find_plugins",
    "is_command_name",
]
