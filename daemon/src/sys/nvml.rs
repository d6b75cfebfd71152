//! NVIDIA's management library (NVML), loaded at run time (`[meter.nvml]`): finds and opens it, identifies GPUs,
//! explains its errors. Reads neither energy nor use; the meter and the usage source each open the library
//! themselves.

use crate::model::source::PciAddress;
use crate::model::values::Use;
use crate::sys::nvml_sleep;
use crate::sys::safe_text::quoted;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The name of the source, of the meter and of GPU usage.
pub const SOURCE: &str = "nvml";
/// The library's name in every driver package.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// Longest text of the driver that is shown, in characters.
const TEXT_MAX: usize = 120;

/// `[meter.nvml]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NvmlConfig {
    /// Whether NVIDIA GPUs are read where their driver is loaded.
    #[serde(deserialize_with = "Use::auto_or_never")]
    pub r#use: Use,
    /// Path of the library, where the system's loader does not find it.
    pub library: Option<PathBuf>,
}

/// The library to load, and the module that has to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    library: PathBuf,
    /// A path that exists while the driver is loaded; `None`: not checked.
    module: Option<PathBuf>,
    /// The kernel's list of PCI devices, which says without waking a GPU whether it sleeps.
    pub(super) devices: PathBuf,
}

impl NvmlConfig {
    /// The library to load; or why it is not used.
    pub fn library(&self, sysfs: &Path) -> Result<Library, &'static str> {
        match (self.r#use, &self.library) {
            (Use::Never, _) => Err("not wanted: use = \"never\" in [meter.nvml]"),
            (_, Some(library)) => {
                Ok(Library { library: library.clone(), module: None, devices: nvml_sleep::devices(sysfs) })
            }
            // The library reads this kernel's GPUs, whatever --sysfs is.
            (_, None) if sysfs != Path::new("/sys") => {
                Err("not tried, as --sysfs is not /sys (library = \"PATH\" in [meter.nvml] would)")
            }
            (_, None) => Ok(Library::by_name(LIBRARY, sysfs)),
        }
    }
}

impl Library {
    fn by_name(library: &str, sysfs: &Path) -> Self {
        let module = Some(sysfs.join("module/nvidia"));
        Self { library: library.into(), module, devices: nvml_sleep::devices(sysfs) }
    }

    /// The message where [`Library::open`] finds no GPU.
    pub fn absent(&self) -> String {
        let library = self.library.display();
        match &self.module {
            Some(module) => {
                format!(
                    "no NVIDIA GPU: {} (the driver) is not there, or {library} is not installed, or it knows no GPU",
                    module.display()
                )
            }
            None => format!(
                "no NVIDIA GPU: {library} is not there, or says that the driver is not loaded, or it knows no GPU"
            ),
        }
    }

    /// Loads and initialises the library. `None`: there is no library, no driver, or no GPU.
    ///
    /// # Errors
    /// The library or the driver does not work.
    pub fn open(&self) -> Result<Option<(Nvml, u32)>, String> {
        // Without its driver the library may load it, which an operator who unloaded the driver does not want.
        if self.module.as_ref().is_some_and(|module| !module.exists()) {
            return Ok(None);
        }
        let nvml = match Nvml::builder().lib_path(self.library.as_os_str()).init() {
            Ok(nvml) => nvml,
            Err(NvmlError::LibloadingError(error)) if self.says_absent(&error.to_string()) => return Ok(None),
            Err(NvmlError::DriverNotLoaded) => return Ok(None),
            Err(NvmlError::FailedToLoadSymbol(_)) => {
                return Err(format!(
                    "{} is not NVIDIA's management library: it has no nvmlInit_v2",
                    self.library.display()
                ));
            }
            Err(error) => return Err(format!("{}: {}", self.library.display(), words(&error))),
        };
        match nvml.device_count() {
            Ok(0) => Ok(None),
            Ok(count) => Ok(Some((nvml, count))),
            Err(error) => Err(format!("NVML cannot count its GPUs: {}", words(&error))),
        }
    }

    /// Whether dlopen(3) reports that this library is missing, and not one that it depends on.
    fn says_absent(&self, error: &str) -> bool {
        error.starts_with(&*self.library.to_string_lossy()) && error.ends_with("No such file or directory")
    }
}

/// A GPU of the open library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its index, valid while the library is open.
    pub index: u32,
    /// Its PCI address.
    pub address: PciAddress,
}

/// The GPU with this number.
///
/// # Errors
/// The library cannot open it: in a container its device file may be missing.
pub fn card(nvml: &Nvml, index: u32) -> Result<Card, String> {
    let find = || nvml.device_by_index(index)?.pci_info();
    let info = find().map_err(|error| format!("GPU {index}: {}", words(&error)))?;
    let address = info.bus_id.parse().map_err(|error| format!("GPU {index}: {error}"))?;
    Ok(Card { index, address })
}

/// The handle of a GPU.
///
/// # Errors
/// The library's error.
pub fn device<'a>(nvml: &'a Nvml, card: &Card) -> Result<Device<'a>, NvmlError> {
    nvml.device_by_index(card.index)
}

/// An error for the operator, with what can be done about it.
pub fn words(error: &NvmlError) -> String {
    match error {
        NvmlError::GpuLost => {
            "NVML says that the GPU is lost: it fell off the bus; a reset or a reboot brings it back".into()
        }
        NvmlError::DriverNotLoaded => "NVML says that the NVIDIA driver is not loaded".into(),
        NvmlError::LibRmVersionMismatch => {
            "NVML says that the driver is of another version than its library: reload the driver, or reboot".into()
        }
        NvmlError::NoPermission => {
            "NVML says no permission: jouled has to be able to open /dev/nvidiactl and /dev/nvidia0".into()
        }
        NvmlError::ResetRequired => "NVML says that the GPU has to be reset".into(),
        NvmlError::NotSupported => "NVML says that this GPU does not support it".into(),
        NvmlError::Unknown => "NVML says unknown error".into(),
        NvmlError::UnexpectedVariant(code) => match unlisted(*code) {
            Some(meaning) => format!("NVML says {meaning} (code {code})"),
            None => format!("NVML says code {code}, which is of a later version of it"),
        },
        other => format!("NVML says {}", shown(&other.to_string())),
    }
}

/// The meaning of a code that nvml-wrapper does not know (nvmlReturn_t in nvml.h).
const fn unlisted(code: u32) -> Option<&'static str> {
    Some(match code {
        23 => "that resources are missing",
        24 => "that the frequency is not supported",
        25 => "that the driver does not know this version of a structure",
        26 => "that the function is deprecated",
        27 => "that the GPU is not in ready state",
        28 => "that the GPU is not found",
        29 => "that the GPU is in an invalid state",
        30 => "that this kind of reset is not supported",
        _ => return None,
    })
}

/// Processes with a context on the GPU.
pub fn holders(device: &Device<'_>) -> Vec<u32> {
    let lists = [device.running_compute_processes(), device.running_graphics_processes()];
    lists.into_iter().flatten().flatten().map(|process| process.pid).collect()
}

/// A text of the driver, escaped and cut, for logs and labels.
pub fn shown(text: &str) -> String {
    quoted(text, TEXT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_not_an_error() {
        let sysfs = tempfile::tempdir().unwrap();
        let library = Library::by_name("libjouled-no-such-library.so.1", sysfs.path());
        assert!(library.open().unwrap().is_none());
        std::fs::create_dir_all(sysfs.path().join("module/nvidia")).unwrap();
        assert!(library.open().unwrap().is_none());
        assert!(
            library.absent().contains("module/nvidia") && library.absent().contains("libjouled-no-such-library.so.1")
        );
        let named = NvmlConfig { library: Some("/nonexistent/libnvidia-ml.so.1".into()), ..NvmlConfig::default() };
        assert!(named.library(sysfs.path()).unwrap().open().unwrap().is_none());
    }

    #[test]
    fn another_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libnvidia-ml.so.1");
        std::fs::write(&file, "not an ELF file").unwrap();
        let library = Library { library: file, module: None, devices: dir.path().join("none") };
        let why = library.open().unwrap_err();
        assert!(why.contains("libnvidia-ml.so.1"), "{why}");
    }

    #[test]
    fn another_sysfs_needs_a_configured_library() {
        let config = NvmlConfig::default();
        assert!(config.library(Path::new("/other")).unwrap_err().contains("--sysfs is not /sys"));
        assert_eq!(config.library(Path::new("/sys")).unwrap(), Library::by_name(LIBRARY, Path::new("/sys")));
        let never = NvmlConfig { r#use: Use::Never, ..config };
        assert!(never.library(Path::new("/sys")).unwrap_err().contains("never"));
    }

    #[test]
    fn codes_that_the_wrapper_does_not_know_have_words() {
        let said = words(&NvmlError::UnexpectedVariant(27));
        assert_eq!(said, "NVML says that the GPU is not in ready state (code 27)");
        assert!(words(&NvmlError::UnexpectedVariant(77)).contains("code 77"));
    }

    #[test]
    fn the_drivers_text_is_escaped() {
        assert_eq!(shown("a\u{1b}[2J\n\"b"), "a\\u{1b}[2J\\n\\\"b");
        assert!(shown(&"x".repeat(9999)).len() <= TEXT_MAX);
    }
}
