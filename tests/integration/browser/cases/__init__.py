"""The cases, in the order of their running."""

from cases import bare, hostile, lasting, listener, people, speed, tables

ALL = [*listener.ALL, *bare.ALL, *tables.ALL, *hostile.ALL, *lasting.ALL, *people.ALL, *speed.ALL]
