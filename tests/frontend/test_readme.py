"""The JavaScript of README.md tells why an upload was refused."""

import asyncio
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
CALL = """
globalThis.fetch = async () => new Response('{answer}', {{ status: {status} }});
const file = new File(["x"], "image.dcm");
try {{
  console.log(JSON.stringify(await uploadDicom([file])));
}} catch (error) {{
  console.log(`${{error.name}}: ${{error.message}}`);
}}
"""


@pytest.mark.parametrize(
    ("status", "answer", "printed"),
    [
        (200, '{"data": {"uploadDicom": {"storedCount": 1}}}', '{"storedCount":1}'),
        (403, '{"errors": [{"message": "Not you."}]}', "Error: Not you."),
        (
            200,
            '{"data": {"uploadDicom": null}, "errors": [{"message": "Away."}]}',
            "Error: Away.",
        ),
    ],
)
async def test_the_upload_of_the_readme_tells_results_or_why_there_are_none(
    status: int, answer: str, printed: str
) -> None:
    blocks = re.findall(r"```js\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    [upload] = [block for block in blocks if "function uploadDicom" in block]
    script = upload + CALL.format(answer=answer, status=status)
    node = await asyncio.create_subprocess_exec(
        "node", "--input-type=module", "-e", script, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await node.communicate()
    assert output.decode().strip() == printed
