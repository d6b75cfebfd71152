//! Entities: who is who. The kinds of thing that energy is attributed to, and their labels. Knows nothing of energy or use.

pub mod cgroups;
pub mod hypervisor;
pub mod inventory;
pub mod managers;
mod mounts;
pub mod path;
pub mod survivors;
