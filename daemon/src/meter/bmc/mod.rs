//! Meters of baseboard management controllers (BMCs), by Redfish and by IPMI, and the secrets that both read.

pub mod ipmi;
pub mod redfish;
mod secret;
