//! Types that the eBPF programs and the daemon share. Plain `core`, no dependency: not the programs themselves.
#![no_std]
