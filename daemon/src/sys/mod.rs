//! Small shared parts: access to the operating system (sockets, users, processes, locks, perf events, NVIDIA's
//! library), and helpers for remote peers (backoff, token buckets, HTTPS, safe text, dates, signatures of files). Knows
//! neither energy nor entities.

pub mod backoff;
pub mod date_time;
pub mod file_tree;
pub mod https_client;
pub mod malloc;
pub mod mutex;
pub mod nvml;
pub mod nvml_sleep;
pub mod perf_event;
pub mod private_dir;
pub mod proc_pid;
pub mod safe_text;
pub mod secret;
pub mod signature;
pub mod small_file;
pub mod sock_diag;
pub mod token_bucket;
pub mod unix_socket;
pub mod users;

#[cfg(test)]
pub mod tests;
