"""A local page to search with: drop an image, see its rank list.

The server listens on 127.0.0.1 only. Requests with another host name or from pages of other servers are refused. The
page loads nothing from elsewhere. Images of the gallery are addressed by their position in the index, not by a path;
only files inside the gallery's folder are served, decoded and encoded again. An upload is limited in bytes and pixels,
decoded by the project's own reader, and removed after the search.
"""

import io
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from data.datasets.images import read_image
from tools.search.searcher import Searcher, open_query
from utils.run.errors import UnreadableImage, UserError, printable
from utils.run.extras import optional_packages

with optional_packages():
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.middleware.trustedhost import TrustedHostMiddleware

HOST = "127.0.0.1"
HOSTS = [HOST, "localhost"]  # host names of requests; a foreign name may have been pointed to this address
MAX_BYTES = 10 * 2**20  # of an upload
MAX_CONNECTIONS = 32
DECODED = 2  # images of the gallery that are decoded at a time; a large one takes some 100 MB
SHOWN = (256, 128)  # (height, width) of the gallery's images, in pixels
FILES = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Modality = Literal["guess", "infrared", "visible"]
INFRARED: dict[Modality, bool | None] = {"guess": None, "infrared": True, "visible": False}


def listen(port: int) -> socket.socket:
    """A socket that is bound to 127.0.0.1. Raises ``UserError`` if the port is in use or not allowed."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise UserError(f"--port: {port} cannot be used ({error.strerror}); give another one") from None
    return listening


def serve(searcher: Searcher, listening: socket.socket, *, infrared: bool | None, results: int) -> None:
    """Serve the page until a signal stops the program.

    Args:
        infrared: modality of the queries that the page proposes; None to guess it.
        results: images per query.
    """
    print(f"search at http://{HOST}:{listening.getsockname()[1]} (ctrl-C stops it)", flush=True)
    app = make_app(searcher, infrared=infrared, results=results)
    config = uvicorn.Config(app, log_level="warning", limit_concurrency=MAX_CONNECTIONS, server_header=False)
    uvicorn.Server(config).run(sockets=[listening])


def make_app(searcher: Searcher, *, infrared: bool | None, results: int) -> FastAPI:
    """The page, its search and its images."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(guard)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    app.exception_handler(HTTPException)(lambda request, error: PlainTextResponse(error.detail, error.status_code))
    app.exception_handler(RequestValidationError)(lambda request, error: PlainTextResponse("not a valid request", 400))
    one_at_a_time = threading.Lock()  # one upload is decoded and embedded at a time
    few_at_a_time = threading.Semaphore(DECODED)
    proposed = next(name for name, value in INFRARED.items() if value == infrared)

    for route, name in FILES.items():
        app.get(route)(page_file(name))

    @app.get("/gallery")
    def gallery() -> dict[str, object]:
        mser = searcher.mser is not None
        return {"images": len(searcher.images), "modality": proposed, "mser": mser, "max_bytes": MAX_BYTES}

    @app.get("/images/{position}")
    def image(position: int) -> Response:
        with few_at_a_time:
            return Response(gallery_image(searcher, position), media_type="image/jpeg")

    @app.post("/search")
    async def search(request: Request, modality: Modality = "guess") -> JSONResponse:
        content = await read_bounded(request.stream())
        return JSONResponse(await run_in_threadpool(rank, content, INFRARED[modality]))

    def rank(content: bytes, infrared: bool | None) -> dict[str, object]:
        with one_at_a_time:
            return rank_upload(searcher, content, infrared, results)

    return app


def page_file(name: str) -> Callable[[], Response]:
    """A function without parameters, because each parameter could be set by a request."""
    path = Path(__file__).with_name(name)
    return lambda: FileResponse(path)


async def guard(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse requests from pages of other servers, and forbid the page to load anything from elsewhere."""
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{request.headers.get('host')}":
        return PlainTextResponse("only the page itself may search", 403)
    response = await proceed(request)
    response.headers.update(HEADERS)
    return response


async def read_bounded(stream: AsyncIterator[bytes]) -> bytes:
    """The body of a request. Stops reading at the first byte over the limit.

    Raises:
        HTTPException: it is longer than ``MAX_BYTES``, or empty.
    """
    content = bytearray()
    async for part in stream:
        content += part
        if len(content) > MAX_BYTES:
            raise HTTPException(413, f"the image has more than {MAX_BYTES // 2**20} MB")
    if not content:
        raise HTTPException(400, "no image was sent")
    return bytes(content)


def rank_upload(searcher: Searcher, content: bytes, infrared: bool | None, results: int) -> dict[str, object]:
    """The rank list of an image. Raises ``HTTPException`` if it cannot be read."""
    with tempfile.TemporaryDirectory(prefix="mcja-search-") as folder:
        path = Path(folder) / "upload"
        path.write_bytes(content)
        try:
            query = open_query(path, infrared)
            (ranked,) = searcher([query], results)
        except UserError as error:
            raise HTTPException(400, str(error).removeprefix(f"{path}: ")) from None
    return {
        "infrared": query.infrared,
        "guessed": query.guessed,
        "results": [
            {
                "rank": result.rank,
                "path": printable(str(searcher.images.paths[result.position])),
                "score": result.score,
                "image": f"/images/{result.position}",
            }
            for result in ranked
        ],
    }


def gallery_image(searcher: Searcher, position: int) -> bytes:
    """An image of the gallery as JPEG, in the size of the page.

    Raises:
        HTTPException: there is no such position, the file is gone or damaged, or it is not inside the gallery's folder.
    """
    if not 0 <= position < len(searcher.images):
        raise HTTPException(404, "no such image")
    try:
        path = (searcher.gallery / searcher.images.paths[position]).resolve()
    except (OSError, RuntimeError):  # links in a loop
        raise HTTPException(404, "the image is gone or damaged") from None
    if not path.is_relative_to(searcher.gallery.resolve()):  # a link to elsewhere
        raise HTTPException(403, "the image is not inside the gallery's folder")
    try:
        if not path.is_file():
            raise UnreadableImage("no such image")
        pixels = read_image(path, SHOWN)
    except UnreadableImage:
        raise HTTPException(404, "the image is gone or damaged") from None
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()
