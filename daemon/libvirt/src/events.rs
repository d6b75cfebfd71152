//! libvirt's events: what changed since it was last looked at. The virt crate has no events, so this registers them with the C library itself;
//! all that is unsafe here is in this file.

use std::collections::BTreeSet;
use std::ffi::{c_char, c_int, c_void};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use virt::connect::Connect;
use virt::error::Error;
use virt::sys;

/// More domains than this are not remembered one by one.
const DOMAINS: usize = 1_000;

/// What happened since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// UUIDs of domains that something happened to.
    pub domains: BTreeSet<String>,
    /// More happened than is remembered: look at all of them.
    pub all: bool,
    /// The connection was closed, and why.
    pub closed: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Noted {
    changes: Mutex<Changes>,
    wake: Condvar,
}

impl Noted {
    fn note(&self, note: impl FnOnce(&mut Changes)) {
        note(&mut self.lock());
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs libvirt's default event loop for the whole process, in a thread of its own. Before the first connection.
///
/// # Errors
/// Where libvirt or the system refuses.
pub fn run_loop() -> anyhow::Result<()> {
    virt::error::clear_error_callback();
    virt::event::event_register_default_impl()?;
    std::thread::Builder::new().name("libvirt-events".into()).spawn(|| {
        loop {
            if let Err(error) = virt::event::event_run_default_impl() {
                tracing::warn!("libvirt's event loop: {}", crate::board::printable(&error.to_string()));
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    })?;
    Ok(())
}

/// The events of a connection, until this is dropped.
pub struct Events {
    connect: Connect,
    noted: Arc<Noted>,
    callbacks: Vec<c_int>,
    has_close: bool,
}

impl Events {
    /// Asks for the events of a connection.
    ///
    /// # Errors
    /// Where there are none of the life cycle. Others that this libvirt lacks are done without.
    pub fn open(connect: &Connect) -> Result<Self, Error> {
        let mut events = Self { connect: connect.clone(), noted: Arc::default(), callbacks: Vec::new(), has_close: false };
        events.register(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, of_two_numbers())?;
        for (event, callback) in [
            (sys::VIR_DOMAIN_EVENT_ID_REBOOT, Some(of_domain as OfDomain)),
            (sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, of_number_and_text()),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, of_text()),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, of_text()),
        ] {
            if let Err(error) = events.register(event, callback) {
                tracing::debug!("libvirt event {event}: {}", crate::board::printable(&error.to_string()));
            }
        }
        events.register_close();
        Ok(events)
    }

    fn register(&mut self, event: sys::virDomainEventID, callback: sys::virConnectDomainEventGenericCallback) -> Result<(), Error> {
        let opaque = Arc::into_raw(Arc::clone(&self.noted)) as *mut c_void;
        // SAFETY: the connection is alive; a null domain means all; `callback` is a function of the kind that `event` is called with, and
        // takes `opaque` for the `Noted` that it is; the reference that `opaque` holds is given back by `release`, once.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.connect.as_ptr(),
                std::ptr::null_mut(),
                event as c_int,
                callback,
                opaque,
                Some(release),
            )
        };
        if id < 0 {
            let error = Error::last_error();
            // SAFETY: libvirt did not take it, so the reference is still ours.
            unsafe { release(opaque) };
            return Err(error);
        }
        self.callbacks.push(id);
        Ok(())
    }

    fn register_close(&mut self) {
        let opaque = Arc::into_raw(Arc::clone(&self.noted)) as *mut c_void;
        // SAFETY: as in `register`.
        let code = unsafe { sys::virConnectRegisterCloseCallback(self.connect.as_ptr(), Some(on_close), opaque, Some(release)) };
        self.has_close = code == 0;
        if !self.has_close {
            // SAFETY: libvirt did not take it, so the reference is still ours.
            unsafe { release(opaque) };
        }
    }

    /// What happened since the last call; waits for it up to `limit`, and a little more for what comes with it.
    pub fn next(&self, limit: Duration) -> Changes {
        let nothing = |changes: &mut Changes| *changes == Changes::default();
        let waited = self.noted.wake.wait_timeout_while(self.noted.lock(), limit, nothing);
        let (mut changes, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if changes.closed.is_none() && !nothing(&mut changes) {
            drop(changes);
            // One change makes several events.
            std::thread::sleep(Duration::from_millis(50));
            changes = self.noted.lock();
        }
        std::mem::take(&mut changes)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        for id in &self.callbacks {
            // SAFETY: the connection is alive and the number is one that it gave. A closed connection refuses, having released its callbacks.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), *id) };
        }
        if self.has_close {
            // SAFETY: the connection is alive and this callback is registered with it.
            unsafe { sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close)) };
        }
    }
}

type OfDomain = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type OfText = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
type OfTwoNumbers = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type OfNumberAndText = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *const c_char, *mut c_void);

fn of_text() -> sys::virConnectDomainEventGenericCallback {
    // SAFETY: libvirt calls it back as what the event's number says, which is `OfText`.
    Some(unsafe { std::mem::transmute::<OfText, OfDomain>(on_text) })
}

fn of_two_numbers() -> sys::virConnectDomainEventGenericCallback {
    // SAFETY: libvirt calls it back as what the event's number says, which is `OfTwoNumbers`.
    Some(unsafe { std::mem::transmute::<OfTwoNumbers, OfDomain>(on_two_numbers) })
}

fn of_number_and_text() -> sys::virConnectDomainEventGenericCallback {
    // SAFETY: libvirt calls it back as what the event's number says, which is `OfNumberAndText`.
    Some(unsafe { std::mem::transmute::<OfNumberAndText, OfDomain>(on_number_and_text) })
}

unsafe extern "C" fn of_domain(_: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: libvirt gives a domain that lives during the call, and the `opaque` that was registered.
    unsafe { note_domain(domain, opaque) };
}

unsafe extern "C" fn on_text(_: sys::virConnectPtr, domain: sys::virDomainPtr, _: *const c_char, opaque: *mut c_void) {
    // SAFETY: as in `of_domain`.
    unsafe { note_domain(domain, opaque) };
}

unsafe extern "C" fn on_number_and_text(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: c_int,
    _: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `of_domain`.
    unsafe { note_domain(domain, opaque) };
}

unsafe extern "C" fn on_two_numbers(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: c_int,
    _: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: as in `of_domain`.
    unsafe { note_domain(domain, opaque) };
    0
}

/// # Safety
/// `domain` is a living domain; `opaque` is the `Noted` that was registered.
unsafe fn note_domain(domain: sys::virDomainPtr, opaque: *mut c_void) {
    let mut uuid = [0_u8; sys::VIR_UUID_STRING_BUFLEN as usize];
    // SAFETY: the buffer has the length that libvirt asks for; `opaque` holds a reference to the `Noted`.
    let (code, noted) =
        unsafe { (sys::virDomainGetUUIDString(domain, uuid.as_mut_ptr().cast()), &*opaque.cast_const().cast::<Noted>()) };
    noted.note(|changes| match std::str::from_utf8(&uuid[..uuid.len() - 1]) {
        Ok(uuid) if code == 0 && changes.domains.len() < DOMAINS => {
            changes.domains.insert(uuid.to_string());
        }
        _ => changes.all = true,
    });
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is the `Noted` that was registered.
    let noted = unsafe { &*opaque.cast_const().cast::<Noted>() };
    noted.note(|changes| {
        changes.closed = Some(match reason as sys::virConnectCloseReason {
            sys::VIR_CONNECT_CLOSE_REASON_EOF => "libvirt closed the connection",
            sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE => "libvirt does not answer",
            _ => "the connection to libvirt broke",
        });
    });
}

unsafe extern "C" fn release(opaque: *mut c_void) {
    // SAFETY: `opaque` is a reference that `register` made of an `Arc<Noted>`; libvirt calls this once for each.
    drop(unsafe { Arc::from_raw(opaque.cast_const().cast::<Noted>()) });
}
