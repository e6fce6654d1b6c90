"""Transport: bytes to and from a server, plain or over TLS, by gevent.

Reading is done by the event loop itself: one watcher per connection lives as long as an answer, and its callback takes the
bytes. A greenlet that waits for each piece would cost two switches, and a watcher started and stopped, for every token.
"""

from __future__ import annotations

import socket as plain_socket
import ssl
import time
from collections.abc import Callable

import gevent
from gevent import socket
from gevent.event import AsyncResult

from loadtests.outcomes import Outcome, RequestFailed
from loadtests.wire.address import Address

MOST_READ = 256 * 1024
READABLE = 1  # of libev
Feed = Callable[[bytes, float], bool]  # takes bytes and when they came; no bytes mean the end; True: that was all


class Transport:
    """One connection."""

    def __init__(self, sock: socket.socket, tls: Tls | None = None) -> None:
        self._sock = sock
        self._tls = tls
        sock.setblocking(False)

    def send(self, data: bytes, timeout_s: float) -> None:
        """Send everything. Raises OSError; TimeoutError is one."""
        self._sock.settimeout(timeout_s)
        try:
            self._sock.sendall(self._tls.sealed(data) if self._tls is not None else data)
        finally:
            self._sock.setblocking(False)

    def receive(self, feed: Feed, timeout_s: float) -> None:
        """Feed what comes, as it comes, until ``feed`` says that it was all.

        Raises what ``feed`` raises, OSError, ssl.SSLError, or gevent.Timeout after ``timeout_s`` seconds.
        """
        done: AsyncResult = AsyncResult()
        watcher = gevent.get_hub().loop.io(self._sock.fileno(), READABLE)
        watcher.start(self._on_readable, feed, done)
        try:
            with gevent.Timeout(max(0.0, timeout_s)):
                done.get()
        finally:
            watcher.stop()
            watcher.close()

    def _on_readable(self, feed: Feed, done: AsyncResult) -> None:
        if done.ready():
            return
        try:
            data = self._sock.recv(MOST_READ)
            now_s = time.perf_counter()
            if data and self._tls is not None:
                data = self._tls.opened(data)
                if not data:
                    return
            if feed(data, now_s):
                done.set()
        except BlockingIOError:
            return
        except Exception as err:  # the hub has no use for it: whoever waits has
            done.set_exception(err)

    def is_open(self) -> bool:
        """Return whether the server has kept an idle connection open, as far as is known here."""
        try:
            self._sock.recv(1, plain_socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # the end, or bytes that nobody asked for

    def close(self) -> None:
        """Close it."""
        self._sock.close()


class Tls:
    """TLS over bytes in memory, so that reading never has to wait."""

    def __init__(self, host: str, *, verify: bool) -> None:
        context = ssl.create_default_context()
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._in, self._out, server_hostname=host)

    def shake_hands(self, sock: socket.socket) -> None:
        """Agree with the server. Raises OSError; ssl.SSLError is one."""
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                sock.sendall(self._out.read())
                data = sock.recv(MOST_READ)
                if not data:
                    raise ConnectionResetError("the server left during the TLS handshake") from None
                self._in.write(data)
            else:
                sock.sendall(self._out.read())
                return

    def sealed(self, data: bytes) -> bytes:
        """Return what goes over the wire."""
        self._ssl.write(data)
        return self._out.read()

    def opened(self, data: bytes) -> bytes:
        """Return what bytes from the wire hold; nothing while a record is not complete, or at the end."""
        self._in.write(data)
        pieces = []
        try:
            while piece := self._ssl.read(MOST_READ):
                pieces.append(piece)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return b"".join(pieces)


def connect(address: Address, *, timeout_s: float, verify_tls: bool) -> Transport:
    """Return a new connection. Raises RequestFailed of class DNS, CONNECT or TIMEOUT."""
    where = address.authority
    sock: socket.socket | None = None
    try:
        sock = socket.create_connection((address.host, address.port), timeout=timeout_s)
        sock.setsockopt(plain_socket.IPPROTO_TCP, plain_socket.TCP_NODELAY, 1)
        tls = Tls(address.host, verify=verify_tls) if address.is_tls else None
        if tls is not None:
            tls.shake_hands(sock)
        return Transport(sock, tls)
    except plain_socket.gaierror as err:
        raise RequestFailed(Outcome.DNS, f"{address.host} has no address: {err.strerror or err}") from err
    except OSError as err:
        if sock is not None:
            sock.close()
        if isinstance(err, TimeoutError):
            raise RequestFailed(Outcome.TIMEOUT, f"no connection to {where} within {timeout_s:g} s") from err
        raise RequestFailed(Outcome.CONNECT, f"no connection to {where}: {_reason(err)}") from err


def _reason(err: OSError) -> str:
    return (err.strerror or str(err)).lower()
