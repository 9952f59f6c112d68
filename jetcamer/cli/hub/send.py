"""Telling agents what to do: `send`, to one of them or to many."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from jetcamer.cli.hub import commands as told
from jetcamer.cli.hub.arguments import Commands, add_command, count, duration, names
from jetcamer.cli.hub.client import TIMEOUT, Document, path_of
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.hub.words import counted, milliseconds, moment_and_ahead, text

#: Seconds between two looks at how far many agents are.
_POLL = 0.5

#: Seconds the hub may take beyond the time it gives an agent.
_MARGIN = 10.0


def add_commands(commands: Commands) -> None:
    parser = add_command(
        commands,
        "send",
        send,
        "send a command to one agent or to many, and print what they answer",
        "Exit status 0: every agent did it, or it is queued. Ctrl-C ends the waiting, not a "
        "command that has been sent.",
    )
    parser.usage = (
        f"{parser.prog} [options] ID COMMAND [k=v ...]\n"
        f"       {parser.prog} [options] (--all | --agents A,B) COMMAND [k=v ...]"
    )
    parser.add_argument(
        "words", nargs="+", metavar="[ID] COMMAND [k=v ...]", help=argparse.SUPPRESS
    )
    many = parser.add_mutually_exclusive_group()
    many.add_argument("--all", action="store_true", help="to every agent that is online")
    many.add_argument("--agents", type=names, metavar="A,B", help="to these agents")
    parser.add_argument(
        "--timeout", type=duration, default=30.0, metavar="T", help="wait so long (30s)"
    )
    parser.add_argument(
        "--queue", action="store_true", help="where an agent is away, hold it until it is back"
    )
    parser.add_argument(
        "--queue-for", type=duration, metavar="T", help="likewise, and no longer than this"
    )
    parser.add_argument(
        "--concurrency", type=count, metavar="N", help="to at most N agents at the same time"
    )
    parser.add_argument(
        "--no-wait", action="store_true", help="of many agents: print the batch's id and end"
    )


def send(context: Context, args: argparse.Namespace) -> int:
    many = args.all or args.agents is not None
    words: list[str] = args.words
    if not many and len(words) < 2:
        args.parser.error("say which agent (ID, --agents or --all) and which command")
    command, pairs = (words[0], words[1:]) if many else (words[1], words[2:])
    body: dict[str, object] = {
        "command": command,
        "args": _arguments(pairs, args.parser),
        "timeoutSeconds": args.timeout,
    }
    if args.queue or args.queue_for is not None:
        body["queue"] = True
    if args.queue_for is not None:
        body["queueSeconds"] = args.queue_for
    if many:
        body["agents"] = "online" if args.all else args.agents
        if args.concurrency is not None:
            body["concurrency"] = args.concurrency
        return _to_many(context, args, body)
    if args.concurrency is not None or args.no_wait:
        args.parser.error("--concurrency and --no-wait are for many agents")
    return _to_one(context, words[0], body, args.timeout)


def _to_one(context: Context, agent_id: str, body: Document, timeout: float) -> int:
    output = context.output
    try:
        command = context.client.post(
            path_of("agents", agent_id, "commands"), body, timeout=timeout + _MARGIN
        )
    except HubError as error:
        # At the deadline the command is in the answer: its id is what a person asks for later.
        late = error.answer.get("command")
        if isinstance(late, dict):
            if output.as_json:
                output.document(late)
            else:
                _later(context, late)
        raise
    state = command.get("state")
    done = state in ("done", "queued", "sent") and not command.get("error")
    if output.as_json:
        output.document(command)
    elif state == "queued":
        until = moment_and_ahead(command.get("expiresAt"), context.now_ms)
        output.line(("queued", "warn"), f": {agent_id} is away; it waits until {until}")
        _later(context, command)
    else:
        _print_answer(context, command)
        told.details(context, command)
    return 0 if done else 1


def _print_answer(context: Context, command: Document) -> None:
    """What it said, whether or not it failed, with its own line breaks; then how it ended."""
    output = context.output
    result, error = command.get("result"), command.get("error")
    ended = f"({text(command.get('state'))}, {milliseconds(command.get('milliseconds'))})"
    if told.has_lines(result) or (error and result):
        output.text(str(result))
        result = None
    if error:
        output.line((text(error), "bad"), (f"  {ended}", "dim"))
    elif result is None and command.get("result"):
        output.line((ended, "dim"))
    else:
        output.line(text(result), (f"  {ended}", "dim"))


def _later(context: Context, command: Document) -> None:
    words = f"jetcamer hub commands --command {text(command.get('id'))}"
    context.output.note((f"what becomes of it: {words}", "dim"))


def _to_many(context: Context, args: argparse.Namespace, body: Document) -> int:
    output, client = context.output, context.client
    if not args.no_wait:
        output.expect_tables()
    batch = client.post(path_of("commands"), body)
    batch_id = str(batch.get("batchId"))
    path = path_of("command-batches", batch_id)
    later = f"jetcamer hub commands --batch {batch_id}"
    if args.no_wait:
        if output.as_json:
            output.document(batch)
        else:
            output.line(text(batch_id))
            output.note((f"sent to {counted(batch.get('total', 0), 'agent')}; {later}", "dim"))
        return 0
    try:
        _wait(context, path, batch, args.timeout + _MARGIN if body.get("queue") else None)
        finished = told.batch(context, batch_id)
    except (KeyboardInterrupt, HubError):
        output.progress("")
        output.note((f"it goes on without us; how it ended: {later}", "dim"))
        raise
    commands: Sequence[Document] = finished.get("commands") or []
    if output.as_json:
        output.document(finished)
    else:
        told.table(context, commands)
        output.note(
            (_progress(finished), "bad" if finished.get("failed") else "good"),
            ("" if finished.get("finished") else f"; {later}", "dim"),
        )
    return 0 if not finished.get("failed") and finished.get("total") else 1


def _wait(context: Context, path: str, batch: Document, seconds: float | None) -> None:
    """Until all have answered, or `seconds`: what is queued may wait for hours."""
    failures, waited = 0, 0.0
    while not batch.get("finished") and (seconds is None or waited < seconds):
        context.output.progress(_progress(batch))
        context.sleep(_POLL)
        waited += _POLL
        try:
            batch = context.client.get(path)
            failures = 0
        except HubError as error:
            failures += 1
            if not error.passes or failures * _POLL > TIMEOUT:
                raise
    context.output.progress("")


def _progress(batch: Document) -> str:
    done, failed, waiting = (text(batch.get(name)) for name in ("done", "failed", "waiting"))
    return f"{done} of {text(batch.get('total'))} done, {failed} failed, {waiting} waiting"


def _arguments(pairs: Sequence[str], parser: argparse.ArgumentParser) -> dict[str, str]:
    args: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            parser.error(f"{pair!r} is not an argument: name=value")
        if name in args:
            parser.error(f"the argument {name} is there twice")
        args[name] = value
    return args
