//! Meters of baseboard management controllers (BMCs): Redfish, and IPMI by the local device or over the LAN.

pub mod ipmi;
pub mod redfish;

/// What messages call a BMC.
const PEER: &str = "the BMC";
