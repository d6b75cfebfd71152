//! The meter over a core, fed with objects: what becomes of totals when hosts change, pause, fall silent and come back.
