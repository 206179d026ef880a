"""What the programs of this image share: a web server without threads, without keep-alive, without name look-ups."""

import signal
import socketserver
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

PORT = 8080


class Counter:
    """Answers with the number of times it was called before."""

    def __init__(self) -> None:
        self.value = 0

    def __call__(self) -> str:
        """Count this call."""
        answer = str(self.value)
        self.value += 1
        return answer


def serve(answer: Callable[[str], str | None], port: int = PORT) -> None:
    """Answer `GET path` with the text `answer(path)`; None is a 404. Ends with SIGTERM."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = answer(self.path)
            body = (text if text is not None else "not found").encode()
            self.send_response(404 if text is None else 200)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, _format: str, *args: object) -> None:
            print(self.path, *args, flush=True)

    class Server(socketserver.TCPServer):
        allow_reuse_address = True
        request_queue_size = 64

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Server(("", port), Handler) as server:
        print(f"listening on {port}", flush=True)
        server.serve_forever()
