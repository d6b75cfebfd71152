//! The integration tests: one program, one module for each subject. They start the built jouled and joulectl and look
//! at them from outside. Not unit tests: those are beside the code. README.md says how to run one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests, also outside of test functions"
)]

mod architecture;
mod bad_config;
mod bad_input;
mod cgroup_v1;
mod common;
mod compare;
mod completions;
mod containers;
mod dashboards;
mod dbus;
mod docs;
mod earlier_releases;
mod examples;
mod fake_host;
mod fetch;
mod folders;
mod gpu;
mod guest;
mod guest_meter;
mod history;
mod hostile_readers;
mod inventory;
mod ipmi;
mod ipmi_sim;
mod jobs;
mod joulectl;
mod man;
mod manager;
mod meter_contract;
mod meters;
mod models;
mod names;
mod new_meter;
mod own_dashboards;
mod page;
mod pictures;
mod plausibility;
mod power_models;
mod powercap_mirror;
mod push;
mod redfish;
mod release;
mod replays;
mod reports;
mod restart;
mod root_bpf;
mod root_bpf_identity;
mod root_live;
mod signatures;
mod stand_in;
mod survivors;
mod unsafe_code;
mod vms;
mod web;
