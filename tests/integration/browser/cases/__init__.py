"""The cases, in the order of their running."""

from cases import bare, hostile, kinds, lasting, listener, people, saving, speed, tables

ALL = [*listener.ALL, *bare.ALL, *tables.ALL, *kinds.ALL, *hostile.ALL, *lasting.ALL, *people.ALL, *saving.ALL, *speed.ALL]
