"""Sockets: the module of the standard library, awaited.

from yamanote.net import socket
"""

from yamanote.net import socket as socket

__all__ = ["socket"]
