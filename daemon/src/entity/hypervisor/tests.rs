//! The finder on made-up /proc trees. Not the parsers; those have their own tests.
