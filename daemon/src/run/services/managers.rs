//! `[inventory]`: where managers of VMs report which VMs there are. jouled-libvirt connects to a socket;
//! systemd-machined is asked over the system bus. Their health is among that of
//! [`Managers`](crate::entity::managers::Managers).

use super::{Registration, Serve, Shared, serve};
use crate::config::Config;
use crate::entity::managers;
use crate::model::source::Health;
use crate::sys::unix_socket;
use anyhow::Result;
use std::path::PathBuf;
use std::sync::Arc;
use zbus::connection::Builder;

/// The socket that jouled-libvirt connects to.
pub(super) struct InventorySocket;

#[derive(PartialEq)]
pub(super) struct InventorySettings {
    socket: PathBuf,
    mode: u32,
    users: Vec<String>,
}

impl Registration for InventorySocket {
    const NAME: &'static str = "inventory socket";
    type Settings = InventorySettings;

    fn settings(config: &Config) -> InventorySettings {
        InventorySettings {
            socket: config.inventory_socket(),
            mode: config.inventory.mode.0,
            users: config.inventory.users.clone(),
        }
    }

    async fn bind(settings: InventorySettings, shared: &mut Shared) -> Result<Option<Serve>> {
        let InventorySettings { socket, mode, users } = settings;
        let door = unix_socket::bind(&socket, mode)?;
        let managers = Arc::clone(&shared.reports.managers);
        Ok(Some(serve(move |stop| managers::socket::serve(door, managers, users, stop))))
    }
}

/// The client of systemd-machined.
pub(super) struct Machined;

impl Registration for Machined {
    const NAME: &'static str = "systemd-machined";
    /// Whether machined is asked.
    type Settings = bool;

    fn settings(config: &Config) -> bool {
        config.inventory.machined
    }

    async fn bind(wanted: bool, shared: &mut Shared) -> Result<Option<Serve>> {
        let managers = Arc::clone(&shared.reports.managers);
        if !wanted {
            let why = "not wanted: machined = false in [inventory]".into();
            managers.set_machined(Vec::new(), Health::Unsupported(why));
            return Ok(None);
        }
        Ok(Some(serve(move |stop| managers::machined::follow(managers, Builder::system, stop))))
    }
}
