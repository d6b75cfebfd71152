//! `joulectl guest`: how an operator lets a guest see its power without an agent (docs/acpi-power-meter.md).

use super::Error;
use super::client::Client;
use super::text::{safe, write_lines};
use crate::model::guest::MeterPage;
use clap::Subcommand;
use std::io::Write;

/// What `joulectl guest` can do.
#[derive(Debug, Subcommand)]
pub enum GuestCommand {
    /// The ACPI power meters of guests: all of them, or how to give one to a VM.
    #[command(long_about = "\
The ACPI power meters of guests. Without a VM, a line for each that is configured
([export.guest.acpi] vms): its page, the user who may read it, and its power now. With a VM, what to
add to its definition in libvirt, and to QEMU's arguments.")]
    Acpi {
        /// The VM, as it is configured: its UUID or its name.
        vm: Option<String>,
    },
}

/// Carries out a command.
///
/// # Errors
/// Where jouled cannot be reached, or has no page for the VM.
pub async fn run(command: &GuestCommand, client: &Client, out: &mut dyn Write) -> Result<(), Error> {
    let GuestCommand::Acpi { vm } = command;
    let pages = client.meter_pages().await?;
    let lines = match vm {
        None => list(&pages),
        Some(vm) => match pages.iter().find(|page| page.vm.eq_ignore_ascii_case(vm)) {
            Some(page) => how_to(page),
            None => return Err(Error::Usage(missing(vm, &pages))),
        },
    };
    Ok(write_lines(out, &lines)?)
}

fn missing(vm: &str, pages: &[MeterPage]) -> String {
    let known: Vec<String> = pages.iter().map(|page| safe(&page.vm)).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!(
        "jouled has no power meter for a VM {:?} (it has: {known}): add it to `vms` in [export.guest.acpi] with the user that \
         runs its QEMU, and reload jouled",
        safe(vm)
    )
}

fn list(pages: &[MeterPage]) -> Vec<String> {
    let line = |page: &MeterPage| {
        format!("{}  {}  {}  {}", safe(&page.vm), safe(&page.user), safe(&page.page), safe(&page.state))
    };
    if pages.is_empty() {
        return vec!["no power meters: name VMs in [export.guest.acpi] vms".to_owned()];
    }
    pages.iter().map(line).collect()
}

/// QEMU's arguments.
fn arguments(page: &MeterPage) -> [(&'static str, String); 3] {
    let MeterPage { page: path, bytes, table, slot, migration, .. } = page;
    // With master=on QEMU sends the page with the VM. It aborts where it may not write to the page.
    let (access, master) = if *migration { ("share=on", ",master=on") } else { ("share=on,readonly=on", "") };
    [
        ("-object", format!("memory-backend-file,id=jouled,mem-path={path},size={bytes},{access}")),
        ("-device", format!("ivshmem-plain,memdev=jouled,addr={slot:#x}{master}")),
        ("-acpitable", format!("file={table}")),
    ]
}

fn how_to(page: &MeterPage) -> Vec<String> {
    let vm = safe(&page.vm);
    let mut lines = vec![
        format!("# libvirt: virsh edit {vm}, and add this before </domain>. Then stop the VM and start it."),
        "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>".to_owned(),
    ];
    let arguments = arguments(page).map(|(option, value)| (option, safe(&value)));
    let argument = |value: &str| format!("  <qemu:arg value='{}'/>", escape(value));
    lines.extend(arguments.iter().flat_map(|(option, value)| [argument(option), argument(value)]));
    lines.extend(["</qemu:commandline>".to_owned(), String::new()]);
    lines
        .push("# AppArmor, where libvirt confines QEMU: /etc/apparmor.d/abstractions/libvirt-qemu.d/jouled".to_owned());
    let access = if page.migration { "rw" } else { "r" };
    lines.push(format!("{} {access},", safe(&page.page)));
    lines.extend([format!("{} r,", safe(&page.table)), String::new()]);
    lines.push("# QEMU alone".to_owned());
    let last = arguments.len() - 1;
    lines.extend(arguments.iter().enumerate().map(|(n, (option, value))| {
        let more = if n == last { "" } else { " \\" };
        format!("{option} {value}{more}")
    }));
    let user = safe(&page.user);
    lines.extend([String::new(), format!("# now: {} (user {user})", safe(&page.state))]);
    lines
}

/// A text as the value of an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(migration: bool) -> MeterPage {
        MeterPage {
            vm: "web".into(),
            user: "libvirt-qemu".into(),
            page: "/var/lib/jouled-acpi/web.page".into(),
            bytes: 4096,
            table: "/var/lib/jouled-acpi/power-meter.aml".into(),
            slot: 24,
            migration,
            state: "12.300 W".into(),
        }
    }

    #[test]
    fn what_to_add_is_what_qemu_takes() {
        let text = how_to(&page(false)).join("\n");
        for wanted in [
            "<qemu:arg value='memory-backend-file,id=jouled,mem-path=/var/lib/jouled-acpi/web.page,size=4096,share=on,readonly=on'/>",
            "<qemu:arg value='ivshmem-plain,memdev=jouled,addr=0x18'/>",
            "-acpitable file=/var/lib/jouled-acpi/power-meter.aml",
            "/var/lib/jouled-acpi/web.page r,",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
        let text = how_to(&page(true)).join("\n");
        assert!(text.contains("share=on'/>") && text.contains("addr=0x18,master=on") && !text.contains("readonly"));
        assert!(text.contains("web.page rw,"));
    }

    #[test]
    fn a_vm_without_a_page_is_an_error_that_says_what_to_do() {
        assert!(missing("db", &[page(false)]).contains("it has: web"));
        assert!(missing("db", &[]).contains("[export.guest.acpi]"));
        assert_eq!(list(&[page(false)]), ["web  libvirt-qemu  /var/lib/jouled-acpi/web.page  12.300 W"]);
        assert!(list(&[])[0].contains("no power meters"));
    }
}
