use cudarc::driver::sys;

use crate::TensorError;

/// The oldest driver that loads the kernels' PTX (version 7.8): that of CUDA 11.8, which is 520 on Linux.
const OLDEST_DRIVER: i32 = 11080;

/// A GPU that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaInfo {
    /// Number of devices.
    pub devices: usize,
    /// Version of the driver's interface, 1000 · major + 10 · minor.
    pub driver: i32,
}

impl CudaInfo {
    /// The driver's version as it is written: `12.4`.
    pub fn driver_version(&self) -> String {
        format!("{}.{}", self.driver / 1000, self.driver % 1000 / 10)
    }
}

/// Asks the driver, without touching a device's state, whether there is a GPU.
///
/// # Errors
/// [`TensorError::NoCuda`] with the reason in one line. Never panics: cudarc does when the driver's library, or a function
/// in it, is missing, so the library is looked for first and then the driver's version.
pub fn probe() -> Result<CudaInfo, TensorError> {
    let no = |reason: String| Err(TensorError::NoCuda(reason));
    // SAFETY: only opens the driver's library; the dynamic loader runs its initialisers, as it does for any program.
    if !unsafe { sys::is_culib_present() } {
        return no("NVIDIA's driver library (libcuda) is not installed".into());
    }
    // SAFETY: the library is present, and cuInit may be called at any time.
    let code = unsafe { sys::cuInit(0) };
    if code != sys::CUresult::CUDA_SUCCESS {
        return no(format!("the driver does not start ({code:?})"));
    }
    let (mut driver, mut devices) = (0, 0);
    // SAFETY: writes one integer through a pointer to one.
    let code = unsafe { sys::cuDriverGetVersion(&raw mut driver) };
    if code != sys::CUresult::CUDA_SUCCESS {
        return no(format!("the driver does not tell its version ({code:?})"));
    }
    // SAFETY: writes one integer through a pointer to one.
    let code = unsafe { sys::cuDeviceGetCount(&raw mut devices) };
    if code != sys::CUresult::CUDA_SUCCESS {
        return no(format!("the driver does not count its devices ({code:?})"));
    }
    if devices < 1 {
        return no("the driver is there, but it finds no device".into());
    }
    let info = CudaInfo { devices: devices as usize, driver };
    if driver < OLDEST_DRIVER {
        let version = info.driver_version();
        return no(format!("the driver is one of CUDA {version}, and 11.8 (driver 520) or later is needed"));
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    #[test]
    fn probing_never_panics_and_says_why_not() {
        match super::probe() {
            Ok(info) => assert!(info.devices > 0 && info.driver > 0),
            Err(error) => {
                let line = error.to_string();
                assert!(line.starts_with("no CUDA device: ") && line.lines().count() == 1, "{line}");
            }
        }
    }
}
