//! Small shared parts: of the operating system (sockets, users, processes, perf events, NVIDIA's library), and of
//! dealing with others (backoff, token buckets, harmless text, dates). Knows neither energy nor entities.

pub mod backoff;
pub mod date_time;
pub mod https_client;
pub mod nvml;
pub mod perf_event;
pub mod proc_pid;
pub mod safe_text;
pub mod secret;
pub mod token_bucket;
pub mod unix_socket;
pub mod users;
