"""The upload with fetch of docs/front-ends reports results, or why there are none."""

import asyncio

import pytest

from tests.frontend.examples import read_examples

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
async def test_the_upload_function_returns_results_or_throws_the_reason(
    status: int, answer: str, printed: str
) -> None:
    upload = read_examples().sources["upload.mjs"].partition("const image =")[0]
    assert "function uploadDicom" in upload
    script = upload + CALL.format(answer=answer, status=status)
    node = await asyncio.create_subprocess_exec(
        "node", "--input-type=module", "-e", script, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await node.communicate()
    assert output.decode().strip() == printed
