//! The TCP listeners of the metrics page. They stay open while their addresses stay configured, so that a restart of
//! the page refuses no scraper.

use crate::export::http;
use anyhow::{Context, Result};
use std::net::{SocketAddr, TcpListener};

pub(super) struct Listeners {
    /// Passed by the service manager (`jouled.socket`): they replace those of the configuration.
    activated: Vec<TcpListener>,
    /// By address as configured: port 0 is another port once it is bound.
    open: Vec<(SocketAddr, TcpListener)>,
}

impl Listeners {
    pub fn new(activated: Vec<TcpListener>) -> Self {
        Self { activated, open: Vec::new() }
    }

    /// A listener for each address; those of other addresses are closed.
    ///
    /// # Errors
    /// Where an address cannot be listened on.
    pub fn take(&mut self, addresses: &[SocketAddr]) -> Result<Vec<tokio::net::TcpListener>> {
        if !self.activated.is_empty() {
            return http::take(&self.activated).context("sockets of the service manager (jouled.socket)");
        }
        self.open.retain(|(address, _)| addresses.contains(address));
        self.listen(&self.missing(addresses))?;
        let wanted = addresses.iter().filter_map(|wanted| self.open.iter().find(|(address, _)| address == wanted));
        Ok(http::take(wanted.map(|(_, listener)| listener))?)
    }

    /// Listens on new addresses while the old ones are still open.
    ///
    /// # Errors
    /// Where an address cannot be listened on.
    pub fn prepare(&mut self, addresses: &[SocketAddr]) -> Result<()> {
        let missing = self.missing(addresses);
        // An address on the port of an open listener may be free only once that is closed: `take` tries it then.
        let shared = missing.iter().any(|new| self.open.iter().any(|(old, _)| old.port() == new.port()));
        if self.activated.is_empty() && !shared { self.listen(&missing) } else { Ok(()) }
    }

    fn missing(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let is_open = |wanted: &SocketAddr| self.open.iter().any(|(address, _)| address == wanted);
        addresses.iter().filter(|wanted| !is_open(wanted)).copied().collect()
    }

    fn listen(&mut self, addresses: &[SocketAddr]) -> Result<()> {
        for (address, listener) in addresses.iter().zip(http::bind(addresses)?) {
            self.open.push((*address, listener.into_std()?));
        }
        Ok(())
    }
}
