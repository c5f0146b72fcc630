"""The children of an instance, and theirs, as a tree."""

from __future__ import annotations

from rich.text import Text
from rich.tree import Tree

from .. import words
from ..errors import NotSupported
from ..sdk.operator import Operator
from ..types import InstanceSummary
from . import tables

MOST = 200
"""Lines of a tree."""


async def family(operator: Operator, instance_id: str) -> Tree | None:
    """The descendants of an instance, the oldest first; None: it has no children, or a server that
    knows of none was asked."""
    tree = Tree(Text("children", style="bold"))
    try:
        left = await _add(operator, tree, instance_id, MOST)
    except NotSupported:
        return None
    if left == MOST:
        return None
    if left == 0:
        tree.add(f"more than {MOST}; list --parent shows them")
    return tree


async def _add(operator: Operator, tree: Tree, instance_id: str, left: int) -> int:
    """Add the children of an instance. How many lines are left."""
    page = await operator.list(parent_id=instance_id, limit=MOST + 1)
    for child in reversed(page.instances):
        if left == 0:
            break
        branch = tree.add(_line(child, instance_id))
        left = await _add(operator, branch, child.instance_id, left - 1)
    return left


def _line(child: InstanceSummary, parent_id: str) -> Text:
    name = child.instance_id.removeprefix(f"{parent_id}/")
    run = "" if child.run is None else f"  {child.run.workflow} {child.run.version}"
    note = words.note(child, words.now())
    line = tables.plain(name)
    line.append("  ")
    line.append_text(tables.status_text(child.status))
    line.append_text(tables.plain(run + (f"  {note}" if note else "")))
    return line
