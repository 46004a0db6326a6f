"""The controller of stacks alone, in Node: what comes late never shows on another stack."""

import asyncio
import shutil
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

_STACK = Path(__file__).parents[2] / "graph/web/static/client/stack.js"

_SCRIPT = """
import {{ StackController }} from "{module}";
globalThis.window = globalThis;
const waiting = [];
const loader = {{
  isSlow: false,
  find: () => undefined,
  // Another viewport wants the same pictures: they are not cancelled.
  keepOnly: () => {{}},
  load: (ref) => new Promise((resolve) => waiting.push({{ ref, resolve }})),
}};
const stack = new StackController(loader);
stack.loadsAhead = false;
stack.addEventListener("picture", ({{ detail }}) => console.log(detail.picture, detail.position));
stack.open([{{ instanceId: "a", index: 0 }}]);
stack.open([{{ instanceId: "b", index: 0 }}]);
for (const {{ ref, resolve }} of waiting.reverse()) resolve(ref.instanceId);
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is missing")
async def test_a_late_picture_of_the_stack_before_is_not_shown() -> None:
    script = _SCRIPT.format(module=_STACK.as_uri())
    for order in (script, script.replace(".reverse()", "")):
        node = await asyncio.create_subprocess_exec(
            *("node", "--experimental-default-type=module", "--input-type=module", "-e", order),
            stdout=PIPE,
            stderr=PIPE,
        )
        output, complaints = await node.communicate()
        assert output.decode() == "b 0\n", complaints.decode()
