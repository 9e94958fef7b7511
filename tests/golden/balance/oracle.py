#!/usr/bin/env python3
"""Works out the vectors in this folder by itself, and names what differs.

Written from the algorithms of IPVS (net/netfilter/ipvs/ip_vs_*.c) and of the papers, not from snproxy's code; where
snproxy is not IPVS the text says how. Needs `pip install xxhash`.
"""

import math
import pathlib
import struct
import sys
import ipaddress
from fractions import Fraction

import xxhash

NAMES, WEIGHTS, FULL, STAY, PICKS = "abcde", [1, 2, 5, 0, 3], 4, 12, 64
MASK = (1 << 64) - 1


def key(ip, port=None):
    return xxhash.xxh3_64_intdigest(
        ipaddress.ip_address(ip).packed + (b"" if port is None else struct.pack(">H", port))
    )


def mix(bits):  # splitmix64
    bits = (bits + 0x9E3779B97F4A7C15) & MASK
    bits = ((bits ^ bits >> 30) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ bits >> 27) * 0x94D049BB133111EB) & MASK
    return bits ^ bits >> 31


def rotate(bits, by):
    return (bits << by | bits >> 64 - by) & MASK


def share(bits, limit):
    """Uniform bits as a number below the limit."""
    return bits * limit >> 64


IDENTITIES = [key(f"10.0.0.{last}", 30000) for last in range(1, 6)]


def by_weight(pods, place):
    for pod in pods:
        if place < WEIGHTS[pod]:
            return pod
        place -= WEIGHTS[pod]


class Ipvs:
    """The policies that IPVS keeps a mark for: as it walks its list."""

    def __init__(self):
        self.at, self.level = -1, 0

    def rr(self, usable):
        while True:
            self.at = (self.at + 1) % 5
            if WEIGHTS[self.at] and self.at in usable:
                return self.at

    def wrr(self, usable):
        step, highest = math.gcd(*WEIGHTS), max(WEIGHTS)
        while True:
            self.at += 1
            if self.at in (0, 5):
                self.at = 0
                self.level -= step
                if self.level <= 0:
                    self.level = highest
            if self.at in usable and WEIGHTS[self.at] >= self.level:
                return self.at


def turns(policy, usable):
    """The picks of `rr` and `wrr`. Those that would be of a pod that is out: `rr` counts them and goes round among the
    others, `wrr` draws one by weight. IPVS goes on to its next instead."""
    ipvs, everybody, skipped = Ipvs(), [0, 1, 2, 3, 4], 0
    for turn in range(PICKS):
        pod = getattr(ipvs, policy)(everybody)
        if pod not in usable:
            if policy == "rr":
                pod = usable[skipped % len(usable)]
                skipped += 1
            else:
                pod = by_weight(usable, share(mix(turn), sum(WEIGHTS[pod] for pod in usable)))
        yield pod


def least(usable, cost, turn, weigh):
    """The least cost; equals take turns by weight, as in nginx. IPVS keeps the first."""
    best = min(map(cost, usable))
    alike = [pod for pod in usable if cost(pod) == best]
    return [pod for pod in alike for _ in range(weigh(pod))][turn % sum(map(weigh, alike))]


def rendezvous(seed, pods):
    def time(pod):
        bits = mix(seed ^ rotate(IDENTITIES[pod], 32))
        return -math.log((bits | 1) / 2.0**64) / WEIGHTS[pod]

    return min(pods, key=time)


def maglev():
    """The table. IPVS gives a pod as many entries in a row as it weighs, snproxy spreads them over the rounds."""
    size, highest = 4093, max(WEIGHTS)
    pods = sorted((pod for pod in range(5) if WEIGHTS[pod]), key=lambda pod: IDENTITIES[pod])
    orders = {}
    for pod in pods:
        offset = mix(IDENTITIES[pod]) % size
        skip = mix(~IDENTITIES[pod] & MASK) % (size - 1) + 1
        orders[pod] = iter([(offset + at * skip) % size for at in range(size)])
    table, credit = {}, dict.fromkeys(pods, 0)
    while len(table) < size:
        for pod in pods:
            credit[pod] += WEIGHTS[pod]
            if credit[pod] >= highest and len(table) < size:
                credit[pod] -= highest
                table[next(slot for slot in orders[pod] if slot not in table)] = pod
    return table


MAGLEV = maglev()


def picks(policy, full):
    """Yields the loads before each pick, and the pick."""
    usable = [pod for pod in range(5) if WEIGHTS[pod] and not (full and pod == FULL)]
    every = [pod for pod in range(5) if WEIGHTS[pod]]
    in_turn = turns(policy, usable) if policy in ("rr", "wrr") else None
    loads, live = [0] * 5, []
    for turn in range(PICKS):
        if len(live) == STAY:
            loads[live.pop(0)] -= 1
        random, client = mix(turn), key(f"192.0.2.{turn}")
        weight = lambda pod: WEIGHTS[pod]
        per = lambda pod: Fraction(loads[pod], WEIGHTS[pod])
        delay = lambda pod: Fraction(loads[pod] + 1, WEIGHTS[pod])

        def drawn(bits):
            pod = by_weight(range(5), share(bits, sum(WEIGHTS)))
            if pod not in usable:
                pod = by_weight(usable, share(mix(bits), sum(map(weight, usable))))
            return pod

        if in_turn:
            pod = next(in_turn)
        elif policy == "ordered":
            pod = usable[0]
        elif policy == "random":
            pod = drawn(random)
        elif policy == "lc":
            pod = least(usable, lambda pod: loads[pod], turn, lambda pod: 1)
        elif policy == "wlc":
            pod = least(usable, per, turn, weight)
        elif policy == "sed":
            pod = least(usable, delay, turn, weight)
        elif policy == "nq":
            idle = [pod for pod in usable if not loads[pod]]
            pod = least(idle, lambda pod: 0, turn, weight) if idle else least(usable, delay, turn, weight)
        elif policy == "fo":
            pod = max(usable, key=weight)
        elif policy == "ovf":
            # IPVS takes those with loads up to and with the weight, and none when all have more.
            free = [pod for pod in usable if loads[pod] < WEIGHTS[pod]]
            pod = max(free, key=weight) if free else least(usable, per, turn, weight)
        elif policy == "twos":
            first, second = drawn(random), drawn(rotate(random, 32))
            pod = second if per(second) < per(first) else first
        elif policy == "p2c":
            first = share(random, len(every))
            second = share(rotate(random, 32), len(every) - 1)
            pair = [every[first], every[second + (second >= first)]]
            pair_open = [pod for pod in pair if pod in usable]
            # One connection makes no difference: these take turns by weight.
            one = max(map(weight, pair))
            crossed = [loads[a] * WEIGHTS[b] for a, b in (pair, pair[::-1])]
            if len(pair_open) == 2 and abs(crossed[0] - crossed[1]) <= one:
                pod = by_weight(sorted(pair), turn % sum(map(weight, pair)))
            else:
                pod = min(pair_open, key=per)
        elif policy == "sh":
            seed = mix((client >> 52) + 1)
            pod = rendezvous(seed, every)
            if pod not in usable:
                pod = rendezvous(seed, usable)
        elif policy == "mh":
            pod = MAGLEV[share(client, 4093)]
            if pod not in usable:
                pod = rendezvous(client, usable)
        yield turn, random, list(loads), pod
        loads[pod] += 1
        live.append(pod)


def vectors(policy):
    lines = [
        f"# {policy}: pods a to e at 10.0.0.1:30000 to 10.0.0.5:30000 weigh 1, 2, 5, 0 and 3.",
        f"# a to e: their connections before the pick; each connection ends {STAY} picks later.",
    ]
    for full in (True, False):
        lines += ["", "e is full" if full else "e has room"]
        lines.append("turn random           client       a b c d e  pick")
        for turn, random, loads, pod in picks(policy, full):
            loads = " ".join(map(str, loads))
            lines.append(f"{turn:4} {random:016x} {f'192.0.2.{turn}':12} {loads}  {NAMES[pod]}")
    return lines


def main():
    wrong = 0
    for file in sorted(pathlib.Path(__file__).parent.glob("*.txt")):
        found, expected = file.read_text().splitlines(), vectors(file.stem)
        differing = [at for at, pair in enumerate(zip(found, expected), 1) if pair[0] != pair[1]]
        same = not differing and len(found) == len(expected)
        print(f"{file.stem}: {'as worked out' if same else f'differs in lines {differing[:5]}'}")
        wrong += not same
    sys.exit(wrong > 0)


main()
