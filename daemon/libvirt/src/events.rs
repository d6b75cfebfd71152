//! libvirt's events: which domains changed since the last call. The virt crate has no events, so this file registers
//! callbacks with the C library; it has all unsafe code of this program.

use std::collections::BTreeSet;
use std::ffi::{c_char, c_int, c_void};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use virt::connect::Connect;
use virt::error::Error;
use virt::sys;

/// Domains that are listed one by one at most.
const DOMAINS_MAX: usize = 1_000;

/// Changes since the last call.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// UUIDs of the domains with an event.
    pub domains: BTreeSet<String>,
    /// There were more than are listed: all domains have to be read.
    pub all: bool,
    /// The connection was closed: why.
    pub closed: Option<&'static str>,
}

#[derive(Debug, Default)]
struct PendingChanges {
    changes: Mutex<Changes>,
    wake: Condvar,
}

impl PendingChanges {
    fn update(&self, update: impl FnOnce(&mut Changes)) {
        update(&mut self.lock());
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs libvirt's default event loop for the whole process, on a thread of its own. Call it before the first
/// connection.
///
/// # Errors
/// libvirt or the system refuses.
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
    pending: Arc<PendingChanges>,
    callbacks: Vec<c_int>,
    has_close: bool,
}

impl Events {
    /// Registers for the events of a connection.
    ///
    /// # Errors
    /// Lifecycle events are not available. Others may be missing in this libvirt.
    pub fn open(connect: &Connect) -> Result<Self, Error> {
        let mut events =
            Self { connect: connect.clone(), pending: Arc::default(), callbacks: Vec::new(), has_close: false };
        events.register(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, two_numbers_callback())?;
        for (event, callback) in [
            (sys::VIR_DOMAIN_EVENT_ID_REBOOT, Some(on_domain as DomainCallback)),
            (sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, number_and_text_callback()),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, text_callback()),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, text_callback()),
        ] {
            if let Err(error) = events.register(event, callback) {
                tracing::debug!("libvirt event {event}: {}", crate::board::printable(&error.to_string()));
            }
        }
        events.register_close();
        Ok(events)
    }

    fn register(
        &mut self,
        event: sys::virDomainEventID,
        callback: sys::virConnectDomainEventGenericCallback,
    ) -> Result<(), Error> {
        let opaque = Arc::into_raw(Arc::clone(&self.pending)) as *mut c_void;
        // SAFETY: the connection is alive; a null domain means all; `callback` is a function of the type that libvirt
        // calls for `event`, and takes `opaque` for the `PendingChanges` that it is; `release` drops the reference that
        // `opaque` holds, once.
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
        let opaque = Arc::into_raw(Arc::clone(&self.pending)) as *mut c_void;
        // SAFETY: as in `register`.
        let code = unsafe {
            sys::virConnectRegisterCloseCallback(self.connect.as_ptr(), Some(on_close), opaque, Some(release))
        };
        self.has_close = code == 0;
        if !self.has_close {
            // SAFETY: libvirt did not take it, so the reference is still ours.
            unsafe { release(opaque) };
        }
    }

    /// Changes since the last call. Waits up to `limit` for the first one, then 50 ms for others.
    pub fn next(&self, limit: Duration) -> Changes {
        let nothing = |changes: &mut Changes| *changes == Changes::default();
        let waited = self.pending.wake.wait_timeout_while(self.pending.lock(), limit, nothing);
        let (mut changes, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if changes.closed.is_none() && !nothing(&mut changes) {
            drop(changes);
            // One change of a domain causes several events.
            std::thread::sleep(Duration::from_millis(50));
            changes = self.pending.lock();
        }
        std::mem::take(&mut changes)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        for id in &self.callbacks {
            // SAFETY: the connection is alive, and it gave this id. A closed connection refuses, having released its
            // callbacks.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), *id) };
        }
        if self.has_close {
            // SAFETY: the connection is alive and this callback is registered with it.
            unsafe { sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close)) };
        }
    }
}

type DomainCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type TextCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
type TwoNumbersCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type NumberAndTextCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *const c_char, *mut c_void);

fn text_callback() -> sys::virConnectDomainEventGenericCallback {
    // SAFETY: libvirt calls it with the type of the event's id, which is `TextCallback`.
    Some(unsafe { std::mem::transmute::<TextCallback, DomainCallback>(on_text) })
}

fn two_numbers_callback() -> sys::virConnectDomainEventGenericCallback {
    // SAFETY: libvirt calls it with the type of the event's id, which is `TwoNumbersCallback`.
    Some(unsafe { std::mem::transmute::<TwoNumbersCallback, DomainCallback>(on_two_numbers) })
}

fn number_and_text_callback() -> sys::virConnectDomainEventGenericCallback {
    // SAFETY: libvirt calls it with the type of the event's id, which is `NumberAndTextCallback`.
    Some(unsafe { std::mem::transmute::<NumberAndTextCallback, DomainCallback>(on_number_and_text) })
}

unsafe extern "C" fn on_domain(_: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: libvirt passes a domain that is alive during the call, and the `opaque` that was registered.
    unsafe { add_domain(domain, opaque) };
}

unsafe extern "C" fn on_text(_: sys::virConnectPtr, domain: sys::virDomainPtr, _: *const c_char, opaque: *mut c_void) {
    // SAFETY: as in `on_domain`.
    unsafe { add_domain(domain, opaque) };
}

unsafe extern "C" fn on_number_and_text(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: c_int,
    _: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_domain`.
    unsafe { add_domain(domain, opaque) };
}

unsafe extern "C" fn on_two_numbers(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: c_int,
    _: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: as in `on_domain`.
    unsafe { add_domain(domain, opaque) };
    0
}

/// # Safety
/// `domain` is alive; `opaque` is the `PendingChanges` that was registered.
unsafe fn add_domain(domain: sys::virDomainPtr, opaque: *mut c_void) {
    let mut uuid = [0_u8; sys::VIR_UUID_STRING_BUFLEN as usize];
    // SAFETY: the buffer has the length that libvirt requires; `opaque` holds a reference to the `PendingChanges`.
    let (code, pending) = unsafe {
        (sys::virDomainGetUUIDString(domain, uuid.as_mut_ptr().cast()), &*opaque.cast_const().cast::<PendingChanges>())
    };
    pending.update(|changes| match std::str::from_utf8(&uuid[..uuid.len() - 1]) {
        Ok(uuid) if code == 0 && changes.domains.len() < DOMAINS_MAX => {
            changes.domains.insert(uuid.to_string());
        }
        _ => changes.all = true,
    });
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is the `PendingChanges` that was registered.
    let pending = unsafe { &*opaque.cast_const().cast::<PendingChanges>() };
    pending.update(|changes| {
        changes.closed = Some(match reason as sys::virConnectCloseReason {
            sys::VIR_CONNECT_CLOSE_REASON_EOF => "libvirt closed the connection",
            sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE => "libvirt does not answer",
            _ => "the connection to libvirt broke",
        });
    });
}

unsafe extern "C" fn release(opaque: *mut c_void) {
    // SAFETY: `opaque` is a reference that `register` made of an `Arc<PendingChanges>`; libvirt calls this once for
    // each.
    drop(unsafe { Arc::from_raw(opaque.cast_const().cast::<PendingChanges>()) });
}
