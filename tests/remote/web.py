"""A web server in a process of its own, with faults on demand: ``python web.py FOLDER FAULTS``.

FAULTS is a JSON file, read at each request: the end of a path to the faults that its next requests meet, one
after the other ("500", "403", "drop", "short", "slow", or "signed": sent on, with a signature, to what is
forbidden); a fault called "always 500" stays.
"""

from __future__ import annotations

import functools
import http.server
import json
import sys
import time
from collections import Counter
from pathlib import Path

met: Counter[str] = Counter()


class Faulty(http.server.SimpleHTTPRequestHandler):
    faults: Path

    def log_message(self, *args: object) -> None:
        pass

    def fault(self) -> str:
        planned = json.loads(self.faults.read_text()) if self.faults.exists() else {}
        for end, faults in planned.items():
            if not self.path.endswith(end):
                continue
            if faults and faults[0].startswith("always "):
                return faults[0].removeprefix("always ")
            met[end] += 1
            if met[end] <= len(faults):
                return str(faults[met[end] - 1])
        return ""

    def do_GET(self) -> None:
        fault = self.fault()
        if fault == "slow":
            time.sleep(0.5)
        if "X-Signature=" in self.path:
            self.send_error(403)
        elif fault == "signed":
            self.send_response(302)
            self.send_header("Location", f"{self.path}?X-Signature=hunter2")
            self.end_headers()
        elif fault.isdigit():
            self.send_error(int(fault))
        elif fault == "drop":
            self.close_connection = True
            self.connection.close()
        elif fault == "short":
            body = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            super().do_GET()


if __name__ == "__main__":
    folder, Faulty.faults = sys.argv[1], Path(sys.argv[2])
    handler = functools.partial(Faulty, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
