//! Follows one libvirt: connects read-only, lists the running domains, keeps the list up to date by events, and
//! connects again when libvirt is gone.

use crate::board::{Board, Machines, printable};
use crate::domain::{self, Machine};
use crate::events::Events;
use std::convert::Infallible;
use std::time::{Duration, Instant};
use virt::connect::Connect;
use virt::domain::{Domain, DomainState};
use virt::enumutil::Enum;
use virt::error::{Error, ErrorNumber};
use virt::sys;

/// Time between two full lists: some changes (number of virtual CPUs) have no event.
const LIST_EVERY: Duration = Duration::from_secs(60);
/// Pause between two attempts to connect: the first, and the longest.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Keepalive interval in seconds, and the number of missed replies: a libvirt that is silent for 20 s is taken for
/// gone.
const KEEP_ALIVE: (i32, u32) = (5, 3);

/// Follows libvirt number `which` of the board, forever.
pub fn follow(uri: &str, which: usize, board: &Board) {
    let mut pause = RETRY_PAUSES.0;
    loop {
        let began = Instant::now();
        let why = Session { uri, which, board }.run();
        if board.set_unreachable(which, &why) {
            tracing::warn!("{uri}: {why}; trying again");
        }
        if began.elapsed() > RETRY_PAUSES.1 {
            pause = RETRY_PAUSES.0;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(RETRY_PAUSES.1);
    }
}

struct Session<'a> {
    uri: &'a str,
    which: usize,
    board: &'a Board,
}

impl Session<'_> {
    /// One connection; returns why it ended.
    fn run(&self) -> String {
        match self.follow() {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    fn follow(&self) -> Result<Infallible, String> {
        let connect = self.call(|| Connect::open_read_only(Some(self.uri)))?;
        // Only connections to a daemon have keepalive; others cannot break.
        if let Err(error) = self.call(|| connect.set_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)) {
            tracing::debug!("{}: {error}", self.uri);
        }
        // Events first: a change while the domains are listed is read again.
        let events = self.call(|| Events::open(&connect))?;
        tracing::info!("{}: connected", self.uri);
        let mut machines = self.list(&connect)?;
        let mut listed = Instant::now();
        loop {
            self.board.set_machines(self.which, &machines);
            let changes = events.next(LIST_EVERY.saturating_sub(listed.elapsed()));
            if let Some(why) = changes.closed {
                return Err(why.into());
            }
            if changes.all || listed.elapsed() >= LIST_EVERY {
                machines = self.list(&connect)?;
                listed = Instant::now();
                continue;
            }
            for uuid in changes.domains {
                let machine = match self.board.timed_call(self.which, || connect.lookup_domain_by_uuid_string(&uuid)) {
                    Ok(domain) => self.machine(&connect, &domain)?,
                    Err(error) => self.unless_broken(&connect, &error)?,
                };
                match machine {
                    Some(machine) => machines.insert(uuid, machine),
                    None => machines.remove(&uuid),
                };
            }
        }
    }

    fn list(&self, connect: &Connect) -> Result<Machines, String> {
        let mut machines = Machines::new();
        for domain in self.call(|| connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE))? {
            if let Some(machine) = self.machine(connect, &domain)? {
                machines.insert(machine.uuid.clone(), machine);
            }
        }
        Ok(machines)
    }

    /// A domain as it is sent to jouled; `None`: it does not run, or cannot be read.
    fn machine(&self, connect: &Connect, domain: &Domain) -> Result<Option<Machine>, String> {
        let read = || Ok((domain.state()?.0, domain.xml_desc(0)?));
        let (state, xml) = match self.board.timed_call(self.which, read) {
            Ok(read) => read,
            Err(error) => return self.unless_broken(connect, &error),
        };
        let state = match state {
            Enum::Known(DomainState::Shutoff) => return Ok(None),
            Enum::Known(state) => state_name(state),
            Enum::Unknown(_) => "",
        };
        Ok(domain::parse(&xml, state)
            .inspect_err(|why| tracing::warn!("{}: domain {:?}: {}", self.uri, domain.uuid_string(), printable(why)))
            .ok())
    }

    /// `None` for an error of one domain (it is gone, it is locked); an error of the connection ends it.
    fn unless_broken(&self, connect: &Connect, error: &Error) -> Result<Option<Machine>, String> {
        match self.board.timed_call(self.which, || connect.is_alive()) {
            Ok(true) => {
                if error.code() != Enum::Known(ErrorNumber::NoDomain) {
                    tracing::warn!("{}: {}", self.uri, printable(&error.to_string()));
                }
                Ok(None)
            }
            _ => Err(printable(error.message())),
        }
    }

    fn call<T>(&self, call: impl FnOnce() -> Result<T, Error>) -> Result<T, String> {
        self.board.timed_call(self.which, call).map_err(|error| printable(error.message()))
    }
}

/// Name of a state, as virsh prints it.
const fn state_name(state: DomainState) -> &'static str {
    match state {
        DomainState::NoState => "",
        DomainState::Running => "running",
        DomainState::Blocked => "blocked",
        DomainState::Paused => "paused",
        DomainState::Shutdown => "shutdown",
        DomainState::Shutoff => "shutoff",
        DomainState::Crashed => "crashed",
        DomainState::PMSuspended => "pmsuspended",
    }
}
