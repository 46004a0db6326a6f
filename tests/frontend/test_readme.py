"""The first query of README.md gives the answer that stands below it."""

import json
import re
from urllib.parse import urlsplit

from tests.documentation import ROOT
from tests.frontend.conftest import Workshop
from tests.server_process import Served


async def test_the_first_query_gives_the_answer_of_the_readme(
    workshop: Workshop, served: Served
) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    query = re.search(r"```sh\n(curl .*?)```\n\n```json\n(.*?)```", text, re.DOTALL)
    assert query is not None
    address = urlsplit(served.url).netloc
    command, shown = (part.replace("127.0.0.1:8000", address) for part in query.groups())
    answer = json.loads(await workshop.run("bash", "-c", command))
    [study] = answer["data"]["studies"]["nodes"]
    url = study["thumbnail"]["url"]
    assert (await served.http.get(url)).headers["content-type"] == "image/png"
    study["thumbnail"]["url"] = re.sub("(?<=/frames/).*", "...", url)
    assert answer == json.loads(shown)
