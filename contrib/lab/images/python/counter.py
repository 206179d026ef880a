"""counter.py [PORT]: `/` answers with the number of requests so far: 0, 1, 2, …"""

import sys

import web

count = web.Counter()
web.serve(lambda path: count() if path == "/" else None, int(sys.argv[1]) if sys.argv[1:] else web.PORT)
