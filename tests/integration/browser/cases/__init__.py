"""The cases, in the order of their running."""

from cases import listener

ALL = [*listener.ALL]
