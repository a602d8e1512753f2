"""Callers of the shop: an open loop, so that a slow shop is not asked less."""

import http.client
import random
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

# Of four requests two are orders, one asks for a price, one for a stock.
PATHS = ("/orders/", "/price/", "/orders/", "/stock/")
NAMES = {"/orders/": "order", "/price/": "price", "/stock/": "stock"}
SKUS = [f"sku-{n}" for n in range(40)]


class Seen:
    """What callers of one service saw."""

    def __init__(self):
        self.ok = self.degraded = self.limited = self.failed = 0
        self.recent = deque()       # (when, seconds)

    @property
    def total(self):
        return self.ok + self.degraded + self.limited + self.failed

    def quantile(self, part):
        while self.recent and self.recent[0][0] < time.monotonic() - 3:
            self.recent.popleft()
        took = sorted(seconds for _, seconds in self.recent)
        return took[min(len(took) - 1, int(len(took) * part))] if took else None


class Load:
    """Sends `rate` requests a second as `client`; counts from the moment each was due."""

    def __init__(self, url, rate, client, paths=PATHS, seed=7):
        self.host, self.rate, self.client, self.paths = urlsplit(url).netloc, rate, client, paths
        self.seen = {NAMES[path]: Seen() for path in paths}
        self.lock, self.over = threading.Lock(), threading.Event()
        self.random = random.Random(seed)
        self.reasons = {}
        self.intended = 0
        self._own = threading.local()
        self._pool = ThreadPoolExecutor(max_workers=256, thread_name_prefix=client)
        self._thread = threading.Thread(target=self._send, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        """Sends no more, and waits for what is under way."""
        self.over.set()
        self._thread.join()
        self._pool.shutdown(wait=True)

    def abandon(self):
        """Sends no more, and waits for nothing."""
        self.over.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _send(self):
        due = time.monotonic()
        while not self.over.wait(max(0.0, due - time.monotonic())):
            path = self.paths[self.intended % len(self.paths)]
            try:
                self._pool.submit(self._ask, path, path + self.random.choice(SKUS), due)
            except RuntimeError:
                return      # abandoned
            self.intended += 1
            due += 1 / self.rate

    def _ask(self, path, target, due):
        status, outcome = self._get(target)
        with self.lock:
            seen = self.seen[NAMES[path]]
            seen.recent.append((time.monotonic(), time.monotonic() - due))
            if status == 429:
                seen.limited += 1
            elif status == 200 and outcome in ("ok", ""):
                seen.ok += 1
            elif status == 200:
                seen.degraded += 1
            else:
                seen.failed += 1
                reason = f"{NAMES[path]}: {status} {outcome}".strip()
                self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def _get(self, target):
        """Status and outcome; a kept connection that turns out to be closed is opened anew once."""
        for fresh in (False, True):
            connection = None if fresh else getattr(self._own, "connection", None)
            kept = connection is not None
            connection = connection or http.client.HTTPConnection(self.host, timeout=5)
            self._own.connection = connection
            try:
                connection.request("GET", target, headers={"x-client": self.client})
                response = connection.getresponse()
                response.read()
                # "stale;cause=circuit;attempts=2": the first word is what became of it.
                return response.status, response.getheader("mainstay-outcome", "").partition(";")[0]
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._own.connection = None
                if not kept:
                    return "no answer", type(error).__name__
        return "no answer", ""
