//! Small parts of the operating system that several rooms use: sockets, users, processes, NVIDIA's library, text that is safe to print.
//! Knows neither energy nor entities.

pub mod nvml;
pub mod perf_event;
pub mod proc_pid;
pub mod safe_text;
pub mod unix_socket;
pub mod users;
