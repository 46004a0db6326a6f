"""OHIF's own built viewer, served on a port of its own, as a test server."""

import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = "3.12.10"
_PACKAGE = f"@ohif/app@{VERSION}"
_FOLDER = Path(__file__).parent / "node_modules" / "ohif"
"""Ignored by git; it holds the package between two runs."""

_PACK_SECONDS = 180

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--use-gl=angle",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
"""Of Chromium, so that it draws OHIF in software and reaches no other machine."""

SHOWS_PIXELS = """
() => [...document.querySelectorAll("canvas")].some((canvas) => {
  const context = canvas.getContext("2d");
  if (!context || !canvas.width || !canvas.height) return false;
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const levels = new Set();
  for (let at = 0; at < data.length; at += 4 * 97) levels.add(data[at]);
  return levels.size > 8;
})
"""
"""An image has many grey levels, an empty viewport one."""


def ohif_folder() -> Path | str:
    """Return the folder of the built viewer, fetched from npm the first time.

    Returns:
        The reason, as a text, when it can't be had.
    """
    built = _FOLDER / "package" / "dist"
    if (built / "index.html").exists():
        return built
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    _FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        packed = subprocess.run(  # noqa: S603  # a fixed command
            [npm, "pack", _PACKAGE, "--pack-destination", str(_FOLDER)],
            check=True,
            capture_output=True,
            text=True,
            timeout=_PACK_SECONDS,
        )
    except (subprocess.SubprocessError, OSError) as exc:
        return f"npm can't fetch {_PACKAGE}: {type(exc).__name__}"
    archive = _FOLDER / packed.stdout.strip().splitlines()[-1]
    shutil.unpack_archive(archive, _FOLDER, filter="data")
    archive.unlink()
    return built


def app_config(root: str, *, source: str = "dicomweb") -> str:
    """Return `app-config.js` for a DICOMweb root.

    Args:
        root: Of QIDO-RS and WADO-RS.
        source: The data source that is opened without being named.
    """
    web = {
        "friendlyName": "orthanc-graphql",
        "name": "orthanc-graphql",
        "qidoRoot": root,
        "wadoRoot": root,
        "wadoUriRoot": root,
        "qidoSupportsIncludeField": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "bulkDataURI": {"enabled": True},
    }
    namespace = "@ohif/extension-default.dataSourcesModule"
    config = {
        "name": "config/test.js",
        "routerBasename": None,
        "extensions": [],
        "modes": [],
        "showStudyList": True,
        "maxNumberOfWebWorkers": 2,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": False,
        "strictZSpacingForVolumeViewport": True,
        "investigationalUseDialog": {"option": "never"},
        "defaultDataSourceName": source,
        "dataSources": [
            {"namespace": f"{namespace}.dicomweb", "sourceName": "dicomweb", "configuration": web},
            {
                "namespace": f"{namespace}.dicomwebproxy",
                "sourceName": "dicomwebproxy",
                "configuration": {"friendlyName": "shares", "name": "dicomwebproxy"},
            },
        ],
    }
    return f"window.config = {json.dumps(config)};\n"


@contextmanager
def serving_ohif(built: Path, config: list[str]) -> Iterator[str]:
    """Serve the viewer; yields its address without a slash at the end.

    Args:
        built: The folder of the viewer.
        config: Its last entry is answered as `app-config.js`; it may come later.
    """

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/app-config.js":
                self._send(config[-1].encode(), "text/javascript")
            elif not (built / path.lstrip("/")).is_file():
                # Addresses of the viewer's own router.
                self._send((built / "index.html").read_bytes(), "text/html")
            else:
                super().do_GET()

        def _send(self, body: bytes, media_type: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    handler = functools.partial(Handler, directory=str(built))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
