"""What is shown while the shop runs: a table on a terminal, lines elsewhere."""

import sys
import time
from collections import deque

from floor import SERVICES

# "closed" alone reads as "shut": the words say what happens to calls.
STATES = {
    "closed": ("closed, flows", "32"),
    "open": ("OPEN, refuses", "31"),
    "half-open": ("half-open, probing", "33"),
    "ramp": ("ramp, returning", "33"),
}
BAR = 12


def hold_text(shop):
    """How the reader breaks things himself."""
    url, control = shop.gateway.url, shop.gateway.control
    lines = [
        "Ask:     " + f"curl -i {url}/orders/sku-1",
        "Break:   " + f"curl -X POST 'http://{shop.instances['price', 1].address}/fault?kind=errors&seconds=20'",
        "         " + f"curl -X POST 'http://{shop.instances['stock', 2].address}/fault?kind=latency&delay=0.25&seconds=20'",
        "         " + f"curl -X POST 'http://{shop.instances['order', 1].address}/fault?kind=hang&seconds=10'",
        "         " + f"kill -9 {shop.instances['stock', 1].process.pid}        kinds: errors latency hang reset none",
        "Look:    " + f"curl -s {control}/metrics | grep mainstay_circuit",
        "Rules:   " + f"{shop.folder}/mainstay.toml    is read again when you save it",
    ]
    return lines


def seconds(value):
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


class View:
    def __init__(self, shop, load, plain):
        self.shop, self.load, self.plain = shop, load, plain
        self.began = time.monotonic()
        self.title, self.hint, self.extra = "", "", []
        self.lines = deque(maxlen=7)
        self.told = 0
        self.next_draw = self.began
        self.drawn = 0
        self.before = {name: 0 for name in SERVICES}
        if not plain:
            sys.stdout.write("\033[?25l")

    def close(self):
        if not self.plain:
            sys.stdout.write("\033[?25h")
            sys.stdout.flush()

    def clock(self, when=None):
        span = int((when or time.monotonic()) - self.began)
        return f"{span // 60}:{span % 60:02}"

    def narrate(self, title, hint, extra=()):
        self.title, self.hint, self.extra = title, hint, list(extra)
        if self.plain:
            print(f"{self.clock():>5}  ▸ {title} {hint}".rstrip())
            for line in self.extra:
                print("       " + line)
            sys.stdout.flush()
        else:
            self.lines.append(f"{self.clock():>5}  ▸ {title}")
            self.draw()

    def until(self, moment):
        """Shows what happens until `moment`."""
        while (now := time.monotonic()) < moment:
            self.hear()
            if now >= self.next_draw:
                self.next_draw = now + (5 if self.plain else 1)
                self.say() if self.plain else self.draw()
            time.sleep(max(0.0, min(0.1, moment - now)))

    def hear(self):
        """Takes over what the gateway told since the last time."""
        gateway = self.shop.gateway
        with gateway.lock:
            fresh = list(gateway.events)[-(gateway.told - self.told):] if gateway.told > self.told else []
            self.told = gateway.told
        for when, kind, subject, state, reason in fresh:
            name = self.shop.named(subject)
            if kind == "circuit":
                text = f"circuit of {name}: {STATES.get(state, (state,))[0]}" + (f" ({reason})" if state == "open" else "")
            elif kind == "ejected":
                text = f"{name} is taken out of balancing for {float(state):.0f} s ({reason})"
            else:
                text = f"{name} is back in balancing"
            line = f"{self.clock(when):>5}    {text}"
            print(line, flush=True) if self.plain else self.lines.append(line)

    def say(self):
        """One plain line."""
        by_instance, _ = self.shop.gateway.recent()
        parts = []
        for service in SERVICES:
            counts = [by_instance.get(i.address, 0) for i in self.shop.of(service)]
            whole = max(1, sum(counts))
            shares = "/".join(f"{100 * count / whole:.0f}" for count in counts)
            seen = self.load.seen[service]
            parts.append(f"{service} {shares} % failed {seen.failed}" + (f" fallback {seen.degraded}" if seen.degraded else ""))
        answered = sum(seen.total for seen in self.load.seen.values())
        print(f"{self.clock():>5}    {answered} answered · " + " · ".join(parts), flush=True)

    def draw(self):
        """The whole picture, in place of the one before."""
        self.hear()
        colour = lambda text, code: f"\033[{code}m{text}\033[0m"
        gateway = self.shop.gateway
        by_instance, again = gateway.recent()
        states = gateway.circuits()
        out = [colour("Mainstay shop", "1") + f"   {self.clock()}   gateway {gateway.url}   control {gateway.control}", ""]
        out.append(colour("SERVICE   ASKED/s  p50      p95      REPEATED/s  FALLBACK  429   FAILED", "2"))
        for service in SERVICES:
            with self.load.lock:
                seen = self.load.seen[service]
                p50, p95 = seen.quantile(0.5), seen.quantile(0.95)
                rate = len(seen.recent) / 3         # quantile() has dropped what is older
                row = (f"{service:<10}{rate:>5.0f}    {seconds(p50):<8} {seconds(p95):<8} {again.get(service, 0) / 3:>7.1f}"
                       f"  {seen.degraded:>10}  {seen.limited:>4}")
                out.append(row + "  " + colour(f"{seen.failed:>6}", "31" if seen.failed else "32"))
        out += ["", colour("INSTANCE  ADDRESS           SHARE OF ANSWERS, 3 s   CIRCUIT", "2")]
        for service in SERVICES:
            instances = self.shop.of(service)
            whole = max(1, sum(by_instance.get(i.address, 0) for i in instances))
            for instance in instances:
                part = by_instance.get(instance.address, 0) / whole
                bar = "█" * round(part * BAR) + "·" * (BAR - round(part * BAR))
                word, code = STATES.get(states.get(instance.address, "closed"), ("?", "33"))
                dead = "" if instance.alive else colour("  process is dead", "31")
                out.append(f"{instance.label:<9} {instance.address:<17} {bar} {100 * part:>4.0f} %    {colour(word, code)}{dead}")
        out += ["", colour("▸ " + self.title, "1"), "  " + self.hint, ""]
        out += self.extra or list(self.lines)
        # Home, each line cleared to its end, and whatever is below; the first time the screen is made room for.
        head = "\033[H" if self.drawn else "\033[2J\033[H"
        self.drawn += 1
        sys.stdout.write(head + "".join(line + "\033[K\n" for line in out) + "\033[J")
        sys.stdout.flush()
